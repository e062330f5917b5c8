"""Views of images: one resampling for scale, crop, rotation and mirroring; for strong views colours, blur and holes.

drawn = draw(generators, VIEW_PRESETS["fundus"], side_px, crop_px, is_strong=True)
image, inside = move(image, drawn)
strong, kept = disturb(image, drawn, config)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from dataloaders.transforms import intensity, spatial
from util.errors import ConfigError
from util.schema import check_bounds, option

Range = tuple[float, float]


@dataclass(frozen=True)
class ViewConfig:
    """Ranges of uniform draws and probabilities per image, in order of application.

    Source: PSSNet (Pattern Recognition 2024), released code. Note: scale, crop, mirroring and rotation are one
    resampling there, so that rotated corners show the image where it goes on, not padding.
    """

    scale: Range = (0.5, 2.0)  # side of the whole image in units of the prepared one
    mirror_rows_p: float = option(0.5, ge=0, le=1)  # up and down; not in strong views
    mirror_columns_p: float = option(0.5, ge=0, le=1)  # left and right
    rotations_deg: tuple[float, ...] = (
        -15.0,
        -11.25,
        -7.5,
        -3.75,
        0.0,
        3.75,
        7.5,
        11.25,
        15.0,
    )  # one of them; strong: none
    colour_p: float = option(0.8, ge=0, le=1)  # this and what follows: strong views only
    brightness: float = option(0.5, ge=0, le=1)  # factor within 1 - b to 1 + b
    contrast: float = option(0.5, ge=0, le=1)
    saturation: float = option(0.5, ge=0, le=1)
    hue: float = option(0.25, ge=0, le=0.5)  # shift as a share of the colour circle, to either side
    grey_p: float = option(0.2, ge=0, le=1)
    blur_p: float = option(0.5, ge=0, le=1)
    blur_sigma_px: Range = option((0.1, 2.0), gt=0)
    hole_p: float = option(0.5, ge=0, le=1)  # a rectangle of noise whose pixels do not count ("cutout")
    hole_area: Range = option((0.02, 0.4), gt=0, le=1)  # share of the view
    hole_aspect: Range = option((0.3, 3.33), gt=0)  # rows by columns

    def __post_init__(self) -> None:
        check_bounds(self, "aug.")
        for name in ("scale", "blur_sigma_px", "hole_area", "hole_aspect"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ConfigError(f"aug.{name}={[low, high]}: expected two ascending numbers above 0.")
        if not self.rotations_deg:
            raise ConfigError("aug.rotations_deg=[]: expected at least one angle, 0 for none.")


_STILL = ViewConfig((1.0, 1.0), 0.0, 0.0, (0.0,), colour_p=0.0, grey_p=0.0, blur_p=0.0, hole_p=0.0)
VIEW_PRESETS = {
    "fundus": ViewConfig(),
    "slices": replace(ViewConfig(), scale=(0.8, 1.25), mirror_rows_p=0.0, mirror_columns_p=0.0, hue=0.0),
    "none": _STILL,
}


@dataclass(frozen=True)
class Views:
    """What was drawn for B images.

    Attributes:
        matrix: column and row in the view, homogeneous -> in the prepared image.
        crop_px: rows and columns of the view.
        factors: brightness, contrast and saturation; 1: unchanged.
        hue: shift, share of the circle.
        grey: 1: without colour.
        sigma_px: of the blur; 0: none.
        hole: first row and column of the hole, and the ones after its last; all 0: none.
        seeds: of the noise in the hole.
        is_strong: whether colours, blur and holes were drawn.
    """

    matrix: Float[Tensor, "B 2 3"]
    crop_px: int
    factors: Float[Tensor, "B 3"]
    hue: Float[Tensor, " B"]
    grey: Float[Tensor, " B"]
    sigma_px: Float[Tensor, " B"]
    hole: Float[Tensor, "B 4"]
    seeds: Shaped[Tensor, " B"]
    is_strong: bool

    def to(self, device: torch.device) -> "Views":
        """Copies the parameters to `device`."""
        moved: dict[str, Any] = {
            each.name: value.to(device, non_blocking=True)
            for each in fields(self)
            if isinstance(value := getattr(self, each.name), Tensor)
        }
        return replace(self, **moved)


def draw(
    generators: Sequence[np.random.Generator],
    config: ViewConfig,
    side_px: int,
    crop_px: int,
    is_strong: bool = False,
    mirror_columns_p: Float[np.ndarray, " B"] | None = None,
) -> Views:
    """Draws the parameters of one view from each generator.

    Args:
        generators: one per image.
        config: the ranges.
        side_px: rows and columns of the prepared images.
        crop_px: of the views.
        is_strong: whether colours, blur and holes are drawn; then without rotation and without mirroring of rows.
        mirror_columns_p: probability of each image, in place of that of `config`.
    """
    uniform = np.stack([generator.random(20) for generator in generators])  # used or not, so that draws do not shift
    seeds = torch.tensor([int(generator.integers(2**31)) for generator in generators])
    angles = np.array(config.rotations_deg)[(uniform[:, 0] * len(config.rotations_deg)).astype(int)]
    mirror_p = np.empty((len(generators), 2))  # of columns and rows
    mirror_p[:, 0] = config.mirror_columns_p if mirror_columns_p is None else mirror_columns_p
    mirror_p[:, 1] = 0 if is_strong else config.mirror_rows_p
    angles *= not is_strong
    matrix = _matrices(uniform[:, 1:6], angles, config.scale, mirror_p, side_px, crop_px)
    numbers = torch.from_numpy(uniform[:, 6:]).float()  # (B, 14)
    spread = torch.tensor([config.brightness, config.contrast, config.saturation])
    is_coloured = (numbers[:, 0] < config.colour_p).float()
    factors = 1 + is_coloured[:, None] * spread * (2 * numbers[:, 1:4] - 1)
    low, high = config.blur_sigma_px
    sigma = (numbers[:, 6] < config.blur_p) * (low + (high - low) * numbers[:, 7])
    return Views(
        matrix=torch.from_numpy(matrix).float(),
        crop_px=crop_px,
        factors=factors,
        hue=is_coloured * config.hue * (2 * numbers[:, 4] - 1),
        grey=(numbers[:, 5] < config.grey_p).float(),
        sigma_px=sigma,
        hole=_holes(numbers[:, 8:13], config, crop_px),
        seeds=seeds,
        is_strong=is_strong,
    )


def _matrices(
    uniform: np.ndarray, angles_deg: np.ndarray, scale: Range, mirror_p: np.ndarray, side_px: int, crop_px: int
) -> np.ndarray:
    """(B, 2, 3) from positions in the view to those in the prepared image; pixel centres at whole numbers."""
    low, high = scale
    side = np.rint(side_px * (low + (high - low) * uniform[:, 0]))  # of the scaled image
    zoom = side / side_px
    margin = side - crop_px  # below 0: the view is larger than the image, which then is in its middle
    first = np.where(margin[:, None] >= 0, np.floor(uniform[:, 1:3] * (margin[:, None] + 1)), margin[:, None] / 2)
    mirror = np.where(uniform[:, 3:5] < mirror_p, -1.0, 1.0)
    angle, centre = np.deg2rad(angles_deg), (crop_px - 1) / 2
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([cos, -sin], 1), np.stack([sin, cos], 1)], 1) * mirror[:, None]
    matrix = np.empty((len(uniform), 2, 3))
    matrix[:, :, :2] = turn / zoom[:, None, None]
    place = first + centre - turn.sum(2) * centre  # of the view's first pixel in the scaled image
    matrix[:, :, 2] = (place + 0.5) / zoom[:, None] - 0.5
    return matrix


def _holes(numbers: Float[Tensor, "B 5"], config: ViewConfig, crop_px: int) -> Float[Tensor, "B 4"]:
    (smallest, largest), (flat, tall) = config.hole_area, config.hole_aspect
    area = (smallest + (largest - smallest) * numbers[:, 1]) * crop_px**2
    aspect = torch.exp(math.log(flat) + (math.log(tall) - math.log(flat)) * numbers[:, 2])
    sides = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], 1).round().clamp(1, crop_px)
    first = (numbers[:, 3:5] * (crop_px - sides + 1)).floor()
    return torch.cat([first, first + sides], 1) * (numbers[:, :1] < config.hole_p)


def move(images: Float[Tensor, "B C H W"], drawn: Views) -> tuple[Float[Tensor, "B C h w"], Bool[Tensor, "B h w"]]:
    """The views by bilinear interpolation, 0 outside the image, and the pixels that are inside."""
    positions = _positions(drawn)
    side = images.shape[-1]
    inside = ((positions > -0.5) & (positions < side - 0.5)).all(-1)
    return spatial.warp(images, positions), inside


def move_labels(labels: Shaped[Tensor, "B P H W"], drawn: Views) -> Shaped[Tensor, "B P h w"]:
    """The same geometry for whole numbers below 2^24, by the nearest pixel; 0 outside."""
    if not labels.shape[1]:
        return labels[..., :1, :1].expand(-1, -1, drawn.crop_px, drawn.crop_px)
    side = labels.shape[-1]
    grid = _positions(drawn) * (2 / (side - 1)) - 1
    found = F.grid_sample(labels.float(), grid, mode="nearest", padding_mode="zeros", align_corners=True)
    return found.to(labels.dtype)


def _positions(drawn: Views) -> Float[Tensor, "B h w 2"]:
    axis = torch.arange(drawn.crop_px, device=drawn.matrix.device, dtype=drawn.matrix.dtype)
    column, row = torch.meshgrid(axis, axis, indexing="xy")
    place = torch.stack([column, row, torch.ones_like(row)], -1)
    return torch.einsum("hwk,bck->bhwc", place, drawn.matrix)


def disturb(
    images: Float[Tensor, "B C H W"], drawn: Views, config: ViewConfig
) -> tuple[Float[Tensor, "B C H W"], Bool[Tensor, "B H W"]]:
    """Changes colours, blurs and cuts a hole; also returns the pixels that are not in the hole.

    Args:
        images: RGB or grey, 0 to 1.
        drawn: parameters of strong views.
        config: whose largest blur decides on the size of the kernel.

    Note: the order is brightness, contrast, saturation, hue, grey, blur, hole, as in the default order of torchvision;
        hue is turned about the grey axis of RGB, which keeps a batch on the device. There HSV is used.
    """
    image = images * drawn.factors[:, 0, None, None, None]
    mean = _luma(image).mean((1, 2, 3), keepdim=True)
    image = (mean + (image - mean) * drawn.factors[:, 1, None, None, None]).clamp(0, 1)
    if image.shape[1] == 3:
        colour = drawn.factors[:, 2] * (1 - drawn.grey)
        grey = _luma(image)
        image = torch.einsum("bij,bjhw->bihw", _hue_turns(drawn.hue), image - grey) * colour[:, None, None, None] + grey
        image = image.clamp(0, 1)
    sigma = drawn.sigma_px.repeat_interleave(image.shape[1])
    planes = image.flatten(0, 1)
    blurred = intensity.blur(planes, sigma.clamp(min=1e-3), math.ceil(2 * config.blur_sigma_px[1])).view_as(image)
    image = torch.where((drawn.sigma_px > 0)[:, None, None, None], blurred, image)
    hole = _in_hole(drawn, image.shape[-2:])
    noise = (spatial.hash_noise(drawn.seeds, (image.shape[-2], image.shape[-1]), image.shape[1]) + 1) / 2
    return torch.where(hole[:, None], noise.to(image.dtype), image), ~hole


def _luma(image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B 1 H W"]:
    if image.shape[1] != 3:
        return image.mean(1, keepdim=True)
    red, green, blue = image.split(1, 1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _hue_turns(share: Float[Tensor, " B"]) -> Float[Tensor, "B 3 3"]:
    """Rotations of RGB about the grey axis by a share of the circle."""
    angle = share * (2 * math.pi)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    eye = torch.eye(3, device=share.device)
    third = torch.full((3, 3), 1 / 3, device=share.device)
    cross = (eye.roll(1, 0) - eye.roll(1, 1)) / math.sqrt(3)
    return cos * eye + (1 - cos) * third + sin * cross


def _in_hole(drawn: Views, size: Sequence[int]) -> Bool[Tensor, "B H W"]:
    rows, columns = (torch.arange(length, device=drawn.hole.device)[None] for length in size)
    top, left, bottom, right = drawn.hole.split(1, 1)
    return ((rows >= top) & (rows < bottom))[:, :, None] & ((columns >= left) & (columns < right))[:, None]
