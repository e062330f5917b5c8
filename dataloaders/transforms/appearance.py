"""Random appearance of images from given uniform numbers: gain, gamma, blur and noise, without change of geometry."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from dataloaders.transforms.intensity import add_noise, blur, gamma_correct
from util.errors import ConfigError
from util.schema import check_bounds, option

N_APPEARANCE = 9  # numbers of each image that `apply` reads
_SEEDS = 2**24  # different numbers in single precision


@dataclass(frozen=True)
class AppearanceConfig:
    """The probability of a change and its range, in order of application. Not published: our own choice.

    Gain, blur and noise resemble differences between scanners in sensitivity, sharpness and signal-to-noise ratio.
    """

    probability: float = option(0.5, ge=0, le=1)  # of each of the four changes, per image; 0: none
    gain: tuple[float, float] = option((0.7, 1.4), gt=0)  # factor on intensities
    gamma: tuple[float, float] = option((0.6, 1.6), gt=0)  # exponent
    blur_sigma_px: tuple[float, float] = option((0.3, 1.5), gt=0)
    noise_sd: tuple[float, float] = option((0.0, 0.1), ge=0)  # in units of the intensities, 0 to 1

    def __post_init__(self) -> None:
        check_bounds(self, "appearance.")
        for name, value in vars(self).items():
            if isinstance(value, tuple) and value[0] > value[1]:
                raise ConfigError(f"appearance.{name}={list(value)}: expected the smaller number first.")


def change_appearance(
    image: Float[Tensor, "B C H W"], uniform: Float[Tensor, "B N"], config: AppearanceConfig
) -> Float[Tensor, "B C H W"]:
    """Changes gain, gamma, sharpness and noise of each image, each with some probability.

    Args:
        image: float32 intensities, about 0 to 1.
        uniform: `N_APPEARANCE` numbers per image, drawn from 0 to 1: whether and how, for each change; the noise.
        config: probability and ranges.

    Returns:
        The same numbers give the same image on any device, up to rounding.
    """
    if config.probability == 0:
        return image
    happens, amount = uniform[:, 0:8:2] < config.probability, uniform[:, 1:8:2]
    (low, high), neutral = config.gain, torch.ones_like(amount[:, 0])
    gain = torch.where(happens[:, 0], low * (high / low) ** amount[:, 0], neutral)
    (low, high) = config.gamma
    gamma = torch.where(happens[:, 1], low * (high / low) ** amount[:, 1], neutral)
    image = gamma_correct(image * gain[:, None, None, None], gamma)
    return _noisy(_blurred(image, happens[:, 2], amount[:, 2], config), happens[:, 3], amount[:, 3], uniform, config)


def _blurred(image: Tensor, happens: Tensor, amount: Tensor, config: AppearanceConfig) -> Tensor:
    low, high = config.blur_sigma_px
    sigma = (low + (high - low) * amount).repeat_interleave(image.shape[1])
    radius = max(1, round(2.5 * high))
    return torch.where(happens[:, None, None, None], blur(image.flatten(0, 1), sigma, radius).view_as(image), image)


def _noisy(image: Tensor, happens: Tensor, amount: Tensor, uniform: Tensor, config: AppearanceConfig) -> Tensor:
    low, high = config.noise_sd
    sd = torch.where(happens, low + (high - low) * amount, 0.0)
    channel = torch.arange(image.shape[1], device=image.device)
    seeds = (uniform[:, 8:9] * _SEEDS).long() + channel  # (B, C)
    noisy = add_noise(image.flatten(0, 1), sd.repeat_interleave(image.shape[1]), seeds.flatten())
    return noisy.view_as(image)
