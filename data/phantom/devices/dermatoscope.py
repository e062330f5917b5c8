"""Dermoscopic artefacts: hairs, gel bubbles, ruler, stickers, small moles, illumination, lens and camera noise."""

import numpy as np

from data.phantom.bodies.skin import Lesion
from data.phantom.devices.pictures import (
    Frame,
    Strand,
    correlated_noise,
    deform,
    ellipse,
    soft_mask,
    to_uint8,
    union_distance,
    waves,
)

STICKERS = np.array([[0.16, 0.42, 0.75], [0.90, 0.78, 0.15], [0.20, 0.58, 0.28], [0.80, 0.20, 0.18]], np.float32)
CLEAR_MM = 0.35  # minimum distance of artefacts from the lesion


def _sample_clear_positions(lesion: Lesion, frame: Frame, radii_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random discs (N, 3) of the given radii, x, y and radius in mm, without those that overlap the lesion."""
    positions = rng.uniform(-0.5, 0.5, (len(radii_mm), 2)) * frame.extent_mm
    is_clear = lesion.outline.distance(positions.T.astype(np.float32)) > radii_mm + CLEAR_MM
    return np.column_stack([positions, radii_mm])[is_clear]


def add_small_moles(
    melanin: np.ndarray, lesion: Lesion, frame: Frame, points: np.ndarray, rng: np.random.Generator
) -> None:
    """Adds the melanin of up to five small moles next to the lesion, in place."""
    radii = rng.uniform(0.02, 0.05, rng.integers(0, 6)) * frame.side_mm
    moles = [
        deform(ellipse([x, y], [radius, 0.8 * radius]), 0.1 * radius, 2 * radius, rng)
        for x, y, radius in _sample_clear_positions(lesion, frame, radii, rng)
    ]
    if moles:
        melanin += rng.uniform(0.2, 0.8) * lesion.melanin * soft_mask(union_distance(moles, points), 0.06)


def add_hairs(image: np.ndarray, frame: Frame, points: np.ndarray, rng: np.random.Generator) -> None:
    """Draws up to 12 hairs of one colour and similar direction, in place."""
    main, radius = rng.uniform(0, np.pi), rng.uniform(0.025, 0.055)
    hairs = [
        Strand(
            rng.uniform(-0.5, 0.5, 2) * frame.extent_mm,
            rng.normal(main, 0.5),
            rng.uniform(0.15, 0.5) * frame.side_mm,
            rng.normal(0, 0.6) / frame.side_mm,
            radius,
        )
        for _ in range(rng.integers(2, 13))
    ]
    colour = np.array([0.22, 0.15, 0.10] if rng.random() < 0.8 else [0.80, 0.68, 0.50], np.float32)
    opacity = rng.uniform(0.6, 0.95) * soft_mask(union_distance(hairs, points), max(0.02, 0.25 * frame.pixel_mm))
    image += opacity[..., None] * (colour - image)


def add_bubbles(image: np.ndarray, frame: Frame, points: np.ndarray, rng: np.random.Generator) -> None:
    """Draws bubbles of the immersion gel, in place: bright rims, darker on one side."""
    for _ in range(rng.integers(1, 7)):
        radius, light = rng.uniform(0.01, 0.045) * frame.side_mm, rng.uniform(0, 2 * np.pi)
        x, y = points - (rng.uniform(-0.5, 0.5, 2) * frame.extent_mm).astype(np.float32)[:, None, None]
        towards = (x * np.cos(light) + y * np.sin(light)) / radius
        rim = np.exp(-(((np.hypot(x, y) - radius) / max(0.15 * radius, 0.6 * frame.pixel_mm)) ** 2))
        image += (rim * (0.08 + 0.22 * np.clip(towards, -1, 1))).astype(np.float32)[..., None]


def add_ruler(image: np.ndarray, lesion: Lesion, frame: Frame, points: np.ndarray, rng: np.random.Generator) -> None:
    """Draws 1 mm ruler marks along the image edge farthest from the lesion, in place."""
    edges = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]], np.float32)
    edge = edges[np.argmax(lesion.outline.distance((edges * frame.extent_mm.astype(np.float32) / 2).T))]
    depth = np.abs(edge) @ frame.extent_mm / 2 - np.tensordot(edge, points, axes=1) - rng.uniform(0.0, 0.3)
    along = np.tensordot(np.abs(edge[::-1]), points, axes=1) + rng.uniform(0, 5)
    from_mark = np.abs((along + 0.5) % 1 - 0.5)
    length = np.where(np.abs((along + 2.5) % 5 - 2.5) < 0.5, 0.9, 0.5)
    marks = soft_mask(np.maximum(from_mark - 0.05, np.abs(depth) - length), max(0.02, 0.3 * frame.pixel_mm))
    colour = np.float32(rng.choice([0.08, 0.95]))
    image += (0.85 * marks)[..., None] * (colour - image)


def add_sticker(image: np.ndarray, lesion: Lesion, frame: Frame, points: np.ndarray, rng: np.random.Generator) -> None:
    """Draws a colour patch across the image border, if there is space next to the lesion, in place."""
    around = rng.uniform(0, 2 * np.pi, 24)
    places = (0.55 * frame.extent_mm * np.stack([np.cos(around), np.sin(around)], 1) * 1.15).astype(np.float32)
    room = lesion.outline.distance(places.T) - CLEAR_MM
    best = np.argmax(room)
    radius = min(0.3 * frame.side_mm, 0.9 * float(room[best]))
    if radius < 0.12 * frame.side_mm:
        return
    exponent = rng.choice([2.0, 8.0])
    patch = ellipse(places[best], [radius, radius * rng.uniform(0.7, 1)], rng.uniform(0, 3), exponent).distance(points)
    image += soft_mask(patch, 0.05)[..., None] * (rng.choice(STICKERS) - image)


def illuminate(image: np.ndarray, frame: Frame, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Applies uneven, tinted illumination with vignetting, (H, W, 3)."""
    x, y = points / (frame.side_mm / 2)
    slope = rng.normal(0, 0.09, 2).astype(np.float32)
    vignette = rng.uniform(0.02, 0.22) * (x**2 + y**2) / 2
    light = 1 + slope[0] * x + slope[1] * y - vignette + 0.03 * waves(points, frame.side_mm, rng)
    tint = rng.normal(1, [0.03, 0.03, 0.06])
    return image * (light[..., None] * (rng.uniform(0.82, 1.04) * tint)).astype(np.float32)


def darken_corners(image: np.ndarray, frame: Frame, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Black corners (H, W, 3), caused by the round lens of a dermatoscope."""
    half_diagonal = float(np.hypot(*frame.extent_mm)) / 2
    radius = rng.uniform(0.80, 0.94) * half_diagonal
    seen = soft_mask(np.hypot(*points) - np.float32(radius), 0.05)
    return image * seen[..., None] + 0.02


def add_camera_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Adds camera noise and converts to 8 bits: (H, W, 3) uint8."""
    noise = (
        0.008 * correlated_noise(image.shape, 0.7, rng) + 0.006 * correlated_noise(image.shape[:2], 0.5, rng)[..., None]
    )
    return to_uint8(image + noise)
