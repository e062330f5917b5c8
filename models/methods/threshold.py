"""The simplest possible few-shot method: an organ is everything of the brightness it has in the annotated slice."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dataloaders.samples import EvalCase, SupportSet
from models.methods.base import Untrained
from util.schema import check_bounds, option


@dataclass(frozen=True)
class IntensityThresholdConfig:
    """How much of the annotated organ's intensity range counts as typical."""

    central_share: float = option(0.8, gt=0, le=1)  # of the organ's pixels in the support slice, between equal tails

    def __post_init__(self) -> None:
        check_bounds(self)


class IntensityThreshold(Untrained):
    """Marks the pixels whose normalised intensity is in the central range of the support slice's organ.

    A lower bound for comparison: a method that is not clearly better has learned nothing.
    """

    Config = IntensityThresholdConfig
    family = "fewshot"

    def __init__(self, config: IntensityThresholdConfig) -> None:
        super().__init__()
        self.config = config

    def encode_support(self, support: SupportSet) -> Float[Tensor, "2 K P"]:
        """The lowest and highest typical intensity of each class and part."""
        tail = (1 - self.config.central_share) / 2
        image = support.image.masked_fill(~support.mask[:, :, :, None], torch.nan).flatten(2)  # (K, P, S*H*W)
        return torch.nanquantile(image, torch.tensor([tail, 1 - tail]).to(image.device, non_blocking=True), dim=2)

    def probabilities(self, case: EvalCase, support: Float[Tensor, "2 K P"]) -> Float[Tensor, "K D H W"]:
        """1 within the intensity range of each slice's part, else 0."""
        low, high = support.gather(2, case.part.expand(2, -1, -1))[..., None, None]  # (K, D, 1, 1)
        image = case.image[None, :, 0]
        return ((image >= low) & (image <= high)).float()
