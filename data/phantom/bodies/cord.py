"""Axial slices of the spinal cord: grey matter in the shape of an H, white matter, fluid, and the spine around them.

Points are (2, H, W) in mm, x to the right and y downwards (to the back), from the centre of the image. Outlines are
signed distances, negative inside.
"""

from dataclasses import dataclass

import numpy as np

from data.phantom.bodies.shapes import Layer, Superquadric, Tube


@dataclass(frozen=True, eq=False)
class Spine:
    """A patient.

    Attributes:
        centre: of the cord (x, y), mm.
        turn: (2, 2) rotation of the cord.
        radii: of the cord (x, y), mm.
        fluid_mm: width of the fluid around it.
        horns: widths of the front and the back horns, mm.
        spread: distance of the horns from the middle, relative to the cord's radius.
        uneven: (4,) shifts of the four tips, mm.
        swell: by which the cord grows from the first to the last slice, relative.
    """

    centre: np.ndarray
    turn: np.ndarray
    radii: np.ndarray
    fluid_mm: float
    horns: tuple[float, float]
    spread: float
    uneven: np.ndarray
    swell: float


def draw_spine(rng: np.random.Generator) -> Spine:
    """A random patient."""
    angle = rng.normal(0, 0.08)
    return Spine(
        centre=rng.normal(0, 2.0, 2),
        turn=np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]),
        radii=np.array([rng.uniform(5.8, 7.4), rng.uniform(3.8, 4.9)]),
        fluid_mm=float(rng.uniform(1.5, 3.5)),
        horns=(float(rng.uniform(0.9, 1.3)), float(rng.uniform(0.55, 0.8))),
        spread=float(rng.uniform(0.32, 0.42)),
        uneven=rng.normal(0, 0.25, 4),
        swell=float(rng.normal(0, 0.12)),
    )


def outlines(spine: Spine, points: np.ndarray, along: float) -> tuple[np.ndarray, np.ndarray]:
    """Distances to the grey matter and to the cord, in a slice from 0 (the first) to 1 (the last)."""
    radii = spine.radii * (1 + spine.swell * (along - 0.5))
    cord = Superquadric(spine.centre, radii, spine.turn, 2.2).distance(points)
    width, height = radii
    horns: list[np.ndarray] = []
    for place, side in enumerate((-1, 1)):
        x = side * spine.spread * width
        front = np.array([x, -0.45 * height + spine.uneven[place]])
        middle = np.array([0.75 * x, 0.0])
        back = np.array([1.35 * x, 0.62 * height + spine.uneven[2 + place]])
        path = spine.centre + np.stack([front, middle, back]) @ spine.turn.T
        horns.append(Tube(path, np.array([spine.horns[0], 0.9, spine.horns[1]])).distance(points))
    bridge = spine.centre + np.array([[-0.75, 0.0], [0.75, 0.0]]) * spine.spread * width @ spine.turn.T
    horns.append(Tube(bridge, np.array([0.55, 0.55])).distance(points))
    grey = np.minimum.reduce(horns)
    return np.maximum(grey, cord + 0.5), cord


def layers(spine: Spine, points: np.ndarray, along: float) -> list[Layer]:
    """Tissues of a slice, from back to front."""
    grey, cord = outlines(spine, points, along)
    x, y = spine.centre
    neck = Superquadric(np.array([x, y + 4]), np.array([48.0, 42.0]), np.eye(2), 2.4).distance(points)
    body = Superquadric(np.array([x, y - 17]), np.array([13.0, 9.0]), np.eye(2), 3.0).distance(points)
    arch = Superquadric(np.array([x, y + 2]), np.array([14.5, 13.0]), np.eye(2), 2.2).distance(points)
    vessels = [np.hypot(points[0] - x - side * 17, points[1] - y + 6) - 2.2 for side in (-1, 1)]
    canal = cord - spine.fluid_mm
    found: list[Layer] = [("fat", neck), ("muscle", neck + 6), ("bone", arch), ("bone", body), ("disc", body + 2.5)]
    found += [("vessel", distance) for distance in vessels]
    found += [("fat", canal - 1.5), ("fluid", canal), ("white matter", cord), ("grey matter", grey)]
    return found
