"""Base classes of the methods for several sources, and their yardstick: the labelled images alone."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dataloaders.protocol import DataFacts
from dataloaders.samples import N_UNIFORM, ImageCase, JointBatch, SourceBatch
from dataloaders.transforms.appearance import N_APPEARANCE
from dataloaders.transforms.cutmix import CutMixConfig, draw_masks
from dataloaders.transforms.fourier import FourierConfig, mix_amplitudes
from models.losses.cross_pseudo import batch_dice_loss, ramp_up
from models.methods.base import Method, exclusive_masks, requested_classes
from models.networks.deeplab import SegmentorConfig, build_segmentor
from models.networks.ensemble import as_one
from models.networks.mixstyle import N_STYLE
from models.networks.passes import run_in_chunks
from models.networks.unet import halvings_of
from util.errors import ConfigError
from util.schema import check_bounds, option

LABELLED, FIRST, SECOND = "labelled", "unlabelled_1", "unlabelled_2"  # the parts of a batch

# What the random numbers of an image are for: the Fourier share, CutMix boxes; from the end the styles of two passes,
# and the appearance before them.
FOURIER = 0
STYLES = (slice(N_UNIFORM - 2 * N_STYLE, N_UNIFORM - N_STYLE), slice(N_UNIFORM - N_STYLE, N_UNIFORM))
APPEARANCE = slice(N_UNIFORM - 2 * N_STYLE - N_APPEARANCE, N_UNIFORM - 2 * N_STYLE)
MOST_BOXES = (APPEARANCE.start - 1) // 4


@dataclass(frozen=True)
class SourcesConfig:
    """Hyper-parameters that all methods of this family share.

    Source: CACPS (AAAI 2022), section 4.2 and released code.
    """

    network: SegmentorConfig = option(SegmentorConfig, "architecture")
    encoder_weights: str = "imagenet"  # of DeepLab's encoder: imagenet, none (random), or a file
    dice_background: bool = True  # whether the Dice loss counts the background as a class (not so on SCGM)
    norm_group: int = option(0, ge=0)  # images whose statistics batch norm shares in training; 0: those of a pass
    images_per_pass: int = option(16, "practical", ge=1)  # images segmented together in prediction
    # masks where a class exceeds 1/2, as released; else the most probable class
    legacy_threshold: bool = option(False, "practical")

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class SemiConfig(SourcesConfig):
    """Hyper-parameters that the methods with terms on unlabelled images share.

    Source: CACPS (AAAI 2022), section 4.2 and released code (M&Ms).
    """

    cutmix: CutMixConfig = field(default_factory=CutMixConfig)
    unlabelled_weight: float = option(3.0, ge=0)  # of the terms on unlabelled images
    ramp_up_steps: int = option(0, ge=0)  # steps over which that weight rises; 0: full from the beginning
    supervised_steps: int = option(0, ge=0)  # steps at the beginning that see labelled images only
    # each batch of images passes a network on its own, as released, so that batch norm mixes no two; False: faster
    separate_passes: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.cutmix.n_boxes > MOST_BOXES:
            raise ConfigError(f"cutmix.n_boxes={self.cutmix.n_boxes}: expected at most {MOST_BOXES}.")


class SourcesMethod(Method):
    """Networks that are trained on the labelled images by Dice loss, and whose mean predicts."""

    Config: ClassVar[type] = SourcesConfig
    config: SourcesConfig
    family = "sources"
    batch_type = JointBatch
    n_networks: ClassVar[int] = 2
    needs = frozenset({"unlabelled"})

    def __init__(self, config: SourcesConfig) -> None:
        super().__init__()
        self.config = config
        self.networks = nn.ModuleList(
            build_segmentor(config.network, config.encoder_weights) for _ in range(self.n_networks)
        )

    @classmethod
    def derived(cls, facts: DataFacts | None) -> dict[str, Any]:
        """A network that fits the images."""
        if facts is None:
            return {}
        unet = {"halvings": list(halvings_of(*facts.shape))}
        return {"network": {"in_channels": facts.channels, "n_classes": facts.n_classes, "unet": unet}}

    @property
    def predictors(self) -> Iterable[nn.Module]:
        """The networks whose probabilities are averaged in prediction."""
        return self.networks

    def forward(self, batch: JointBatch) -> dict[str, Tensor]:
        """The objective of a step.

        Returns:
            loss; supervised, the sum of the networks' losses on labelled images.
        """
        loss = self.supervised_loss(batch[LABELLED])
        return {"loss": loss, "supervised": loss.detach()}

    def supervised_loss(self, labelled: SourceBatch) -> Float[Tensor, ""]:
        """The sum of the networks' Dice losses on the images as they are."""
        label = label_of(labelled)
        losses = [self.dice_loss(self.run(network, [labelled.image])[0], label) for network in self.networks]
        return torch.stack(losses).sum()

    def dice_loss(self, logits: Float[Tensor, "B K H W"], label: Int[Tensor, "B H W"]) -> Float[Tensor, ""]:
        """The sum over the classes; see `dice_background`."""
        return batch_dice_loss(logits, label)[0 if self.config.dice_background else 1 :].sum()

    def run(
        self, network: nn.Module, images: Sequence[Tensor], shares: Sequence[Tensor] | None = None
    ) -> Sequence[Tensor]:
        """Logits of several batches of images (B, C, H, W), in float32.

        Args:
            network: one of the networks.
            images: the batches; each passes on its own, or all together, see `separate_passes`.
            shares: of each batch, for methods that mix feature statistics, see `call`.
        """
        if len(images) == 1 or getattr(self.config, "separate_passes", True):
            each_share = repeat(None) if shares is None else shares
            return [self._pass(network, *each) for each in zip(images, each_share, strict=False)]
        together = self._pass(network, torch.cat(list(images)), None if shares is None else torch.cat(list(shares)))
        return together.split([len(each) for each in images])

    def _pass(self, network: nn.Module, image: Tensor, share: Tensor | None) -> Tensor:
        size = self.config.norm_group
        if not size or not (network.training or share is not None):
            return self.call(network, image, share).float()
        parts = repeat(None) if share is None else share.split(size)
        return torch.cat([self.call(network, *each) for each in zip(image.split(size), parts, strict=False)]).float()

    def call(self, network: nn.Module, image: Tensor, share: Tensor | None) -> Tensor:
        """Logits of one group of images; here nothing is mixed, and `share` is not used."""
        return network(image)

    def inference_network(self) -> nn.Module:
        """The mean of the networks: logits of every class, with the background."""
        return as_one(self.predictors)

    @torch.no_grad()
    def class_probabilities(
        self, image: Float[Tensor, "B C H W"], temperature: float = 1.0
    ) -> Float[Tensor, "B K H W"]:
        """Mean over the networks of softmax(logits / temperature), with the background."""
        size = self.config.images_per_pass
        found = [torch.cat(list(run_in_chunks(network, size, image))).float() for network in self.predictors]
        return torch.stack([(each / temperature).softmax(1) for each in found]).mean(0)

    def probabilities(self, case: ImageCase, support: None = None) -> Float[Tensor, "K D H W"]:
        """Mean softmax probabilities of the requested classes of a case, whose images are (D, C, H, W).

        Raises:
            ConfigError: a requested class that the networks do not have.
        """
        return requested_classes(self.class_probabilities(case.image), case.classes, "network.n_classes")

    def masks(self, probabilities: Float[Tensor, "K D H W"]) -> Bool[Tensor, "K D H W"]:
        """The most probable class; with `legacy_threshold` each class above 1/2, as released."""
        return super().masks(probabilities) if self.config.legacy_threshold else exclusive_masks(probabilities)


