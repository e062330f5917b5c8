"""A mole seen through a dermatoscope: skin of any tone, and a pigmented lesion of irregular outline and pattern.

Colour is what melanin and blood leave of white light (Beer and Lambert), so that tones, lesions and illumination mix as
they do in nature. No number was fitted to any method.
"""

from dataclasses import dataclass

import numpy as np

from data.phantom.bodies.shapes import Offset, Shape, Union
from data.phantom.devices.pictures import Frame, cover, ellipse, grain, waves, wobbly

# What one unit of a pigment absorbs of red, green and blue (natural logarithm).
MELANIN = np.array([0.36, 0.78, 1.05], np.float32)
BLOOD = np.array([0.12, 0.80, 0.66], np.float32)
VEIL_COLOUR = np.array([0.42, 0.48, 0.60], np.float32)  # the blue-white veil of deep pigment
LESION_SHARE = (0.06, 0.42)  # of the image


@dataclass(frozen=True, eq=False)
class Lesion:
    """A pigmented lesion; the mask is where `outline` is negative."""

    outline: Shape
    centre: np.ndarray  # (2,) mm
    radius_mm: float  # of the disc of the same area
    soft_mm: float  # how slowly the border fades
    melanin: float  # on top of the skin's
    blood: float


def draw_frame(rng: np.random.Generator, size_px: int) -> Frame:
    """Draws the field of view: 4 : 3, 3 : 2 or square, its shorter side 9 to 16 mm long."""
    return Frame(size_px, float(rng.uniform(9, 16)), float(rng.choice([4 / 3, 4 / 3, 3 / 2, 1])))


def draw_lesion(rng: np.random.Generator, frame: Frame) -> Lesion:
    """Draws a lesion that fills a share of the image within `LESION_SHARE`: two grown-together, dented ellipses."""
    share = np.exp(rng.uniform(*np.log(LESION_SHARE)))
    radius = float(np.sqrt(share * np.prod(frame.extent_mm) / np.pi))
    room = np.maximum(frame.extent_mm / 2 - 0.9 * radius, 0.02 * frame.side_mm)
    centre = np.clip(rng.normal(0, 0.12 * frame.extent_mm), -room, room)
    stretch, turn, side = np.exp(rng.normal(0, 0.16)), *rng.uniform(0, 2 * np.pi, 2)
    main = ellipse(centre, radius * np.array([stretch, 1 / stretch]), turn)
    lobe_centre = centre + rng.uniform(0.3, 0.8) * radius * np.array([np.cos(side), np.sin(side)])
    lobe = ellipse(lobe_centre, radius * rng.uniform(0.45, 0.8, 2), turn)
    body = wobbly(Union((main, lobe), 0.3 * radius), rng.uniform(0.02, 0.08) * radius, 1.6 * radius, rng)
    body = wobbly(body, rng.uniform(0.01, 0.035) * radius, 0.5 * radius, rng)
    coarse = Frame(64, frame.side_mm, frame.aspect).points()
    outline = Offset(body, float(np.quantile(body.distance(coarse), share)))
    softness = np.exp(rng.uniform(*np.log((0.01, 0.07)))) * radius
    melanin = float(np.clip(np.exp(rng.normal(0, 0.6)), 0.3, 2.2))
    return Lesion(outline, centre, radius, float(softness), melanin, melanin * rng.uniform(-0.05, 0.35))


