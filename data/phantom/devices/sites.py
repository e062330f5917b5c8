"""MR scanners of several sites: the same bodies with other contrasts, gains, coil shading, sharpness and noise."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from data.phantom.bodies.shapes import Layer

EDGES_MM = 4.0  # correlation length of texture


@dataclass(frozen=True)
class Site:
    """How the scanner of a site shows tissues.

    Attributes:
        signals: tissue -> brightness, relative to that of blood or fluid at another site.
        spread: standard deviation between patients, relative.
        gain: grey value of brightness 1.
        shading: logarithm of the greatest change by the coils across the field of view.
        coil: direction (x, y) of the nearest coil.
        blur_mm: standard deviation of the point spread.
        noise: standard deviation in brightness, before blur of the reconstruction.
        smoothing_px: of the noise, by interpolation of the reconstruction.
    """

    signals: Mapping[str, float]
    spread: float
    gain: float
    shading: float
    coil: tuple[float, float]
    blur_mm: float
    noise: float
    smoothing_px: float = 0.0

    def brightness(self, rng: np.random.Generator) -> dict[str, float]:
        """Tissue -> brightness in one patient."""
        drawn = rng.normal(1.0, self.spread, len(self.signals))
        return {
            tissue: value * float(factor) for (tissue, value), factor in zip(self.signals.items(), drawn, strict=True)
        }


def paint(layers: Sequence[Layer], brightness: Mapping[str, float], pixel_mm: float, texture: np.ndarray) -> np.ndarray:
    """Noise-free signal (H, W) float32; a later layer covers those before it, edge pixels in part.

    Args:
        layers: from back to front.
        brightness: tissue -> brightness.
        pixel_mm: size of a pixel.
        texture: (H, W), around 1.
    """
    signal = np.full(texture.shape, brightness["air"], np.float32)
    for tissue, distance in layers:
        covered = np.clip(0.5 - distance / pixel_mm, 0, 1).astype(np.float32)
        signal += covered * (np.float32(brightness[tissue]) * texture - signal)
    return signal


def draw_texture(shape: tuple[int, int], pixel_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Uneven tissue (H, W) float32 around 1."""
    sigma = max(EDGES_MM / 2 / pixel_mm, 0.3)
    field = ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), sigma, mode="wrap")
    return 1 + np.float32(0.1) * field / max(float(field.std()), 1e-6)


def draw_shading(site: Site, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Gain (H, W) float32 around 1, highest near the coil; bends at random."""
    rows, columns = np.meshgrid(*(np.linspace(-1, 1, side, dtype=np.float32) for side in shape), indexing="ij")
    across = (columns * site.coil[0] + rows * site.coil[1]) / np.hypot(*site.coil)
    bends = rng.normal(0, 0.15, 3)
    curved = across + bends[0] * rows * columns + bends[1] * rows**2 + bends[2] * columns**2
    return np.exp(site.shading / 2 * curved).astype(np.float32)


def expose(
    signal: np.ndarray, site: Site, shading: np.ndarray, pixel_mm: float, rng: np.random.Generator
) -> np.ndarray:
    """An image (H, W) int16: point spread, coil shading, Rician noise, gain."""
    blurred = ndimage.gaussian_filter(signal, site.blur_mm / pixel_mm) * shading
    noise = rng.standard_normal((2, *signal.shape)).astype(np.float32)
    if site.smoothing_px:
        noise = np.stack([ndimage.gaussian_filter(part, site.smoothing_px) for part in noise])
        noise /= noise.std()
    magnitude = np.hypot(blurred + site.noise * noise[0], site.noise * noise[1])
    return np.clip(np.rint(magnitude * site.gain), 0, 32_000).astype(np.int16)
