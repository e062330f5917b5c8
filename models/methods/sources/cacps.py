"""Cross pseudo supervision of two networks, with and without confidence."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dataloaders.samples import JointBatch
from dataloaders.transforms.cutmix import mix
from dataloaders.transforms.fourier import FourierConfig
from models.losses.cross_pseudo import CrossConfig, Views, cross_loss, teacher_map
from models.methods.sources.base import FIRST, SECOND, SemiConfig, SemiMethod, fourier_mix

Pair = tuple[Tensor, Tensor]  # (B, C, H, W) images of the two unlabelled parts, or what is made of them


@dataclass(frozen=True)
class CACPSConfig(SemiConfig):
    """Hyper-parameters of CACPS."""

    cross: CrossConfig = field(default_factory=CrossConfig)
    fourier: FourierConfig = field(default_factory=FourierConfig)


class CACPS(SemiMethod):
    """Confidence-aware cross pseudo supervision: two networks teach each other where Fourier mixing changes little.

    Source: Yao, Hu and Li, "Enhancing pseudo label quality for semi-supervised domain-generalized medical image
    segmentation", AAAI 2022, section 3, and released code; `cross` lists where the two differ.

    Note: as there, the networks are in training mode when they teach. With `separate_passes` each of the six batches
    of a network passes on its own, as released; without, the four of a teacher are one batch and the two of a student
    another, and batch norm mixes their statistics.
    """

    Config: ClassVar[type] = CACPSConfig
    config: CACPSConfig

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """Its name in the paper."""
        return "CACPS"

    @property
    def form(self) -> CrossConfig:
        """The form of the loss."""
        return self.config.cross

    def augmented(self, batch: JointBatch) -> Pair:
        """Fourier-augmented copies of the unlabelled images."""
        return fourier_mix(batch[FIRST], self.config.fourier), fourier_mix(batch[SECOND], self.config.fourier)

    def unlabelled_loss(self, batch: JointBatch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The loss of both directions, on CutMix of the two parts."""
        plain, boxes = (batch[FIRST].image, batch[SECOND].image), self.boxes(batch[FIRST])
        copies = self.augmented(batch) if self.form.use_augmented else None
        mixed = [mix(*each, boxes) for each in (plain, copies) if each is not None]
        labels = [self.pseudo_label(network, plain, copies, boxes) for network in self.networks]
        views = [self._views(network, mixed) for network in self.networks]
        return cross_loss(views[0], views[1], (labels[0], labels[1]), self.form), {}

    @torch.no_grad()
    def pseudo_label(self, network: nn.Module, plain: Pair, copies: Pair | None, boxes: Tensor) -> Int[Tensor, "B H W"]:
        """Labels of the mixed images, from predictions on the whole ones."""
        found = self.run(network, [*plain, *(copies or ())])
        maps = [teacher_map(Views(found[i], found[i + len(found) - 2]), self.form) for i in (0, 1)]
        return mix(maps[0], maps[1], boxes).argmax(1)

    def _views(self, network: nn.Module, mixed: list[Tensor]) -> Views:
        found = self.run(network, mixed)
        return Views(found[0], found[-1])


class CPS(CACPS):
    """Cross pseudo supervision with CutMix, without confidence and Fourier mixing.

    Source: Chen et al., "Semi-supervised semantic segmentation with cross pseudo supervision", CVPR 2021.
    """

    Config: ClassVar[type] = SemiConfig

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """Its name in the paper."""
        return "CPS"

    @property
    def form(self) -> CrossConfig:
        """Cross-entropy alone."""
        return CrossConfig(weighting="none", use_augmented=False)
