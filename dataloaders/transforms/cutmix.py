"""CutMix masks: boxes in which one image of a pair replaces the other."""

from dataclasses import dataclass
from math import sqrt

import torch
from jaxtyping import Float
from torch import Tensor

from util.errors import ConfigError


@dataclass(frozen=True)
class CutMixConfig:
    """Boxes of a mask.

    Source: French et al., "Semi-supervised semantic segmentation needs strong, varied perturbations" (BMVC 2020), as
    used by CPS and CACPS.
    """

    n_boxes: int = 3  # per image; 0: no mixing
    area: tuple[float, float] = (0.25, 0.5)  # range of a box's area before it is divided by the number of boxes

    def __post_init__(self) -> None:
        low, high = self.area
        if self.n_boxes < 0 or not 0 < low <= high <= 1:
            raise ConfigError(
                f"cutmix.n_boxes={self.n_boxes}, cutmix.area={list(self.area)}: expected a number from 0, and two "
                "ascending fractions above 0, at most 1."
            )


def draw_masks(
    uniform: Float[Tensor, "B N 4"], shape: tuple[int, int], config: CutMixConfig
) -> Float[Tensor, "B 1 H W"]:
    """Masks of random boxes.

    Args:
        uniform: drawn from 0 to 1, for each of the N boxes of an image: area, aspect, row, column.
        shape: rows and columns.
        config: the range of areas.

    Returns:
        1 where the second image of a pair replaces the first; where boxes overlap, they cancel in pairs.
    """
    low, high = config.area
    return box_masks(low + (high - low) * uniform[..., 0], uniform[..., 1], uniform[..., 2:], shape)


def box_masks(
    area: Float[Tensor, "B N"],
    aspect: Float[Tensor, "B N"],
    position: Float[Tensor, "B N 2"],
    shape: tuple[int, int],
) -> Float[Tensor, "B 1 H W"]:
    """The masks of given boxes: height area^aspect, width area/height, both divided by the root of their number.

    Args:
        area: fractions of the image, above 0.
        aspect: 0 to 1; 1/2 is a square.
        position: row and column, 0 to 1, of the range in which the box fits.
        shape: rows and columns.
    """
    height = area**aspect
    fractions = torch.stack([height, area / height], -1) * sqrt(1 / max(area.shape[1], 1))
    inside = []
    for axis, length in enumerate(shape):
        size = (fractions[..., axis] * length).round()
        first = ((length - size) * position[..., axis]).round()[..., None]
        place = torch.arange(length, device=area.device)
        inside.append((place >= first) & (place < first + size[..., None]))  # (B, N, H) and (B, N, W)
    boxes = inside[0][..., None] & inside[1][:, :, None]
    return boxes.sum(1, keepdim=True).remainder(2).to(area.dtype)


def mix(first: Tensor, second: Tensor, mask: Float[Tensor, "B 1 H W"]) -> Tensor:
    """The first of each pair (B, C, H, W), with the second in the boxes."""
    return torch.lerp(first, second, mask)
