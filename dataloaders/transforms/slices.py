"""Augmentation of slices for several sources: one resampling for crop, rotation and mirroring, then blur.

drawn = draw(generators, SLICE_PRESETS["mms"], side_px, crop_px)
image, partner = apply(torch.stack([image, partner], 1), drawn).unbind(1)
label = apply_to_label(label, drawn)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from dataloaders.transforms import intensity, spatial
from util.errors import ConfigError

BLUR_RADIUS_PX = 2  # of the kernel


@dataclass(frozen=True)
class SliceAugmentConfig:
    """Ranges of the augmentation; a slice and its partner get the same geometry.

    Source: CACPS (AAAI 2022), released code.
    """

    rotation_deg: tuple[float, float] = (0.0, 90.0)  # uniform, about the centre of the crop
    mirror_p: float = 0.5  # of each axis
    blur_sigma_px: tuple[float, float] = (0.25, 1.25)  # uniform; both 0: none

    def __post_init__(self) -> None:
        if not -360 <= self.rotation_deg[0] <= self.rotation_deg[1] <= 360:
            raise ConfigError(
                f"aug.rotation_deg={list(self.rotation_deg)}: expected two ascending angles from -360 to 360."
            )
        if not 0 <= self.mirror_p <= 1:
            raise ConfigError(f"aug.mirror_p={self.mirror_p}: expected a probability, 0 to 1.")
        low, high = self.blur_sigma_px
        if not (low == high == 0 or 0 < low <= high):
            raise ConfigError(f"aug.blur_sigma_px={[low, high]}: expected two ascending numbers above 0, or both 0.")


_NONE = SliceAugmentConfig((0.0, 0.0), 0.0, (0.0, 0.0))
# Source: as above; scgm rotates only.
SLICE_PRESETS = {"mms": SliceAugmentConfig(), "scgm": replace(_NONE, rotation_deg=(0.0, 90.0)), "none": _NONE}


@dataclass(frozen=True)
class SliceAugmentation:
    """What was drawn for B slices.

    Attributes:
        matrix: column and row in the crop, homogeneous -> in the prepared slice.
        sigma_px: of the blur; None: no blur.
        crop_px: rows and columns of the crop.
    """

    matrix: Float[Tensor, "B 2 3"]
    sigma_px: Float[Tensor, " B"] | None
    crop_px: int

    def to(self, device: torch.device) -> "SliceAugmentation":
        """Copies the parameters to `device`."""
        sigma = None if self.sigma_px is None else self.sigma_px.to(device, non_blocking=True)
        return replace(self, matrix=self.matrix.to(device, non_blocking=True), sigma_px=sigma)


def draw(
    generators: Sequence[np.random.Generator],
    config: SliceAugmentConfig,
    side_px: int,
    crop_px: int,
    moves_crop: bool = True,
) -> SliceAugmentation:
    """Draws the parameters of one slice from each generator.

    Args:
        generators: one per slice.
        config: the ranges.
        side_px: rows and columns of the prepared slices.
        crop_px: of the crop, at most `side_px`.
        moves_crop: whether the crop lies anywhere in the slice; else in its middle.
    """
    uniform = np.stack([generator.random(6) for generator in generators])
    low, high = config.rotation_deg
    angle = np.deg2rad(low + (high - low) * uniform[:, 0])
    mirror = np.where(uniform[:, 1:3] < config.mirror_p, -1.0, 1.0)  # columns, rows
    margin = side_px - crop_px
    first = np.floor(uniform[:, 3:5] * (margin + 1)) if moves_crop else np.full((len(uniform), 2), margin // 2)
    centre = (crop_px - 1) / 2
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.empty((len(uniform), 2, 3))
    matrix[:, :, :2] = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1) * mirror[:, None]
    matrix[:, :, 2] = first + centre - matrix[:, :, :2].sum(2) * centre
    least, largest = config.blur_sigma_px
    sigma = torch.from_numpy(least + (largest - least) * uniform[:, 5]).float() if largest else None
    return SliceAugmentation(torch.from_numpy(matrix).float(), sigma, crop_px)


def apply(images: Float[Tensor, "B C H W"], drawn: SliceAugmentation) -> Float[Tensor, "B C h w"]:
    """Crops, rotates, mirrors and blurs all channels of a slice alike, bilinear; 0 outside the slice."""
    moved = spatial.warp(images, _positions(drawn))
    if drawn.sigma_px is None:
        return moved
    sigma = drawn.sigma_px.repeat_interleave(images.shape[1])
    return intensity.blur(moved.flatten(0, 1), sigma, BLUR_RADIUS_PX).view_as(moved)


def apply_to_label(label: Shaped[Tensor, "B H W"], drawn: SliceAugmentation) -> Shaped[Tensor, "B h w"]:
    """The same geometry for class values (whole numbers below 2^24), by the nearest pixel; 0 outside."""
    rows, columns = label.shape[-2:]
    column, row = _positions(drawn).unbind(-1)
    grid = torch.stack([column * (2 / (columns - 1)), row * (2 / (rows - 1))], -1) - 1
    found = F.grid_sample(label[:, None].float(), grid, mode="nearest", padding_mode="zeros", align_corners=True)
    return found[:, 0].to(label.dtype)


def _positions(drawn: SliceAugmentation) -> Float[Tensor, "B h w 2"]:
    """Column and row in the prepared slice of every pixel of the crop."""
    axis = torch.arange(drawn.crop_px, device=drawn.matrix.device, dtype=drawn.matrix.dtype)
    column, row = torch.meshgrid(axis, axis, indexing="xy")
    place = torch.stack([column, row, torch.ones_like(row)], -1)
    return torch.einsum("hwk,bck->bhwc", place, drawn.matrix)
