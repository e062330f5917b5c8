"""Fundus cameras: a round field in black surroundings, colour cast, vignetting, blur and noise."""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from data.phantom.bodies.eye import FIELD_MM
from data.phantom.devices.pictures import Frame, correlated_noise, soft_mask, to_uint8

BLACK = 0.012  # brightness of the surroundings


@dataclass(frozen=True)
class FundusCamera:
    """A camera and the settings of a data set.

    Attributes:
        aspect: width / height of its pictures.
        diameter: of the field, as a multiple of the shorter side; above 1 it is cut off at the longer sides.
        cast: factors of red, green and blue.
        blur_mm: standard deviation of the blur on the retina.
        noise: standard deviation, as a fraction of white.
        vignette: loss of light at the rim of the field, as a fraction.
    """

    aspect: float
    diameter: float
    cast: tuple[float, float, float] = (1.0, 1.0, 1.0)
    blur_mm: float = 0.03
    noise: float = 0.012
    vignette: float = 0.25

    def frame(self, size_px: int) -> Frame:
        """The pixel grid of a picture whose shorter side has `size_px` pixels."""
        return Frame(size_px, FIELD_MM / self.diameter, self.aspect)

    def field(self, points: np.ndarray) -> np.ndarray:
        """(H, W) bool: the pixels within the field of view."""
        return np.hypot(*points) < FIELD_MM / 2

    def photograph(self, scene: np.ndarray, frame: Frame, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """The picture (H, W, 3) uint8 of a scene (H, W, 3) in [0, 1]."""
        radius = np.hypot(*points)
        light = 1 - np.float32(self.vignette) * (radius / (FIELD_MM / 2)) ** 2
        tilt = rng.normal(0, 0.012, 2).astype(np.float32)
        light = light * (1 + np.tensordot(tilt, points, axes=1))
        sigma = self.blur_mm / frame.pixel_mm
        image = ndimage.gaussian_filter(scene, (sigma, sigma, 0), mode="nearest")
        gain = np.asarray(self.cast, np.float32) * np.float32(rng.uniform(0.92, 1.05))
        image = image * light[..., None] * gain
        image += np.float32(self.noise) * correlated_noise(image.shape, 0.5, rng)
        seen = soft_mask(radius - np.float32(FIELD_MM / 2), 0.25 * frame.pixel_mm)[..., None]
        surroundings = BLACK * (1 + 0.5 * rng.standard_normal(image.shape[:2], np.float32))[..., None]
        return to_uint8(seen * image + (1 - seen) * surroundings)
