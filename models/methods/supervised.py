"""One network and one loss: the baseline of learning from noisy labels, its robust losses, and its upper bound."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dataloaders.images.labels import LabelStore
from dataloaders.samples import DenseBatch, ImageCase
from models.losses import IMAGE_LOSSES, LOSS_TITLES, LossConfig, LossName, build_loss
from models.losses.t_loss import NuPlateau, TLoss
from models.methods.base import Method
from models.networks.unet import UNetConfig, build_unet
from models.training.speed import in_passes
from util.errors import ConfigError


@dataclass(frozen=True)
class SupervisedConfig(LossConfig):
    """Network and loss; the hyper-parameters of the losses are those of `LossConfig`."""

    unet: UNetConfig = field(default_factory=UNetConfig)
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
            self.plateau = NuPlateau(len(self.loss.raw_nu), config.tloss.plateau_floor)

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """The loss's name; the class-weighted cross-entropy is the baseline of superpixel-guided learning."""
        loss, is_weighted = settings["loss"], settings["class_weighted"]
        if loss == "ce" and is_weighted:
            return "Baseline"
        return LOSS_TITLES[loss] + (" weighted" if is_weighted and loss not in IMAGE_LOSSES else "")

    def forward(self, batch: DenseBatch, player: str = "main") -> dict[str, Tensor]:
        """The loss of a batch; with T-Loss also nu, of each foreground class where they differ."""
        losses = {"loss": self.loss(self.network(batch.image), batch.label)}
        if isinstance(self.loss, TLoss):
            nu = self.loss.nu.detach()
            losses |= {"nu": nu[0]} if len(nu) == 1 else {f"nu_{i}": value for i, value in enumerate(nu, start=1)}
        return losses

    def parameter_groups(self, player: str) -> list[dict[str, Any]]:
        """The network, and what the loss learns: with a learning rate of its own and without weight decay."""
        groups: list[dict[str, Any]] = [{"params": list(self.network.parameters())}]
        learned = list(self.loss.parameters())
        if learned:
            groups.append({"params": learned, "lr": self.config.tloss.lr_nu, "weight_decay": 0.0})
        return groups

    def before_training(self, labels: LabelStore | None) -> None:
        """Checks that the network has an output for every class of the labels.

        Raises:
            ConfigError: it has more or fewer.
        """
        n_classes = self.config.unet.n_classes
        if labels is not None and labels.n_classes != n_classes:
            raise ConfigError(
                f"unet.n_classes={n_classes}: the labels have {labels.n_classes} classes, the background among them; "
                f"set unet.n_classes={labels.n_classes}."
            )

    def learning_rate_factor(self) -> float:
        """Falls when the nu of T-Loss has settled."""
        return 1.0 if self.plateau is None else self.plateau.factor

    def after_step(self, step: int) -> None:
        """Lets the plateau rule look at nu."""
        if self.plateau is not None and isinstance(self.loss, TLoss):
            self.plateau.note(step, self.loss.raw_nu)

    @torch.no_grad()
    def probabilities(self, image: Float[Tensor, "B C H W"], temperature: float = 1.0) -> Float[Tensor, "B K H W"]:
        """Probability of every class at every pixel: softmax(logits / temperature)."""
        return (self._logits(image).float() / temperature).softmax(1)

    def _logits(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        return torch.cat(list(in_passes(self.network, len(image), image)))

    @torch.no_grad()
    def predict(self, case: ImageCase, support: Any) -> Bool[Tensor, "K D H W"]:
        """The most probable class at every pixel: of two, the one above 1/2.

        Raises:
            ConfigError: a class is asked that the network does not know.
        """
        n_classes = self.config.unet.n_classes
        if max(case.classes) >= n_classes:
            raise ConfigError(
                f"unet.n_classes={n_classes}: class {max(case.classes)} was asked for; "
                f"expected a network with unet.n_classes={max(case.classes) + 1} (train it so)."
            )
        predicted = self._logits(case.image).argmax(1)
        return torch.stack([predicted == value for value in case.classes])


class UpperBound(Supervised):
    """The same trained on the experts' labels: how far learning from noisy ones can come."""

    trains_on = "clean"

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """What it is to the others."""
        name = super().title(settings)
        return "Upper bound" if name == "Baseline" else f"{name} on clean masks"
