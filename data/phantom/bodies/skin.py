"""Dermoscopic skin: any skin tone, with a pigmented lesion of irregular outline and pattern.

Colours follow the Beer-Lambert law for absorption by melanin and blood, so that skin tone, lesion and illumination mix
realistically. No value was tuned for a segmentation method.
"""

from dataclasses import dataclass

import numpy as np

from data.phantom.bodies.shapes import Offset, Shape, Union
from data.phantom.devices.pictures import Frame, correlated_noise, deform, ellipse, soft_mask, waves

# Absorption of red, green and blue per unit of pigment (natural logarithm).
MELANIN = np.array([0.36, 0.78, 1.05], np.float32)
BLOOD = np.array([0.12, 0.80, 0.66], np.float32)
VEIL_COLOUR = np.array([0.42, 0.48, 0.60], np.float32)  # the blue-white veil of deep pigment
LESION_FRACTION = (0.06, 0.42)  # of the image area


@dataclass(frozen=True, eq=False)
class Lesion:
    """A pigmented lesion; its mask is where `outline` is negative."""

    outline: Shape
    centre: np.ndarray  # (2,) mm
    radius_mm: float  # of a disc of the same area
    soft_mm: float  # softness of the border
    melanin: float  # in addition to that of the skin
    blood: float


def draw_frame(rng: np.random.Generator, size_px: int) -> Frame:
    """Samples the field of view: aspect ratio 4:3, 3:2 or 1:1, shorter side 9 to 16 mm."""
    return Frame(size_px, float(rng.uniform(9, 16)), float(rng.choice([4 / 3, 4 / 3, 3 / 2, 1])))


def draw_lesion(rng: np.random.Generator, frame: Frame) -> Lesion:
    """Samples a lesion, a deformed union of two ellipses, with an area fraction within `LESION_FRACTION`."""
    fraction = np.exp(rng.uniform(*np.log(LESION_FRACTION)))
    radius = float(np.sqrt(fraction * np.prod(frame.extent_mm) / np.pi))
    room = np.maximum(frame.extent_mm / 2 - 0.9 * radius, 0.02 * frame.side_mm)
    centre = np.clip(rng.normal(0, 0.12 * frame.extent_mm), -room, room)
    stretch, turn, side = np.exp(rng.normal(0, 0.16)), *rng.uniform(0, 2 * np.pi, 2)
    main = ellipse(centre, radius * np.array([stretch, 1 / stretch]), turn)
    lobe_centre = centre + rng.uniform(0.3, 0.8) * radius * np.array([np.cos(side), np.sin(side)])
    lobe = ellipse(lobe_centre, radius * rng.uniform(0.45, 0.8, 2), turn)
    body = deform(Union((main, lobe), 0.3 * radius), rng.uniform(0.02, 0.08) * radius, 1.6 * radius, rng)
    body = deform(body, rng.uniform(0.01, 0.035) * radius, 0.5 * radius, rng)
    coarse = Frame(64, frame.side_mm, frame.aspect).points()
    outline = Offset(body, float(np.quantile(body.distance(coarse), fraction)))
    softness = np.exp(rng.uniform(*np.log((0.01, 0.07)))) * radius
    melanin = float(np.clip(np.exp(rng.normal(0, 0.6)), 0.3, 2.2))
    return Lesion(outline, centre, radius, float(softness), melanin, melanin * rng.uniform(-0.05, 0.35))