class LabelledOnly(SourcesMethod):
    """The yardstick: the two networks of CACPS on the labelled images alone."""

    needs = frozenset()

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """Its name in tables."""
        return "Labelled only"


class SemiMethod(SourcesMethod):
    """Adds weighted terms on unlabelled images, after `supervised_steps`.

    The number of steps is in the state. What a step needs of it is computed on the host between the steps, so that
    none waits for the device, and a compiled step is compiled again only once, where the first unlabelled images come.
    """

    Config: ClassVar[type] = SemiConfig
    config: SemiConfig
    step_number: Tensor
    weight: Tensor

    def __init__(self, config: SemiConfig) -> None:
        super().__init__(config)
        self.register_buffer("step_number", torch.tensor(0))
        self.register_buffer("weight", torch.tensor(0.0), persistent=False)
        self._set_step(0)

    @abstractmethod
    def unlabelled_loss(self, batch: JointBatch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss on unlabelled images before its weight, and further values to log."""

    def forward(self, batch: JointBatch) -> dict[str, Tensor]:
        """The objective of a step.

        Returns:
            loss; supervised, the sum of the networks' losses on labelled images; unlabelled, the loss on unlabelled
            images before its weight, and what the method logs of it.

        Raises:
            ConfigError: unlabelled images are due, and the batch has none.
        """
        losses = super().forward(batch)
        if not self.sees_unlabelled:
            return losses
        if FIRST not in batch.parts or SECOND not in batch.parts:
            raise ConfigError(
                f"{type(self).__name__}: the batch has no unlabelled images; expected the parts {FIRST} and {SECOND} "
                "from step supervised_steps on. method=labelled_only needs none."
            )
        loss, logged = self.unlabelled_loss(batch)
        losses["loss"] = losses["loss"] + self.weight * loss
        return losses | {"unlabelled": loss.detach()} | logged

    def boxes(self, batch: SourceBatch) -> Float[Tensor, "B 1 H W"]:
        """A CutMix mask for each image."""
        n_boxes, (height, width) = self.config.cutmix.n_boxes, batch.image.shape[-2:]
        uniform = batch.uniform[:, 1 : 1 + 4 * n_boxes].unflatten(1, (n_boxes, 4))
        return draw_masks(uniform, (height, width), self.config.cutmix)

    def after_step(self, step: int) -> None:
        """Counts the steps, on which the weight and the supervised steps depend."""
        self.step_number.fill_(step + 1)
        self._set_step(step + 1)

    def _set_step(self, number: int) -> None:
        since = number - self.config.supervised_steps
        self.sees_unlabelled = since >= 0
        self.weight.fill_(self.config.unlabelled_weight * ramp_up(max(since, 0), self.config.ramp_up_steps))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Also restores what follows from the number of steps."""
        result = super().load_state_dict(state_dict, strict, assign)
        self._set_step(int(self.step_number))
        return result


def label_of(batch: SourceBatch) -> Int[Tensor, "B H W"]:
    """The labels of annotated images.

    Raises:
        ConfigError: they are not annotated.
    """
    if batch.label is None:
        raise ConfigError(f"the part {LABELLED} of the batch has no labels.")
    return batch.label


def fourier_mix(batch: SourceBatch, config: FourierConfig) -> Float[Tensor, "B C H W"]:
    """The images with low-frequency amplitudes of their partners, in float32."""
    share = config.shares(batch.uniform[:, FOURIER])
    with torch.autocast(batch.image.device.type, enabled=False):
        return mix_amplitudes(batch.image.float(), batch.partner.float(), share, config)
