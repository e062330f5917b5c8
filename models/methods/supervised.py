"""Plain supervised training: one network and one loss. The baseline of learning from noisy labels, robust losses."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dataloaders.images.labels import LabelStore
from dataloaders.protocol import DataFacts
from dataloaders.samples import DenseBatch, ImageCase
from models.losses import IMAGE_LOSSES, LOSS_TITLES, LossConfig, LossName, build_loss
from models.losses.t_loss import NuPlateau, TLoss
from models.methods.base import Method, exclusive_masks, requested_classes
from models.networks.passes import run_in_chunks
from models.networks.unet import UNetConfig, build_unet, fitting_unet
from models.training.optim import OptimConfig, Trainable
from util.errors import ConfigError
from util.schema import option


@dataclass(frozen=True)
class SupervisedConfig(LossConfig):
    """Network and loss; the hyper-parameters of the losses are those of `LossConfig`."""

    unet: UNetConfig = option(UNetConfig, "architecture")
    loss: LossName = "ce"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss == "tloss" and self.tloss.reduction == "none":
            raise ConfigError("tloss.reduction='none': gives a value per image; to train, expected 'mean' or 'sum'.")


class Supervised(Method):
    """Trains one U-Net on the labels as they are.

    Source: with `ce` and class weights, the baseline of superpixel-guided learning (MICCAI 2021); with `tloss`, Robust
    T-Loss (MICCAI 2023); with the other losses, those it is compared with.
    """

    Config = SupervisedConfig
    family = "dense"
    batch_type = DenseBatch

    def __init__(self, config: SupervisedConfig) -> None:
        super().__init__()
        self.config = config
        self.network = build_unet(config.unet)
        self.loss = build_loss(config.loss, config, config.unet.n_classes)
        self.plateau: NuPlateau | None = None
        if isinstance(self.loss, TLoss) and config.tloss.plateau:
            self.plateau = NuPlateau(len(self.loss.raw_nu), config.tloss)

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """The loss's name; the class-weighted cross-entropy is the baseline of superpixel-guided learning."""
        loss, is_weighted = settings["loss"], settings["class_weighted"]
        if loss == "ce" and is_weighted:
            return "Baseline"
        return LOSS_TITLES[loss] + (" weighted" if is_weighted and loss not in IMAGE_LOSSES else "")

    @classmethod
    def derived(cls, facts: DataFacts | None) -> dict[str, Any]:
        """A network that fits the images."""
        return {} if facts is None else {"unet": fitting_unet(facts.channels, facts.n_classes, facts.shape)}

    def forward(self, batch: DenseBatch) -> dict[str, Tensor]:
        """The loss of a batch; with T-Loss also nu, one per foreground class if there are several."""
        losses = {"loss": self.loss(self.network(batch.image), batch.label)}
        if isinstance(self.loss, TLoss):
            nu = self.loss.nu.detach()
            losses |= {"nu": nu[0]} if len(nu) == 1 else {f"nu_{i}": value for i, value in enumerate(nu, start=1)}
        return losses

    def optimisers(self, optim: OptimConfig) -> dict[str, Trainable]:
        """main: the network; loss: parameters of the loss, at a constant learning rate and without weight decay."""
        trained = {"main": Trainable(list(self.network.parameters()), optim)}
        learned = list(self.loss.parameters())
        if learned:
            constant = {"lr": self.config.tloss.lr_nu, "weight_decay": 0.0, "schedule": "constant", "warmup_steps": 0}
            trained["loss"] = Trainable(learned, replace(optim, **constant))
        return trained

    def before_training(self, labels: LabelStore | None) -> None:
        """Checks that the network has as many outputs as the labels have classes.

        Raises:
            ConfigError: it has not.
        """
        n_classes = self.config.unet.n_classes
        if labels is not None and labels.n_classes != n_classes:
            raise ConfigError(
                f"unet.n_classes={n_classes}: the labels have {labels.n_classes} classes, including the background; "
                f"set unet.n_classes={labels.n_classes}."
            )

    def learning_rate_factor(self, name: str) -> float:
        """Of the network: falls when the nu of T-Loss has settled."""
        return 1.0 if self.plateau is None or name != "main" else self.plateau.factor

    def after_step(self, step: int) -> None:
        """Updates the plateau rule with nu."""
        if self.plateau is not None and isinstance(self.loss, TLoss):
            self.plateau.update(step, self.loss.raw_nu)

    def inference_network(self) -> nn.Module:
        """The U-Net: logits of every class, with the background."""
        return self.network

    @torch.no_grad()
    def class_probabilities(
        self, image: Float[Tensor, "B C H W"], temperature: float = 1.0
    ) -> Float[Tensor, "B K H W"]:
        """Probability of every class, with the background: softmax(logits / temperature)."""
        logits = torch.cat(list(run_in_chunks(self.network, len(image), image)))
        return (logits.float() / temperature).softmax(1)

    def probabilities(self, case: ImageCase, support: None = None) -> Float[Tensor, "K D H W"]:
        """Softmax probabilities of the requested classes.

        Raises:
            ConfigError: a requested class that the network does not have.
        """
        return requested_classes(self.class_probabilities(case.image), case.classes, "unet.n_classes")

    def masks(self, probabilities: Float[Tensor, "K D H W"]) -> Bool[Tensor, "K D H W"]:
        """The most probable class at every pixel: of two, the one above 1/2."""
        return exclusive_masks(probabilities)


class UpperBound(Supervised):
    """The same trained on the clean labels: the upper bound of learning from noisy ones."""

    trains_on = "clean"

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """Upper bound of the class-weighted baseline, or the loss's name."""
        name = super().title(settings)
        return "Upper bound" if name == "Baseline" else f"{name} on clean masks"
