"""Self-training: a network learns from annotated scans, and from the label maps that were propagated to others."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dataloaders.protocol import DataFacts
from dataloaders.samples import ANNOTATED, PROPAGATED, DenseBatch, EvalCase, JointBatch
from dataloaders.transforms.scan_views import UNKNOWN, to_input
from models.losses.cross_pseudo import ramp_up
from models.methods.base import Method, exclusive_masks, requested_classes
from models.networks.packaged import PACKAGES
from models.networks.passes import run_in_chunks
from models.networks.postprocessing import PostprocessConfig, postprocess_masks
from models.networks.slice_unet import build_slice_unet
from models.training.optim import OptimConfig, Trainable
from util.errors import ConfigError
from util.schema import check_bounds, option


def _one_piece() -> PostprocessConfig:
    return PostprocessConfig(exclusive=True, largest_component=True)


@dataclass(frozen=True)
class SelfTrainingConfig:
    """Hyper-parameters. Not published: chosen on the pairs among the CHAOS scans 8, 10, 13 and 15."""

    modelname: str = option("efficientnet_lite0", "architecture")  # encoder: efficientnet_lite0 to efficientnet_lite2
    encoder_weights: str = "package"  # package, or none (random)
    n_classes: int = option(2, "architecture", ge=2, le=255)  # with the background
    decoder_channels: tuple[int, ...] = option((128, 96, 64, 32, 16), "architecture", ge=1)  # the coarsest first
    propagated_weight: float = option(1.0, ge=0)  # of the loss on propagated label maps
    ramp_up_steps: int = option(100, ge=0)  # steps over which that weight rises
    encoder_lr_factor: float = option(0.5, ge=0)  # on the learning rate, for pretrained weights
    images_per_pass: int = option(16, "practical", ge=1)  # slices segmented together in prediction
    postprocess: PostprocessConfig = field(default_factory=_one_piece)

    def __post_init__(self) -> None:
        check_bounds(self)
        if self.modelname not in PACKAGES:
            raise ConfigError(f"modelname={self.modelname!r}: expected one of {', '.join(PACKAGES)}.")
        if len(self.decoder_channels) != 5:
            raise ConfigError(f"decoder_channels={list(self.decoder_channels)}: expected five numbers of channels.")


class SelfTraining(Method):
    """A U-Net on three neighbouring slices, trained on strong views of annotated and of propagated slices.

    The label maps of unlabelled scans are those of `Propagation`, or of a network that was trained so before; voxels
    that they leave unknown, because nothing was certain there, do not count. Errors of propagation differ from scan to
    scan, so the network learns what most scans agree on. It segments further scans without annotated ones.

    Source: our own. Related: Lee, "Pseudo-label", ICML workshop 2013; Xie et al., "Self-training with noisy student",
    CVPR 2020.
    """

    Config = SelfTrainingConfig
    config: SelfTrainingConfig
    family = "fewshot"
    batch_type = JointBatch
    needs = frozenset({PROPAGATED})
    compares_scans = True
    knows_classes = True
    step_number: Tensor
    weight: Tensor

    def __init__(self, config: SelfTrainingConfig) -> None:
        super().__init__()
        self.config = config
        self.network = build_slice_unet(
            config.modelname, config.encoder_weights, config.n_classes, config.decoder_channels
        )
        self.register_buffer("step_number", torch.tensor(0))
        self.register_buffer("weight", torch.tensor(0.0), persistent=False)
        self._set_step(0)

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """Its name in tables."""
        return "Self-training"

    @classmethod
    def derived(cls, facts: DataFacts | None) -> dict[str, Any]:
        """As many classes as the data have."""
        return {} if facts is None else {"n_classes": facts.n_classes}

    def forward(self, batch: JointBatch) -> dict[str, Tensor]:
        """The objective of a step.

        Returns:
            loss; annotated and propagated, the losses of both parts before the weight.
        """
        parts = {name: batch[name] for name in (ANNOTATED, PROPAGATED)}
        logits = self.network(torch.cat([each.image for each in parts.values()])).float()
        each = logits.split([len(part) for part in parts.values()])
        losses = {name: _loss(one, part) for (name, part), one in zip(parts.items(), each, strict=True)}
        loss = losses[ANNOTATED] + self.weight * losses[PROPAGATED]
        return {"loss": loss, **{name: value.detach() for name, value in losses.items()}}

    def optimisers(self, optim: OptimConfig) -> dict[str, Trainable]:
        """main: decoder and head; encoder: at a lower learning rate."""
        encoder = list(self.network.encoder.parameters())
        known = set(map(id, encoder))
        rest = [each for each in self.network.parameters() if id(each) not in known]
        slower = replace(optim, lr=optim.lr * self.config.encoder_lr_factor)
        return {"main": Trainable(rest, optim), "encoder": Trainable(encoder, slower)}

    def after_step(self, step: int) -> None:
        """Counts the steps, on which the weight depends."""
        self.step_number.fill_(step + 1)
        self._set_step(step + 1)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Also restores the weight."""
        result = super().load_state_dict(state_dict, strict, assign)
        self._set_step(int(self.step_number))
        return result

    def _set_step(self, number: int) -> None:
        self.weight.fill_(self.config.propagated_weight * ramp_up(number, self.config.ramp_up_steps))

    def inference_network(self) -> nn.Module:
        """The U-Net, from three neighbouring slices as `to_input` gives them to logits of every class."""
        return self.network

    @torch.no_grad()
    def probabilities(self, case: EvalCase, support: Any = None) -> Float[Tensor, "K D H W"]:
        """Softmax probabilities of the requested classes; annotated scans are not needed.

        Raises:
            ConfigError: a requested class that the network does not have.
        """
        image = to_input(case.image)
        before, after = torch.cat([image[:1], image[:-1]]), torch.cat([image[1:], image[-1:]])
        slices = torch.cat([before, image, after], 1)
        logits = torch.cat(list(run_in_chunks(self.network, self.config.images_per_pass, slices)))
        return requested_classes(logits.float().softmax(1), case.classes, "n_classes")

    def masks(self, probabilities: Float[Tensor, "K D H W"]) -> Bool[Tensor, "K D H W"]:
        """The most probable class or the background (`exclusive`), else each class above 1/2; then the switches."""
        options = self.config.postprocess
        masks = exclusive_masks(probabilities) if options.exclusive else probabilities > 0.5
        return postprocess_masks(masks, probabilities, options)


def _loss(logits: Float[Tensor, "B K H W"], part: DenseBatch) -> Float[Tensor, ""]:
    """Cross-entropy, and one minus the Dice of each class over the batch; unknown pixels count in neither."""
    known = part.label != UNKNOWN
    label = part.label * known
    pixels = F.cross_entropy(logits, label, reduction="none") * known
    return pixels.mean() + _dice_loss(logits.softmax(1), label, known)


def _dice_loss(
    found: Float[Tensor, "B K H W"], label: Int[Tensor, "B H W"], known: Bool[Tensor, "B H W"]
) -> Float[Tensor, ""]:
    true = F.one_hot(label, found.shape[1]).movedim(-1, 1) * known[:, None]
    found, axes = found * known[:, None], (0, 2, 3)
    both, either = (found * true).sum(axes), (found + true).sum(axes)
    return (1 - (2 * both + 1) / (either + 1))[1:].mean()
