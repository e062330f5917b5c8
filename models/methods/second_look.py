"""Small structures are looked at again, enlarged, where the whole slices show that they lie."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from models.methods.encoded_scans import Detail
from models.methods.whole_scans import Spacing
from models.networks.backbones import OUTPUT_STRIDE
from models.networks.body import BodyBox
from util.schema import check_bounds, option


@dataclass(frozen=True)
class SecondLookConfig:
    """Which structures are looked at again, and how closely. Source: our own choice."""

    # structures with a smaller mean area, on the slices that show them, in cells of the features (8 x 8 pixels)
    below_cells: float = option(3.0, ge=0)  # 0: no second look
    surroundings: float = option(1.0, ge=0)  # that are shown on each side, in the structure's own height and width
    surroundings_mm: float = option(10.0, ge=0)  # and at least
    enlargement: float = option(4.0, ge=1)  # at most
    size_px: int = option(256, ge=64)  # of the enlarged part's longer side, at most

    def __post_init__(self) -> None:
        check_bounds(self, "second_look.")


def surroundings(
    label: UInt8[Tensor, "D H W"], value: int, spacing_mm: Spacing, config: SecondLookConfig
) -> tuple[BodyBox, tuple[int, int]] | None:
    """Where a structure is to be looked at again, and the size in pixels to which that part is enlarged.

    Args:
        label: of an annotated scan.
        value: of the structure.
        spacing_mm: along (z, y, x).
        config: which structures are small.

    Returns:
        None if the structure is not small, or not shown.
    """
    mask = label == value
    areas = mask.flatten(1).sum(1)
    mean = areas.sum() / (areas > 0).sum().clamp_min(1)
    if not 0 < mean < config.below_cells * OUTPUT_STRIDE**2:
        return None
    edges = []
    for dim, mm in ((1, spacing_mm[1]), (2, spacing_mm[2])):
        shown = mask.any(0).any(2 - dim).nonzero()[:, 0]
        first, last = float(shown[0]) - 0.5, float(shown[-1]) + 0.5
        margin = max(config.surroundings * (last - first), config.surroundings_mm / mm)
        edges.append((first - margin, last + margin))
    sides = [last - first for first, last in edges]
    factor = min(config.enlargement, config.size_px / max(sides))
    height, width = (max(1, round(side * factor / OUTPUT_STRIDE)) * OUTPUT_STRIDE for side in sides)
    return BodyBox(*edges), (height, width)


def whole(size: tuple[int, int]) -> BodyBox:
    """The edges of an image."""
    return BodyBox((-0.5, size[0] - 0.5), (-0.5, size[1] - 0.5))


def cut_out(
    image: Float[Tensor, "D C H W"], box: BodyBox, size: tuple[int, int], mode: str = "bilinear"
) -> Float[Tensor, "D C h w"]:
    """A part of all slices, enlarged; beyond the image, its edge."""
    axes = [
        2 * (first + (torch.arange(n) + 0.5) / n * (last - first) + 0.5) / side - 1
        for (first, last), n, side in zip((box.rows, box.columns), size, image.shape[-2:], strict=True)
    ]
    return _sample(image, axes, mode, "border")


def enlarge(
    image: Float[Tensor, "D 1 H W"], spacing_mm: Spacing, box: BodyBox, size: tuple[int, int]
) -> tuple[Float[Tensor, "D 1 h w"], Spacing]:
    """A part of a scan, and its spacing."""
    (top, bottom), (left, right) = box
    z_mm, y_mm, x_mm = spacing_mm
    return cut_out(image, box, size), (z_mm, y_mm * (bottom - top) / size[0], x_mm * (right - left) / size[1])


def put_back(part: Float[Tensor, "D C h w"], box: BodyBox, size: tuple[int, int]) -> Float[Tensor, "D C H W"]:
    """The part at its own place in an image of a size; zeros around it."""
    axes = [
        2 * (torch.arange(n) - first) / (last - first) - 1
        for (first, last), n in zip((box.rows, box.columns), size, strict=True)
    ]
    return _sample(part, axes, "bilinear", "zeros")


def _sample(image: Tensor, axes: list[Tensor], mode: str, padding: str) -> Tensor:
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij")[::-1], -1).to(image)
    grid = grid.expand(len(image), -1, -1, -1)
    return F.grid_sample(image, grid, mode, padding, align_corners=False)


def largest(details: Sequence[Detail]) -> tuple[int, int]:
    """Height and width to which the same part of another scan is enlarged."""
    heights, widths = zip(*(detail.size for detail in details), strict=True)
    return max(heights), max(widths)


def mean_box(boxes: Sequence[BodyBox]) -> BodyBox:
    """Of several."""
    rows, columns = torch.tensor(boxes).mean(0).tolist()
    return BodyBox(tuple(rows), tuple(columns))
