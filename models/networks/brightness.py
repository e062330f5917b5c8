"""Copies of an annotated scan whose structures are darker or brighter, as they are in some other patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from util.schema import check_bounds, option


@dataclass(frozen=True)
class BrightnessConfig:
    """Copies of annotated scans. Source: chosen on the twelve pairs among scans 8, 10, 13 and 15 of CHAOST2."""

    # one copy each: means of all structures in standard deviations, see `with_brightness`; (): no copies
    levels: tuple[float, ...] = (0.1, 2.8)
    weight: float = option(0.3, gt=0)  # of the copies' votes
    least_share: float = option(0.5, ge=0, lt=1)  # cells of which structures take up less do not vote in a copy

    def __post_init__(self) -> None:
        check_bounds(self)


def with_brightness(
    image: Float[Tensor, "D 1 H W"], label: UInt8[Tensor, "D H W"], classes: Sequence[int], level: float
) -> Float[Tensor, "D 1 H W"]:
    """A copy in which the mean of each structure lies `level` standard deviations of the scan above the scan's mean.

    The structures' own texture stays, and so does everything else.
    """
    std, mean = torch.std_mean(image, correction=0)
    copied = image.clone()
    for value in classes:
        inside = (label == value)[:, None]
        counts = inside.sum().clamp_min(1)
        copied += inside * (mean + level * std - (image * inside).sum() / counts)
    return copied