def pigments(
    lesion: Lesion, frame: Frame, points: np.ndarray, rng: np.random.Generator, texture: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Melanin and blood content, each (H, W), of skin and lesion."""
    tone = rng.choice([rng.uniform(0.02, 0.35), rng.uniform(0.3, 0.9)], p=[0.75, 0.25])
    coarse, fine = (correlated_noise(points.shape[1:], size_mm / frame.pixel_mm, texture) for size_mm in (0.35, 0.12))
    melanin = tone * (1 + 0.10 * waves(points, 6.0, rng) + 0.08 * fine)
    blood = rng.uniform(0.18, 0.5) * (1 + 0.18 * waves(points, 5.0, rng) + 0.10 * coarse)
    distance = lesion.outline.distance(points)
    filled = soft_mask(distance, lesion.soft_mm)
    pattern = _pattern(lesion, points, distance, rng)
    redness = 1 + 0.4 * waves(points, lesion.radius_mm, rng)
    halo = rng.uniform(0, 0.12) * soft_mask(distance - 0.2 * lesion.radius_mm, 0.1 * lesion.radius_mm)
    melanin += lesion.melanin * filled * np.maximum(pattern, 0.35)
    blood += lesion.blood * filled * redness + halo
    return np.maximum(melanin, 0), np.maximum(blood, 0.02)


def _pattern(lesion: Lesion, points: np.ndarray, distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Relative melanin of the lesion, around 1: patches, dark or pale core, network, globules, streaks."""
    radius = lesion.radius_mm
    pattern = 1 + rng.uniform(0.08, 0.3) * waves(points, 1.1 * radius, rng)
    core_depth, fade = rng.uniform(0.2, 0.6) * radius, rng.uniform(0.03, 0.15) * radius
    off_centre = 0.12 * radius * waves(points, 1.5 * radius, rng)
    pattern += rng.uniform(-0.35, 0.6) * soft_mask(distance + core_depth + off_centre, fade)
    if rng.random() < 0.5:
        pattern += rng.uniform(0.1, 0.3) * _network(points, rng)
    if rng.random() < 0.5:
        inside = soft_mask(distance + 0.1 * radius, 0.05 * radius)
        pattern += rng.uniform(0.3, 0.8) * inside * _globules(points, rng.uniform(0.07, 0.14) * radius + 0.25, rng)
    if rng.random() < 0.35:
        x, y = points - lesion.centre.astype(np.float32)[:, None, None]
        rays = np.cos(rng.integers(14, 30) * np.arctan2(y, x) + np.float32(rng.uniform(0, 6)))
        pattern += rng.uniform(0.3, 0.7) * np.maximum(rays, 0) * np.exp(-((distance / (0.16 * radius)) ** 2))
    return pattern


def _network(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pigment network (H, W) in [-1, 1]: a warped lattice of dark lines around pale holes."""
    period = rng.uniform(0.45, 0.8)
    phase = 2 * np.pi / period
    x, y = (phase * (axis + 0.12 * waves(points, 2.5, rng)) for axis in points)
    return -np.cos(x) * np.cos(y).astype(np.float32)


def _globules(points: np.ndarray, period_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Dots (H, W) in [0, 1], at most one per cell of `period_mm`, with random position and size."""
    count = 64
    table = rng.uniform(0.3, 0.7, (2, count, count)).astype(np.float32)
    radii = rng.uniform(-0.15, 0.27, (count, count)).astype(np.float32)
    scaled = points / np.float32(period_mm)
    cells = np.floor(scaled)
    column, row = cells.astype(int) % count
    x, y = scaled - cells - table[:, row, column]
    return soft_mask(np.hypot(x, y) - radii[row, column], 0.05)


def colours(melanin: np.ndarray, blood: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) float32 in [0, 1] under uniform white light."""
    return 0.97 * np.exp(-(melanin[..., None] * MELANIN + blood[..., None] * BLOOD)).astype(np.float32)


def add_veil(image: np.ndarray, lesion: Lesion, points: np.ndarray, rng: np.random.Generator) -> None:
    """Adds a blue-white veil to a part of the lesion, in place."""
    radius = lesion.radius_mm
    centre = lesion.centre + rng.normal(0, 0.3 * radius, 2)
    patch = ellipse(centre, radius * rng.uniform(0.25, 0.5, 2), rng.uniform(0, np.pi)).distance(points)
    opacity = soft_mask(np.maximum(patch, lesion.outline.distance(points) + 0.1 * radius), 0.08 * radius)
    image += (rng.uniform(0.3, 0.6) * opacity)[..., None] * (VEIL_COLOUR - image)
