"""Where the body is in a scan's plane, and places relative to it, which correspond between people."""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from util.schema import check_bounds, option

logger = logging.getLogger(__name__)

MIN_SIDE_PX = 8.0  # of a box; anything smaller is no body
LEAST_SHARE = 0.25  # of a cell's pixels that are body, for the cell to be body


@dataclass(frozen=True)
class BodyConfig:
    """What counts as body. Source: chosen on folds 1 and 2 of CHAOST2."""

    threshold: float = -0.35  # standard deviations above the scan's mean
    # share of the body's pixels outside the box, on each of its sides
    tail: float = option(0.02, ge=0, lt=0.5)

    def __post_init__(self) -> None:
        check_bounds(self)


class BodyBox(NamedTuple):
    """First and last row and column of the body, in pixels; the centre of the first pixel is 0."""

    rows: tuple[float, float]
    columns: tuple[float, float]


def find_body(image: Float[Tensor, "D 1 H W"], config: BodyConfig, name: str = "a scan") -> BodyBox:
    """The box around the bright pixels of all slices together, without the outermost ones.

    It does not depend on the unit of intensities. A scan in which no body is found (constant, or a box of a few pixels)
    gets the whole image, with a warning that names it.
    """
    is_body, std = _body_pixels(image, config)
    is_body = is_body[:, 0]
    rows = _span(is_body.sum((0, 2)), config.tail)
    columns = _span(is_body.sum((0, 1)), config.tail)
    box = torch.stack([*rows, *columns, std]).tolist()  # one transfer
    height, width = image.shape[-2:]
    if box[4] < 1e-6 or box[1] - box[0] < MIN_SIDE_PX or box[3] - box[2] < MIN_SIDE_PX:
        logger.warning("%s: no body found in its %d slices; the whole image counts as body.", name, len(image))
        return BodyBox((0.0, height - 1.0), (0.0, width - 1.0))
    return BodyBox((box[0], box[1]), (box[2], box[3]))


def _body_pixels(image: Tensor, config: BodyConfig) -> tuple[Float[Tensor, "D 1 H W"], Float[Tensor, ""]]:
    """1 where a pixel is bright enough for body, else 0; and the standard deviation of the intensities."""
    std, mean = torch.std_mean(image, correction=0)
    return (image > mean + config.threshold * std).float(), std


def _span(counts: Float[Tensor, " N"], tail: float) -> tuple[Tensor, Tensor]:
    """The places that leave out a share of the counts at either end, within pixels by linear interpolation."""
    total = counts.sum().clamp_min(1)

    def cut(values: Tensor) -> Tensor:
        upto = values.cumsum(0)
        index = torch.searchsorted(upto, (tail * total)[None], right=True).clamp_max(len(values) - 1)[0]
        return index - 0.5 + (tail * total - upto[index] + values[index]) / values[index].clamp_min(1)

    return cut(counts), len(counts) - 1 - cut(counts.flip(0))


def relative_places(box: BodyBox, size: tuple[int, int], stride: int) -> tuple[Tensor, Tensor]:
    """Row and column of each cell of a feature grid relative to the body: 0 at its first edge, 1 at its last.

    Args:
        box: of the scan.
        size: (h, w) of the grid.
        stride: pixels per cell.

    Returns:
        (h,) and (w,) float32, on the host.
    """
    places = []
    for (first, last), number in zip((box.rows, box.columns), size, strict=True):
        centre = (torch.arange(number) + 0.5) * stride - 0.5
        places.append((centre - first) / (last - first))
    return places[0], places[1]


def find_inside(image: Float[Tensor, "D 1 H W"], config: BodyConfig, size: tuple[int, int]) -> Bool[Tensor, "D h w"]:
    """The cells of a coarser grid that lie in the body or at its edge, holes of any kind included; on the host.

    A cell counts if there is body on both of its sides in its row and in its column, and so do its neighbours. Where no
    body is found all cells count.
    """
    is_body, _ = _body_pixels(image, config)
    share = F.interpolate(is_body, size, mode="area")[:, 0].cpu()
    is_body = share >= LEAST_SHARE
    between = _is_between(is_body, 1) & _is_between(is_body, 2)
    inside = F.max_pool2d(between.float(), 3, stride=1, padding=1) > 0
    return inside if inside.any() else torch.ones_like(inside)


def _is_between(is_body: Bool[Tensor, "D h w"], dim: int) -> Bool[Tensor, "D h w"]:
    counts = is_body.int()
    return (counts.cumsum(dim) > 0) & (counts.flip(dim).cumsum(dim).flip(dim) > 0)
