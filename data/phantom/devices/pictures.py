"""Tools for synthetic 2-D images: pixel grid, soft edges, curved strands, texture, and writing.

Points are float32 arrays (2, H, W) in mm from the centre, x to the right of the image and y downwards. Outlines are
those of `data.phantom.bodies.shapes`, with two axes.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.special import expit

from data.phantom.bodies.shapes import Deformed, Shape, Superquadric, Waves
from util.files import atomic_write

SIZES_PX = (32, 2048)


@dataclass(frozen=True)
class Frame:
    """Pixel grid: `size_px` pixels along the shorter side of `side_mm`; `aspect` is width / height."""

    size_px: int
    side_mm: float
    aspect: float = 1.0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return round(self.size_px / min(self.aspect, 1)), round(self.size_px * max(self.aspect, 1))

    @property
    def extent_mm(self) -> np.ndarray:
        """(2,) width and height."""
        return self.side_mm * np.array([max(self.aspect, 1), 1 / min(self.aspect, 1)])

    @property
    def pixel_mm(self) -> float:
        """Pixel spacing."""
        return self.side_mm / self.size_px

    def points(self) -> np.ndarray:
        """Pixel centres (2, H, W) in mm."""
        y, x = ((np.arange(count, dtype=np.float32) - (count - 1) / 2) * self.pixel_mm for count in self.shape)
        return np.stack(np.meshgrid(x.astype(np.float32), y.astype(np.float32)))


@dataclass(frozen=True, eq=False)
class Strand(Shape):
    """A thin parabolic arc with round ends: a hair, a rib, a vessel."""

    centre: np.ndarray  # (2,) mm
    turn_rad: float  # direction at the centre, from x towards y
    half_length_mm: float
    bend: float  # lateral shift at distance s from the centre: bend * s^2; 1/mm
    radius_mm: float

    def distance(self, points: np.ndarray) -> np.ndarray:
        """See `Shape`."""
        cos, sin = np.float32(np.cos(self.turn_rad)), np.float32(np.sin(self.turn_rad))
        x, y = points[0] - np.float32(self.centre[0]), points[1] - np.float32(self.centre[1])
        length, bend = np.float32(self.half_length_mm), np.float32(self.bend)
        along = cos * x + sin * y
        within = np.clip(along, -length, length)
        slope = 2 * bend * within
        across = (cos * y - sin * x - bend * within**2) / np.sqrt(1 + slope**2)
        return np.hypot(across, along - within) - np.float32(self.radius_mm)

    @property
    def bounds(self) -> np.ndarray:
        """See `Shape`; (2, 2)."""
        reach = self.half_length_mm + abs(self.bend) * self.half_length_mm**2 + self.radius_mm
        return np.stack([self.centre - reach, self.centre + reach])


def rotation_matrix(angle_rad: float) -> np.ndarray:
    """Rotation matrix (2, 2), from x towards y."""
    cos, sin = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[cos, -sin], [sin, cos]])


def ellipse(centre, radii, turn_rad: float = 0.0, exponent: float = 2.0) -> Superquadric:
    """An ellipse, or a superellipse for other exponents."""
    return Superquadric(np.asarray(centre, float), np.asarray(radii, float), rotation_matrix(turn_rad), exponent)


def deform(shape: Shape, amplitude_mm: float, length_mm: float, rng: np.random.Generator) -> Deformed:
    """`shape` with a smoothly deformed outline."""
    return Deformed(shape, Waves.draw(rng, amplitude_mm, length_mm, n_axes=2))


def waves(points: np.ndarray, length_mm: float, rng: np.random.Generator) -> np.ndarray:
    """A smooth random field (H, W) of about unit variance with a wavelength of about `length_mm`."""
    return Waves.draw(rng, 1.0, length_mm, n_axes=2).at(points)[0]


def soft_mask(distance: np.ndarray, soft_mm: float) -> np.ndarray:
    """Soft mask (H, W) in [0, 1] of a body whose edge has a width of about 4 `soft_mm`."""
    return expit(distance * np.float32(-1 / soft_mm))


def union_distance(shapes: Iterable[Shape], points: np.ndarray) -> np.ndarray:
    """Signed distance (H, W) to the union of `shapes`; infinite if there are none."""
    result = np.full(points.shape[1:], np.inf, np.float32)
    for shape in shapes:
        np.minimum(result, shape.distance(points), out=result)
    return result


def correlated_noise(shape: tuple[int, ...], sigma_px: float, rng: np.random.Generator) -> np.ndarray:
    """Noise (H, W) or (H, W, C) float32 of unit variance, smoothed by a Gaussian of `sigma_px` pixels."""
    sigma = (sigma_px, sigma_px, *[0] * (len(shape) - 2))
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, np.float32), sigma, mode="wrap", truncate=3)
    return noise / noise.std()


def to_uint8(image: np.ndarray) -> np.ndarray:
    """Converts brightness in [0, 1] to uint8."""
    return np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)


def write_image(path: Path, array: np.ndarray, file_format: str, **options: int) -> None:
    """Writes an image (masks as 0 and 255) atomically; an existing file is kept.

    Raises:
        UserError: the folder is not writable, or the disk is full.
    """
    if path.exists():
        return
    grey = array.astype(np.uint8) * 255 if array.dtype == bool else array
    with atomic_write(path) as temporary:
        Image.fromarray(grey).save(temporary, format=file_format, **options)
