"""Augmentation of dense batches: images with their labels and superpixels.

drawn = draw(generators, DENSE_PRESETS["nnunet"], image.shape[1:])
image, (label, superpixel) = apply(image, (label, superpixel), drawn.to(image.device), config)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from dataloaders.transforms import intensity, spatial
from util.errors import ConfigError

Range = tuple[float, float]


@dataclass(frozen=True)
class DenseAugmentConfig:
    """Probability of each step (`_p`, per image) and the ranges of its uniform draws, in order of application.

    Intensities are those of the normalised network input: brightness scales colour images about mid-grey (0 in
    [-1, 1]) and grey images about black (0 in [0, 1]); noise is in the same units.

    Source: superpixel-guided learning and T-Loss, released code: nnU-Net's augmentation of 2020 without arbitrary
    rotation and elastic deformation.
    """

    rotation_p: float = 0.2  # by 90, 180 or 270 degrees; non-square images only by 180
    only_half_turns: bool = False  # 180 degrees only
    zoom_p: float = 0.1  # reference: 0.2, but with scale 1 half of the time
    zoom: Range = (0.85, 1.0)  # fraction of height and width that is enlarged to the full frame
    noise_p: float = 0.1
    noise_sd: Range = (0.0, 0.1)
    blur_p: float = 0.2
    blur_channel_p: float = 0.5  # of each channel of a blurred image
    blur_sigma_px: Range = (0.5, 1.0)  # per channel; the kernel is truncated at 4 times the upper limit
    brightness_p: float = 0.15
    brightness: Range = (0.75, 1.25)  # factor per channel
    contrast_p: float = 0.15
    contrast: Range = (0.75, 1.25)  # factor per channel; below and above 1 with equal probability
    low_resolution_p: float = 0.25
    low_resolution_channel_p: float = 0.5  # of each channel of such an image
    low_resolution: Range = (0.5, 1.0)  # fraction of height and width, per channel
    negative_gamma_p: float = 0.1
    gamma_p: float = 0.3
    gamma: Range = (0.7, 1.5)  # exponent per channel, for both gamma steps; below and above 1 with equal probability
    mirror_p: float = 0.5  # of each axis

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_p") and not 0 <= value <= 1:
                raise ConfigError(f"augmentation {name}={value}: expected a probability, 0 to 1.")
            if isinstance(value, tuple) and not 0 <= value[0] <= value[1]:
                raise ConfigError(f"augmentation {name}={value}: expected (low, high) with 0 <= low <= high.")
        for name, (low, high) in {"contrast": self.contrast, "gamma": self.gamma}.items():
            if not 0 < low <= 1 <= high:
                raise ConfigError(f"augmentation {name}={(low, high)}: expected (low, high) with 0 < low <= 1 <= high.")
        for name, (low, high) in {"zoom": self.zoom, "low_resolution": self.low_resolution}.items():
            if not 0 < low <= high <= 1:
                raise ConfigError(f"augmentation {name}={(low, high)}: expected (low, high) with 0 < low <= high <= 1.")
        if self.blur_sigma_px[0] <= 0:
            raise ConfigError(f"augmentation blur_sigma_px={self.blur_sigma_px}: expected positive numbers.")


_OFF: dict[str, Any] = {field.name: 0.0 for field in fields(DenseAugmentConfig) if field.name.endswith("_p")}

# Source: nnunet180 is the setting in T-Loss's released configuration, mirror_gamma that of its paper (section 3).
DENSE_PRESETS = {
    "nnunet": DenseAugmentConfig(),
    "nnunet180": DenseAugmentConfig(only_half_turns=True),
    "mirror_gamma": replace(DenseAugmentConfig(**_OFF), gamma_p=0.3, mirror_p=0.5),
    "none": DenseAugmentConfig(**_OFF),
}


@dataclass(frozen=True)
class StepParameters:
    """Samples or planes to which a step is applied, and its strength for each."""

    index: Int[Tensor, " N"]  # indices of samples b or of planes b * C + c, ascending
    value: Float[Tensor, " N"]


@dataclass(frozen=True)
class DenseAugmentation:
    """Drawn parameters of B images.

    Tensor lengths are known on the host, so `apply` never synchronises with the device.
    """

    rotated: tuple[Tensor, ...]  # samples rotated counter-clockwise by 90, 180 and 270 degrees
    zoomed: StepParameters  # samples; the other steps index planes
    noisy: StepParameters
    noise_seeds: Int[Tensor, " N"]
    blurred: StepParameters
    brightness: StepParameters
    contrast: StepParameters
    low_resolution: StepParameters
    negative_gamma: StepParameters
    gamma: StepParameters
    mirrored: tuple[Tensor, ...]  # samples mirrored vertically and horizontally

    def to(self, device: torch.device) -> "DenseAugmentation":
        """Copies the parameters to `device`."""
        return DenseAugmentation(*(_to_device(getattr(self, field.name), device) for field in fields(self)))


def _to_device(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, StepParameters):
        return StepParameters(_to_device(value.index, device), _to_device(value.value, device))
    return tuple(_to_device(part, device) for part in value)


# Every sample draws all of these numbers, used or not, so that one step does not shift the draws of another.
_PER_SAMPLE = (
    *("rotation", "n_turns", "zoom", "scale", "noise", "noise_sd", "blur", "brightness", "contrast", "low_resolution"),
    *("negative_gamma", "gamma", "mirror_rows", "mirror_columns"),
)
_PER_CHANNEL = (
    *("is_blurred", "blur", "brightness", "contrast", "is_coarse", "low_resolution", "negative_gamma", "gamma"),
)


def draw(
    generators: Sequence[np.random.Generator], config: DenseAugmentConfig, shape: Sequence[int]
) -> DenseAugmentation:
    """Draws the parameters of one image from each generator, for images of `shape` (channels, rows, columns)."""
    channels, rows, columns = shape
    n_numbers = len(_PER_SAMPLE) + len(_PER_CHANNEL) * channels
    uniform = np.stack([generator.random(n_numbers) for generator in generators])
    seeds = np.stack([generator.integers(2**32, size=channels) for generator in generators])
    sample = dict(zip(_PER_SAMPLE, uniform[:, : len(_PER_SAMPLE), None].swapaxes(0, 1), strict=True))  # each (B, 1)
    by_channel = uniform[:, len(_PER_SAMPLE) :].reshape(len(seeds), len(_PER_CHANNEL), channels)
    channel = dict(zip(_PER_CHANNEL, by_channel.swapaxes(0, 1), strict=True))  # each (B, C)

    is_rotated = sample["rotation"] < config.rotation_p
    turns = 1 + np.floor(3 * sample["n_turns"])
    if config.only_half_turns or rows != columns:
        turns = np.full_like(turns, 2)
    is_noisy = np.broadcast_to(sample["noise"] < config.noise_p, seeds.shape)
    is_blurred = (sample["blur"] < config.blur_p) & (channel["is_blurred"] < config.blur_channel_p)
    is_coarse = (sample["low_resolution"] < config.low_resolution_p) & (
        channel["is_coarse"] < config.low_resolution_channel_p
    )
    return DenseAugmentation(
        rotated=tuple(_indices(is_rotated & (turns == k)) for k in (1, 2, 3)),
        zoomed=_select(sample["zoom"] < config.zoom_p, _scale_to(config.zoom, sample["scale"])),
        noisy=_select(is_noisy, _scale_to(config.noise_sd, sample["noise_sd"])),
        noise_seeds=torch.from_numpy(seeds[is_noisy]),
        blurred=_select(is_blurred, _scale_to(config.blur_sigma_px, channel["blur"])),
        brightness=_select(
            sample["brightness"] < config.brightness_p, _scale_to(config.brightness, channel["brightness"])
        ),
        contrast=_select(
            sample["contrast"] < config.contrast_p, _uniform_around_one(config.contrast, channel["contrast"])
        ),
        low_resolution=_select(is_coarse, _scale_to(config.low_resolution, channel["low_resolution"])),
        negative_gamma=_select(
            sample["negative_gamma"] < config.negative_gamma_p,
            _uniform_around_one(config.gamma, channel["negative_gamma"]),
        ),
        gamma=_select(sample["gamma"] < config.gamma_p, _uniform_around_one(config.gamma, channel["gamma"])),
        mirrored=tuple(_indices(sample[axis] < config.mirror_p) for axis in ("mirror_rows", "mirror_columns")),
    )


def _indices(is_selected: np.ndarray) -> Tensor:
    return torch.from_numpy(np.flatnonzero(is_selected))


def _select(is_selected: np.ndarray, values: np.ndarray) -> StepParameters:
    is_selected, values = np.broadcast_arrays(is_selected, values)
    return StepParameters(_indices(is_selected), torch.from_numpy(values[is_selected]).float())


def _scale_to(limits: Range, uniform: np.ndarray) -> np.ndarray:
    low, high = limits
    return low + (high - low) * uniform


def _uniform_around_one(limits: Range, uniform: np.ndarray) -> np.ndarray:
    """Uniform below 1 with probability 0.5, else uniform above 1."""
    low, high = limits
    return np.where(uniform < 0.5, low + (1 - low) * 2 * uniform, 1 + (high - 1) * (2 * uniform - 1))


def apply(
    image: Float[Tensor, "B C H W"],
    labels: tuple[Int[Tensor, "B H W"], ...],
    drawn: DenseAugmentation,
    config: DenseAugmentConfig,
) -> tuple[Float[Tensor, "B C H W"], tuple[Int[Tensor, "B H W"], ...]]:
    """Rotates, zooms and mirrors images together with their label maps, and changes the images' intensities.

    Images to which no step applies are returned bit-identical. The arguments are not modified.

    Source: released code of superpixel-guided learning and T-Loss, including the order of steps.
    Note: zooming is centred on the pixel grid, (H - 1) / 2; the reference is half a pixel off. Images are resampled by
    cubic convolution instead of splines.
    """
    image = image.clone(memory_format=torch.contiguous_format)
    labels = tuple(label.clone() for label in labels)
    for maps in (image, *labels):
        for turns, samples in enumerate(drawn.rotated, start=1):
            _apply_at(maps, samples, partial(torch.rot90, k=turns, dims=(-2, -1)))
        zoom = spatial.zoom_in if maps is image else spatial.zoom_in_labels
        _apply_at(maps, drawn.zoomed.index, zoom, drawn.zoomed.value)
    _change_intensities(image.flatten(0, 1), drawn, config)
    for maps in (image, *labels):
        for axis, samples in zip((-2, -1), drawn.mirrored, strict=True):
            _apply_at(maps, samples, partial(torch.flip, dims=(axis,)))
    return image, labels


def _change_intensities(planes: Float[Tensor, "N H W"], drawn: DenseAugmentation, config: DenseAugmentConfig) -> None:
    """Applies the intensity steps to single channels ("planes"), in place."""
    blur = partial(intensity.blur, radius=round(4 * config.blur_sigma_px[1]))
    _apply_at(planes, drawn.noisy.index, intensity.add_noise, drawn.noisy.value, drawn.noise_seeds)
    for step, function in (
        (drawn.blurred, blur),
        (drawn.brightness, intensity.scale_brightness),
        (drawn.contrast, intensity.scale_contrast),
        (drawn.low_resolution, intensity.simulate_low_resolution),
        (drawn.negative_gamma, intensity.gamma_inverted),
        (drawn.gamma, intensity.gamma_retain_stats),
    ):
        _apply_at(planes, step.index, function, step.value)


def _apply_at(maps: Tensor, index: Tensor, function: Callable[..., Tensor], *parameters: Tensor) -> None:
    """Applies `function` to the entries at `index`, in place."""
    if len(index):
        maps.index_copy_(0, index, function(maps.index_select(0, index), *parameters))
