"""Augmentation of few-shot episodes: affine and elastic warp of image and mask, then gamma on the image."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from dataloaders.transforms import spatial
from dataloaders.transforms.intensity import gamma_correct
from util.errors import ConfigError
from util.schema import check_bounds, option


@dataclass(frozen=True)
class AugmentConfig:
    """Half-widths and ranges of the uniform draws. The defaults are `sabs_aug` of the reference."""

    rotation_deg: float = option(5.0, ge=0, le=180)
    shift_px: float = option(5.0, ge=0)
    shear_deg: float = option(5.0, ge=0, lt=90)
    zoom: tuple[float, float] = option((0.9, 1.2), gt=0, le=100)
    elastic_amplitude_px: float = option(10.0, ge=0)  # of the noise before smoothing; about 0.4 px after smoothing
    elastic_sigma_px: float = option(5.0, gt=0, le=100)
    gamma: tuple[float, float] = option((0.5, 1.5), gt=0, le=100)

    def __post_init__(self) -> None:
        check_bounds(self, "aug.")
        for name in ("zoom", "gamma"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"aug.{name}={[low, high]}: expected the lower end first.")


# `which_aug` -> ranges. Source: SSL-ALPNet, released code.
PRESETS = {
    "sabs_aug": AugmentConfig(),
    "aug_v3": AugmentConfig(
        rotation_deg=30.0,
        shift_px=30.0,
        shear_deg=30.0,
        zoom=(0.8, 1.3),
        elastic_amplitude_px=20.0,
        gamma=(0.2, 1.8),
    ),
    "none": AugmentConfig(0.0, 0.0, 0.0, (1.0, 1.0), 0.0, 5.0, (1.0, 1.0)),
}


@dataclass(frozen=True)
class Augmentation:
    """Drawn parameters of B images."""

    matrices: Float[Tensor, "B 3 3"]  # forward, on (column, row, 1)
    elastic_seeds: Tensor  # (B,) int64
    gamma: Float[Tensor, " B"]

    def to(self, device: torch.device) -> "Augmentation":
        """Copies the parameters to `device` without synchronising."""
        moved = (part.to(device, non_blocking=True) for part in (self.matrices, self.elastic_seeds, self.gamma))
        return Augmentation(*moved)


def draw(generators: list[np.random.Generator], config: AugmentConfig, size: tuple[int, int]) -> Augmentation:
    """Draws the parameters of one image from each generator, for images of `size` (rows, columns) pixels."""
    uniform = torch.from_numpy(np.stack([generator.uniform(size=6) for generator in generators])).float()
    signed = uniform * 2 - 1
    low, high = config.zoom
    matrices = spatial.affine_matrices(
        rotation_deg=signed[:, 0] * config.rotation_deg,
        shift_px=signed[:, 1:3] * config.shift_px,
        shear_deg=signed[:, 3] * config.shear_deg,
        zoom=low + (high - low) * uniform[:, 4],
        size=size,
    )
    seeds = torch.tensor([int(generator.integers(2**32)) for generator in generators])
    low, high = config.gamma
    return Augmentation(matrices, seeds, low + (high - low) * uniform[:, 5])


def apply(
    image: Float[Tensor, "B 1 H W"], mask: Bool[Tensor, "B H W"], drawn: Augmentation, config: AugmentConfig
) -> tuple[Float[Tensor, "B 1 H W"], Bool[Tensor, "B H W"]]:
    """Warps images with their masks and gamma-corrects the images.

    If the warp would move a mask out of the frame or interpolate it away, image and mask stay unwarped, so no sample
    loses its target. All samples follow the same code path.
    """
    noise = spatial.hash_noise(drawn.elastic_seeds, (image.shape[-2], image.shape[-1]))
    displacement = spatial.smooth_displacement(noise, config.elastic_amplitude_px, config.elastic_sigma_px)
    positions = spatial.sampling_positions(drawn.matrices, displacement)
    both = torch.cat([image, mask[:, None].to(image)], 1)
    warped = spatial.warp(both, positions)
    is_kept = (warped[:, 1] > 0.5).flatten(1).any(1)[:, None, None, None]
    warped = torch.where(is_kept, warped, both)
    return gamma_correct(warped[:, :1], drawn.gamma), warped[:, 1] > 0.5
