"""Fourier amplitude mix: an image takes the low-frequency amplitudes of a partner and keeps its phases.

Amplitudes of low frequencies carry the look of a scanner (gain, shading, contrast), phases the anatomy.
"""

from dataclasses import dataclass
from math import floor, pi, sqrt
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from util.errors import ConfigError

_FEW = 8  # windows of at most an eighth of each side are computed without transforms of the whole image


@dataclass(frozen=True)
class FourierConfig:
    """Which amplitudes are mixed, and how strongly.

    Source: CACPS (AAAI 2022), section 3.2, and its released code; the window keeps all frequencies outside it, where
    the printed equation would scale them.
    """

    mode: Literal["swap", "blend", "none"] = "swap"  # swap: in a small window; blend: a random share in a large one
    window: float = 0.01  # swap: half width of the window as a fraction of the shorter side, 0 to 0.5
    strength: float = 1.0  # swap: share of the partner's amplitude, 0 to 1
    blend_area: float = 1.0  # blend: fraction of all frequencies in the window, above 0
    blend_limit: float = 0.3  # blend: the share is uniform from 0 to this

    def __post_init__(self) -> None:
        if not 0 <= self.window <= 0.5:
            raise ConfigError(f"fourier.window={self.window}: expected a fraction of the shorter side, 0 to 0.5.")
        if not (0 <= self.strength <= 1 and 0 <= self.blend_limit <= 1):
            raise ConfigError(
                f"fourier.strength={self.strength}, fourier.blend_limit={self.blend_limit}: expected 0 to 1."
            )
        if not 0 < self.blend_area <= 1:
            raise ConfigError(f"fourier.blend_area={self.blend_area}: expected above 0, at most 1.")

    def shares(self, uniform: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """The share of the partner's amplitude for each image, given numbers drawn uniformly from 0 to 1."""
        return uniform * self.blend_limit if self.mode == "blend" else torch.full_like(uniform, self.strength)

    def bounds(self, height: int, width: int) -> tuple[int, int, int, int]:
        """First and last row, first and last column of the window in the centred spectrum; last ones exclusive."""
        if self.mode == "blend":
            sides = (floor(side * sqrt(self.blend_area)) for side in (height, width))
            (top, rows), (left, columns) = (
                (side // 2 - inner // 2, inner) for side, inner in zip((height, width), sides, strict=True)
            )
            return top, top + rows, left, left + columns
        half = floor(min(height, width) * self.window)
        return height // 2 - half, height // 2 + half + 1, width // 2 - half, width // 2 + half + 1


def mix_amplitudes(
    image: Float[Tensor, "B C H W"],
    partner: Float[Tensor, "B C H W"],
    share: Float[Tensor, " B"],
    config: FourierConfig,
) -> Float[Tensor, "B C H W"]:
    """Gives each image a share of its partner's amplitudes within the window; phases are kept.

    Args:
        image: intensities, about 0 to 1.
        partner: of the same size.
        share: of each partner, 0 to 1; 0 returns the image.
        config: the window.

    Returns:
        float32 or float64 as `image`; values may leave the range of the inputs slightly.

    Source: CACPS, section 3.2; released code.
    """
    if config.mode == "none":
        return image
    height, width = image.shape[-2:]
    top, bottom, left, right = config.bounds(height, width)
    if _FEW * (bottom - top) <= height and _FEW * (right - left) <= width:
        return image + _low_frequency_change(image, partner, share, (top, bottom, left, right))
    mask = image.new_zeros(height, width)
    mask[top:bottom, left:right] = 1
    weight = torch.fft.ifftshift(mask) * share[:, None, None, None]
    spectrum = torch.fft.fft2(image)
    amplitude = spectrum.abs()
    mixed = torch.lerp(amplitude, torch.fft.fft2(partner).abs(), weight)
    # angle(0) is 0: where the image has no amplitude, the partner's enters with phase 0, as polar form does.
    return torch.fft.ifft2(torch.polar(mixed, spectrum.angle())).real


def _low_frequency_change(
    image: Tensor, partner: Tensor, share: Tensor, bounds: tuple[int, int, int, int]
) -> Float[Tensor, "B C H W"]:
    """What the mix adds to the image, from the few frequencies of the window alone: products instead of transforms."""
    height, width = image.shape[-2:]
    top, bottom, left, right = bounds
    cosine, sine = _waves(top - height // 2, bottom - height // 2, height, image)  # (u, H)
    rows = torch.cat([cosine, -sine])  # (2u, H): real and imaginary part
    columns = torch.complex(*_waves(left - width // 2, right - width // 2, width, image))  # (v, W)

    def spectrum_of(values: Tensor) -> Tensor:
        real, imaginary = (rows @ values).chunk(2, -2)
        return torch.complex(real, imaginary) @ columns.mH  # (B, C, u, v)

    spectrum, other = spectrum_of(image), spectrum_of(partner)
    change = (other.abs() - spectrum.abs()) * share[:, None, None, None]
    phase = spectrum.angle()  # angle(0) is 0
    across = torch.complex(change * phase.cos(), change * phase.sin()) @ columns  # (B, C, u, W)
    return rows.mT @ torch.cat([across.real, across.imag], -2) / (height * width)


def _waves(first: int, last: int, length: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the frequencies from `first`, below `last`, at each of `length` places."""
    frequency = torch.arange(first, last, device=like.device)
    turns = (frequency[:, None] * torch.arange(length, device=like.device)) % length  # exact, as whole numbers
    angle = turns.to(like.dtype) * (2 * pi / length)
    return angle.cos(), angle.sin()
