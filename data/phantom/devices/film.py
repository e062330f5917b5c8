"""X-ray film: pathological shadows, exposure, contrast, noise, markers, wires and collimation."""

import numpy as np

from data.phantom.bodies.chest import FILM_MM, Chest
from data.phantom.devices.pictures import Frame, Strand, correlated_noise, deform, ellipse, soft_mask, union_distance


def add_nodule(tissue: np.ndarray, chest: Chest, points: np.ndarray, rng: np.random.Generator) -> None:
    """Adds a nodule of 8 to 30 mm inside a lung, in place."""
    radius = rng.uniform(4, 15)
    position = sample_lung_positions(chest, 1, radius, rng)[0]
    nodule = deform(ellipse(position, [radius, 0.9 * radius], rng.uniform(0, 3)), 0.08 * radius, 2 * radius, rng)
    tissue += rng.uniform(0.06, 0.2) * soft_mask(nodule.distance(points), 0.15 * radius)


def add_opacities(
    tissue: np.ndarray, chest: Chest, points: np.ndarray, rng: np.random.Generator, texture: np.random.Generator
) -> None:
    """Adds one to four mottled opacities inside the lungs, as in tuberculosis, in place."""
    pixel_mm = FILM_MM / min(tissue.shape)
    mottled = np.clip(0.8 + 0.45 * correlated_noise(tissue.shape, 3.5 / pixel_mm, texture), 0, 1.8)
    within = soft_mask(union_distance(chest.lungs.values(), points), 2.0)
    for position in sample_lung_positions(chest, int(rng.integers(1, 5)), 6.0, rng):
        cloud = deform(ellipse(position, rng.uniform(10, 32, 2), rng.uniform(0, 3)), 3.0, 25.0, rng).distance(points)
        tissue += rng.uniform(0.07, 0.22) * soft_mask(cloud, rng.uniform(2, 6)) * mottled * within


def sample_lung_positions(chest: Chest, count: int, margin_mm: float, rng: np.random.Generator) -> np.ndarray:
    """Random positions (count, 2) at least `margin_mm` inside a lung; else the deepest of a hundred candidates."""
    candidates = rng.uniform([-135, -110], [135, 90], (100, 2))
    depth = -union_distance(chest.lungs.values(), candidates.T.astype(np.float32)[:, None])[0]
    return candidates[np.argsort(-np.minimum(depth, margin_mm), kind="stable")[:count]]


def add_wires(tissue: np.ndarray, points: np.ndarray, rng: np.random.Generator) -> None:
    """Adds one to three wires or tubes on the skin, in place."""
    wires = [
        Strand(rng.normal(0, 60, 2), rng.uniform(0, np.pi), rng.uniform(40, 120), rng.normal(0, 0.003), 0.9)
        for _ in range(rng.integers(1, 4))
    ]
    tissue += rng.uniform(0.15, 0.3) * soft_mask(union_distance(wires, points), 0.5)


def develop(tissue: np.ndarray, frame: Frame, rng: np.random.Generator, detector: np.random.Generator) -> np.ndarray:
    """Brightness (H, W) float32 of about 0 to 1, bone bright: exposure, contrast, stronger noise in dark areas."""
    y = np.linspace(-1, 1, tissue.shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1, 1, tissue.shape[1], dtype=np.float32)
    uneven = rng.normal(0, 0.025) * x + rng.normal(0, 0.03) * y
    level = np.clip((tissue + uneven + rng.normal(0, 0.03)) / rng.uniform(0.95, 1.15), 0, 1.2)
    bright = level ** np.float32(np.exp(rng.normal(0.05, 0.16)))
    noise = rng.uniform(0.006, 0.016) * correlated_noise(tissue.shape, 0.5, detector) * (1.3 - 0.6 * bright)
    return (0.02 + 0.93 * bright + noise * min(1.0, frame.size_px / 128) ** 0.5).astype(np.float32)


def add_marker(bright: np.ndarray, frame: Frame, rng: np.random.Generator) -> None:
    """Adds a bright lead marker "L" to an upper corner, in place."""
    corner = FILM_MM * np.array([rng.choice([-1, 1]), -1]) * rng.uniform(0.40, 0.45, 2)
    x, y = frame.points() - corner.astype(np.float32)[:, None, None]
    upright = np.maximum(np.abs(x) - 1.8, np.abs(y) - 8)
    foot = np.maximum(np.abs(x - 4) - 5.8, np.abs(y - 7) - 1.8)
    bright += soft_mask(np.minimum(upright, foot), 0.8) * (0.95 - bright)


def collimate(bright: np.ndarray, frame: Frame, rng: np.random.Generator) -> None:
    """Blackens up to 6 % of the film along each edge, outside the collimator, in place."""
    x, y = frame.points()
    width, height = frame.extent_mm / 2
    edges = rng.uniform(-0.03, 0.06, 4) * FILM_MM
    beyond = [x - width + edges[0], -x - width + edges[1], y - height + edges[2], -y - height + edges[3]]
    bright *= soft_mask(np.maximum.reduce(beyond), 0.6)
