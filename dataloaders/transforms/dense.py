"""The augmentation of dense batches: images with their labels and superpixels.

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
    """How often each step is taken (`_p`, per image and on-line) and the ranges of its uniform draws, in their order.

    Intensities are those that the network sees, after normalisation: multiplying scales colour about mid-grey (0 of
    [-1, 1]) and grey images about black (0 of [0, 1]); noise is in the same units.

    Source: superpixel-guided learning and T-Loss, released code: nnU-Net's augmentation of 2020 without rotation and
    deformation.
    """

    rotation_p: float = 0.2  # turned by 90, 180 or 270 degrees; images that are not square only by 180
    only_half_turns: bool = False  # 180 degrees only
    zoom_p: float = 0.1  # the reference takes this step at .2, but half the time with scale 1
    zoom: Range = (0.85, 1.0)  # share of height and width that fills the frame afterwards
    noise_p: float = 0.1
    noise_sd: Range = (0.0, 0.1)
    blur_p: float = 0.2
    blur_channel_p: float = 0.5  # of each channel of a blurred image
    blur_sigma_px: Range = (0.5, 1.0)  # per channel; the kernel ends at 4 times the larger one
    brightness_p: float = 0.15
    brightness: Range = (0.75, 1.25)  # factor per channel
    contrast_p: float = 0.15
    contrast: Range = (0.75, 1.25)  # factor per channel; below 1 as often as above
    low_resolution_p: float = 0.25
    low_resolution_channel_p: float = 0.5  # of each channel of such an image
    low_resolution: Range = (0.5, 1.0)  # share of height and width sampled, per channel
    negative_gamma_p: float = 0.1
    gamma_p: float = 0.3
    gamma: Range = (0.7, 1.5)  # exponent per channel; below 1 as often as above; of both gamma steps
    mirror_p: float = 0.5  # of each axis

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_p") and not 0 <= value <= 1:
                raise ConfigError(f"augmentation {name}={value}: expected a probability, 0 to 1.")
            if isinstance(value, tuple) and not 0 <= value[0] <= value[1]:
                raise ConfigError(f"augmentation {name}={value}: expected two numbers from 0, the smaller one first.")
        for name, (low, high) in {"contrast": self.contrast, "gamma": self.gamma}.items():
            if not 0 < low <= 1 <= high:
                raise ConfigError(f"augmentation {name}={(low, high)}: expected numbers above 0 with 1 between them.")
        for name, (low, high) in {"zoom": self.zoom, "low_resolution": self.low_resolution}.items():
            if not 0 < low <= high <= 1:
                raise ConfigError(f"augmentation {name}={(low, high)}: expected shares above 0, at most 1.")
        if self.blur_sigma_px[0] <= 0:
            raise ConfigError(f"augmentation blur_sigma_px={self.blur_sigma_px}: expected numbers above 0.")


_OFF: dict[str, Any] = {field.name: 0.0 for field in fields(DenseAugmentConfig) if field.name.endswith("_p")}

# Source: nnunet180 is what T-Loss's configuration selects, mirror_gamma what its paper mentions (section 3).
DENSE_PRESETS = {
    "nnunet": DenseAugmentConfig(),
    "nnunet180": DenseAugmentConfig(only_half_turns=True),
    "mirror_gamma": replace(DenseAugmentConfig(**_OFF), gamma_p=0.3, mirror_p=0.5),
    "none": DenseAugmentConfig(**_OFF),
}


@dataclass(frozen=True)
class Chosen:
    """Where a step is taken, and how strongly."""

    index: Int[Tensor, " N"]  # of samples b, or of planes b * C + c; ascending
    value: Float[Tensor, " N"]


@dataclass(frozen=True)
class DenseAugmentation:
    """Drawn parameters of B images: what each step is to change.

    Lengths are known without asking the device, so applying never waits for it.
    """

    turned: tuple[Tensor, ...]  # samples turned counter-clockwise by 90, 180 and 270 degrees
    zoomed: Chosen  # samples; the rest are planes
    noisy: Chosen
    noise_seeds: Int[Tensor, " N"]
    blurred: Chosen
    brightened: Chosen
    contrasted: Chosen
    coarsened: Chosen
    negative_gamma: Chosen
    gamma: Chosen
    mirrored: tuple[Tensor, ...]  # samples mirrored up-down, and left-right

    def to(self, device: torch.device) -> "DenseAugmentation":
        """The same parameters on `device`."""
        return DenseAugmentation(*(_moved(getattr(self, field.name), device) for field in fields(self)))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, Chosen):
        return Chosen(_moved(value.index, device), _moved(value.value, device))
    return tuple(_moved(part, device) for part in value)


# Every sample takes all of these numbers from its generator, used or not: one draw never shifts another.
_PER_SAMPLE = (
    *("turn", "turns", "zoom", "scale", "noise", "noise_sd", "blur", "brightness", "contrast", "low_resolution"),
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

    is_turned = sample["turn"] < config.rotation_p
    turns = 1 + np.floor(3 * sample["turns"])
    if config.only_half_turns or rows != columns:
        turns = np.full_like(turns, 2)
    is_noisy = np.broadcast_to(sample["noise"] < config.noise_p, seeds.shape)
    is_blurred = (sample["blur"] < config.blur_p) & (channel["is_blurred"] < config.blur_channel_p)
    is_coarse = (sample["low_resolution"] < config.low_resolution_p) & (
        channel["is_coarse"] < config.low_resolution_channel_p
    )
    return DenseAugmentation(
        turned=tuple(_where(is_turned & (turns == k)) for k in (1, 2, 3)),
        zoomed=_choose(sample["zoom"] < config.zoom_p, _between(config.zoom, sample["scale"])),
        noisy=_choose(is_noisy, _between(config.noise_sd, sample["noise_sd"])),
        noise_seeds=torch.from_numpy(seeds[is_noisy]),
        blurred=_choose(is_blurred, _between(config.blur_sigma_px, channel["blur"])),
        brightened=_choose(
            sample["brightness"] < config.brightness_p, _between(config.brightness, channel["brightness"])
        ),
        contrasted=_choose(sample["contrast"] < config.contrast_p, _about_one(config.contrast, channel["contrast"])),
        coarsened=_choose(is_coarse, _between(config.low_resolution, channel["low_resolution"])),
        negative_gamma=_choose(
            sample["negative_gamma"] < config.negative_gamma_p, _about_one(config.gamma, channel["negative_gamma"])
        ),
        gamma=_choose(sample["gamma"] < config.gamma_p, _about_one(config.gamma, channel["gamma"])),
        mirrored=tuple(_where(sample[axis] < config.mirror_p) for axis in ("mirror_rows", "mirror_columns")),
    )


def _where(is_chosen: np.ndarray) -> Tensor:
    return torch.from_numpy(np.flatnonzero(is_chosen))


def _choose(is_chosen: np.ndarray, values: np.ndarray) -> Chosen:
    is_chosen, values = np.broadcast_arrays(is_chosen, values)
    return Chosen(_where(is_chosen), torch.from_numpy(values[is_chosen]).float())


def _between(limits: Range, uniform: np.ndarray) -> np.ndarray:
    low, high = limits
    return low + (high - low) * uniform


def _about_one(limits: Range, uniform: np.ndarray) -> np.ndarray:
    """Uniform below 1 in one half of the cases, uniform above 1 in the other."""
    low, high = limits
    return np.where(uniform < 0.5, low + (1 - low) * 2 * uniform, 1 + (high - 1) * (2 * uniform - 1))


def apply(
    image: Float[Tensor, "B C H W"],
    labels: tuple[Int[Tensor, "B H W"], ...],
    drawn: DenseAugmentation,
    config: DenseAugmentConfig,
) -> tuple[Float[Tensor, "B C H W"], tuple[Int[Tensor, "B H W"], ...]]:
    """Turns, zooms and mirrors images with all their label maps, and changes the images' intensities.

    What no step was drawn for stays the same to the last bit; the arguments are left as they are.

    Source: released code of superpixel-guided learning and T-Loss, order included.
    Note: zooming is centred on the pixel grid, (H - 1) / 2, where the reference is half a pixel off; images are zoomed
    by cubic convolution instead of splines.
    """
    image = image.clone(memory_format=torch.contiguous_format)
    labels = tuple(label.clone() for label in labels)
    for maps in (image, *labels):
        for turns, samples in enumerate(drawn.turned, start=1):
            _change(maps, samples, partial(torch.rot90, k=turns, dims=(-2, -1)))
        zoom = spatial.zoom_in if maps is image else spatial.zoom_in_labels
        _change(maps, drawn.zoomed.index, zoom, drawn.zoomed.value)
    _change_intensities(image.flatten(0, 1), drawn, config)
    for maps in (image, *labels):
        for axis, samples in zip((-2, -1), drawn.mirrored, strict=True):
            _change(maps, samples, partial(torch.flip, dims=(axis,)))
    return image, labels


def _change_intensities(planes: Float[Tensor, "N H W"], drawn: DenseAugmentation, config: DenseAugmentConfig) -> None:
    """Changes the channels of all images, one plane each, in place."""
    blur = partial(intensity.blur, radius=round(4 * config.blur_sigma_px[1]))
    _change(planes, drawn.noisy.index, intensity.add_noise, drawn.noisy.value, drawn.noise_seeds)
    for chosen, function in (
        (drawn.blurred, blur),
        (drawn.brightened, intensity.scale_brightness),
        (drawn.contrasted, intensity.scale_contrast),
        (drawn.coarsened, intensity.lower_resolution),
        (drawn.negative_gamma, intensity.gamma_of_negative),
        (drawn.gamma, intensity.gamma_keeping_statistics),
    ):
        _change(planes, chosen.index, function, chosen.value)


def _change(maps: Tensor, index: Tensor, function: Callable[..., Tensor], *parameters: Tensor) -> None:
    """Replaces the entries at `index` by what `function` makes of them."""
    if len(index):
        maps.index_copy_(0, index, function(maps.index_select(0, index), *parameters))