def pigments(
    lesion: Lesion, frame: Frame, points: np.ndarray, rng: np.random.Generator, texture: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Melanin and blood, each (H, W), of skin and lesion."""
    tone = rng.choice([rng.uniform(0.02, 0.35), rng.uniform(0.3, 0.9)], p=[0.75, 0.25])
    coarse, fine = (grain(points.shape[1:], size_mm / frame.pixel_mm, texture) for size_mm in (0.35, 0.12))
    melanin = tone * (1 + 0.10 * waves(points, 6.0, rng) + 0.08 * fine)
    blood = rng.uniform(0.18, 0.5) * (1 + 0.18 * waves(points, 5.0, rng) + 0.10 * coarse)
    distance = lesion.outline.distance(points)
    filled = cover(distance, lesion.soft_mm)
    pattern = _pattern(lesion, points, distance, rng)
    redness = 1 + 0.4 * waves(points, lesion.radius_mm, rng)
    halo = rng.uniform(0, 0.12) * cover(distance - 0.2 * lesion.radius_mm, 0.1 * lesion.radius_mm)
    melanin += lesion.melanin * filled * np.maximum(pattern, 0.35)
    blood += lesion.blood * filled * redness + halo
    return np.maximum(melanin, 0), np.maximum(blood, 0.02)


def _pattern(lesion: Lesion, points: np.ndarray, distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How the lesion's melanin varies around 1: patches, a core or a pale middle, network, globules, streaks."""
    radius = lesion.radius_mm
    pattern = 1 + rng.uniform(0.08, 0.3) * waves(points, 1.1 * radius, rng)
    core_depth, fade = rng.uniform(0.2, 0.6) * radius, rng.uniform(0.03, 0.15) * radius
    off_centre = 0.12 * radius * waves(points, 1.5 * radius, rng)
    pattern += rng.uniform(-0.35, 0.6) * cover(distance + core_depth + off_centre, fade)
    if rng.random() < 0.5:
        pattern += rng.uniform(0.1, 0.3) * _network(points, rng)
    if rng.random() < 0.5:
        inside = cover(distance + 0.1 * radius, 0.05 * radius)
        pattern += rng.uniform(0.3, 0.8) * inside * _globules(points, rng.uniform(0.07, 0.14) * radius + 0.25, rng)
    if rng.random() < 0.35:
        x, y = points - lesion.centre.astype(np.float32)[:, None, None]
        rays = np.cos(rng.integers(14, 30) * np.arctan2(y, x) + np.float32(rng.uniform(0, 6)))
        pattern += rng.uniform(0.3, 0.7) * np.maximum(rays, 0) * np.exp(-((distance / (0.16 * radius)) ** 2))
    return pattern


def _network(points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pigment network (H, W) between -1 and 1: a warped lattice of dark lines around pale holes."""
    period = rng.uniform(0.45, 0.8)
    phase = 2 * np.pi / period
    x, y = (phase * (axis + 0.12 * waves(points, 2.5, rng)) for axis in points)
    return -np.cos(x) * np.cos(y).astype(np.float32)


def _globules(points: np.ndarray, period_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Dots (H, W) from 0 to 1, about one in each cell of `period_mm`, of varied place and size; some are missing."""
    count = 64
    table = rng.uniform(0.3, 0.7, (2, count, count)).astype(np.float32)
    radii = rng.uniform(-0.15, 0.27, (count, count)).astype(np.float32)
    scaled = points / np.float32(period_mm)
    cells = np.floor(scaled)
    column, row = cells.astype(int) % count
    x, y = scaled - cells - table[:, row, column]
    return cover(np.hypot(x, y) - radii[row, column], 0.05)


def colours(melanin: np.ndarray, blood: np.ndarray) -> np.ndarray:
    """RGB (H, W, 3) float32, 0 to 1, under even white light."""
    return 0.97 * np.exp(-(melanin[..., None] * MELANIN + blood[..., None] * BLOOD)).astype(np.float32)


def add_veil(image: np.ndarray, lesion: Lesion, points: np.ndarray, rng: np.random.Generator) -> None:
    """Lays a blue-white veil over a part of the lesion, in place."""
    radius = lesion.radius_mm
    centre = lesion.centre + rng.normal(0, 0.3 * radius, 2)
    patch = ellipse(centre, radius * rng.uniform(0.25, 0.5, 2), rng.uniform(0, np.pi)).distance(points)
    share = cover(np.maximum(patch, lesion.outline.distance(points) + 0.1 * radius), 0.08 * radius)
    image += (rng.uniform(0.3, 0.6) * share)[..., None] * (VEIL_COLOUR - image)
