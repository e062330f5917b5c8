"""Frontal chest X-ray: anatomy, its variation between patients, and X-ray absorption of each structure.

The standard frame is a film of 350 mm around the centre of the chest, x to the right of the film (the patient's left)
and y downwards. Centres, radii and paths are rounded values of textbook anatomy.
"""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from data.phantom.bodies.shapes import Difference, Shape, Tube, Union
from data.phantom.devices.pictures import Strand, deform, ellipse, rotation_matrix, soft_mask, union_distance, waves

FILM_MM = 350.0
EDGE_MM = 1.2  # blur of edges by breathing, heart beat and focal spot size


@dataclass(frozen=True, eq=False)
class Chest:
    """Outlines in the standard frame; left and right are the patient's."""

    body: Shape
    lungs: dict[str, Shape]  # "right lung", "left lung": without the parts hidden by heart, mediastinum and diaphragm
    heart: Shape
    mediastinum: Shape
    diaphragm: Shape
    clavicles: dict[str, Shape]  # "right clavicle", "left clavicle"
    scapulae: tuple[Shape, ...]
    vessels: tuple[Shape, ...]
    hila: np.ndarray  # (2, 2) mm, right and left
    airway: Shape
    rib_period_mm: float
    rib_slope: float
    pose: np.ndarray  # (2, 3) affine map from film mm to the standard frame

    def place(self, points: np.ndarray) -> np.ndarray:
        """Maps film points (2, ...) to the standard frame."""
        return (np.tensordot(self.pose[:, :2], points, axes=1).T + self.pose[:, 2]).T.astype(np.float32)


def draw_chest(rng: np.random.Generator) -> Chest:
    """Samples a patient: body size, heart, inspiration and pose."""
    deep, wide = rng.normal(0, 7), np.exp(rng.normal(0, 0.05))  # depth of the diaphragm, relative width of the chest
    heart = ellipse(rng.normal([24, 50], 4), rng.normal([66, 47], [6, 4]), rng.normal(0.55, 0.12), 2.1)
    heart = deform(heart, 1.2, 80.0, rng)
    knob = ellipse(rng.normal([20, -48], 4), rng.normal([20, 19], 1.5))
    mediastinum = Union((ellipse([2, -45], [rng.normal(25, 2.5), 165], 0.0, 2.6), knob), 8.0)
    domes = [_dome(rng, -70 * wide, 84 + deep), _dome(rng, 72 * wide, 92 + deep)]
    diaphragm = Union((domes[0], domes[1]), 12.0)
    fat = ellipse([16, 105 + deep / 2], [46, 36])  # fat pad between heart and diaphragm
    hidden = Union((heart, mediastinum, diaphragm, fat), 6.0)
    lungs = {"right lung": _lung(rng, -1, wide, hidden), "left lung": _lung(rng, 1, wide, hidden)}
    hila = np.array([[-34, -5], [36, -14]]) + rng.normal(0, 4, (2, 2))
    return Chest(
        body=_body(rng, wide),
        lungs=lungs,
        heart=heart,
        mediastinum=mediastinum,
        diaphragm=diaphragm,
        clavicles={"right clavicle": _clavicle(rng, -1), "left clavicle": _clavicle(rng, 1)},
        scapulae=tuple(_scapula(rng, side, wide) for side in (-1, 1)),
        vessels=tuple(_vessels(rng, hila)),
        hila=hila,
        airway=Tube(np.array([[0, -190], [1, -95], [3, -32]]) + rng.normal(0, 2, (3, 2)), np.full(3, 8.0)),
        rib_period_mm=rng.normal(25, 1.5),
        rib_slope=rng.normal(0.32, 0.08),
        pose=_pose(rng),
    )


def _pose(rng: np.random.Generator) -> np.ndarray:
    """Affine map (2, 3) from film mm to the standard frame: small rotation, shift and scaling."""
    growth = np.exp(np.clip(rng.normal(0, 0.045) + rng.normal(0, 0.025, 2), -0.1, 0.1))
    linear = rotation_matrix(rng.normal(0, 0.022)) / growth[:, None]
    return np.column_stack([linear, np.clip(rng.normal(0, 5, 2), -10, 10)])


def _dome(rng: np.random.Generator, x_mm: float, top_mm: float) -> Shape:
    radii = rng.normal([84, 90], 4)
    return deform(ellipse([x_mm, rng.normal(top_mm, 4) + radii[1]], radii), 1.0, 70.0, rng)


def _lung(rng: np.random.Generator, side: int, wide: float, hidden: Shape) -> Shape:
    radii = rng.normal([58 * wide, 138], [3, 6])
    centre = np.array([side * rng.normal(71, 2.5) * wide, rng.normal(18, 4)])
    whole = ellipse(centre, radii, side * rng.normal(0.12, 0.03), 2.25)
    return Difference(deform(whole, 1.5, 90.0, rng), hidden, 6.0)


def _body(rng: np.random.Generator, wide: float) -> Shape:
    girth = rng.normal(178, 10) * wide
    trunk = ellipse([0, 150], [girth, 320], 0.0, 3.5)
    shoulders = ellipse([0, rng.normal(-20, 8)], [rng.normal(235, 15), 150], 0.0, 2.5)
    return Union((trunk, shoulders, ellipse([0, -190], [rng.normal(62, 5), 110])), 40.0)


def _clavicle(rng: np.random.Generator, side: int) -> Shape:
    """S-shaped, from the sternum upwards and outwards to the shoulder, thicker at the medial end."""
    rise, reach = rng.normal(0, 7), rng.normal(1, 0.05)
    knots = np.array([[15, -82], [42, -97 + 0.3 * rise], [78, -103 + 0.7 * rise], [105, -117 + rise]])
    knots = np.clip(knots * [reach, 1] + rng.normal(0, 1.5, (4, 2)), [8, -145], [112, -72])
    path = CubicSpline(np.arange(4), knots * [side, 1])(np.linspace(0, 3, 7))
    return Tube(path, np.array([8, 6.6, 5.8, 5.3, 5.2, 5.6, 6.2]) * np.exp(rng.normal(0, 0.08)))


def _scapula(rng: np.random.Generator, side: int, wide: float) -> Shape:
    """Medial border of the scapula, a faint line next to or over the lateral lung."""
    centre = np.array([side * rng.normal(122, 7) * wide, rng.normal(-55, 8)])
    return Strand(centre, np.pi / 2 + side * rng.normal(0.18, 0.06), rng.normal(55, 5), side * 0.001, 3.0)


def _vessels(rng: np.random.Generator, hila: np.ndarray) -> list[Shape]:
    vessels: list[Shape] = []
    for side, hilum in zip((-1, 1), hila, strict=True):
        for angle in np.linspace(-1.25, 1.35, 8) + rng.normal(0, 0.12, 8):
            half, bend, radius = rng.uniform(16, 30), rng.normal(0, 0.004), rng.uniform(0.8, 2)
            out = np.array([side * np.cos(angle), np.sin(angle)])
            vessels.append(Strand(hilum + (half + 4) * out, np.arctan2(out[1], out[0]), half, bend, radius))
    return vessels


def absorption(chest: Chest, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """X-ray absorption (H, W) float32: about 0 in air, 0.3 in lungs, 1 in thick soft tissue and bone.

    Args:
        chest: anatomy.
        points: (2, H, W) in the standard frame.
        rng: for the variation between films.
    """
    body = _bulk(chest.body.distance(points), 25.0)
    tissue = 0.68 * body
    lungs = union_distance(chest.lungs.values(), points)
    air = soft_mask(lungs, EDGE_MM) * (0.6 + 0.4 * _bulk(lungs, 22.0))
    tissue -= rng.uniform(0.36, 0.46) * air
    tissue += rng.uniform(0.08, 0.14) * _bulk(chest.heart.distance(points), 16.0)
    tissue += (
        rng.uniform(0.08, 0.14)
        * _bulk(chest.mediastinum.distance(points), 12.0)
        * body
        * soft_mask(points[1] - 60, 12.0)
    )
    tissue += rng.uniform(0.05, 0.16) * _bulk(chest.diaphragm.distance(points), 12.0)
    tissue -= rng.uniform(0.04, 0.08) * _bulk(chest.airway.distance(points), 4.0)
    tissue += rng.uniform(0.04, 0.09) * soft_mask(union_distance(chest.vessels, points), 1.5) * air
    hila = union_distance((ellipse(hilum, [13, 22]) for hilum in chest.hila), points)
    tissue += rng.uniform(0.06, 0.12) * soft_mask(hila, 5.0) * air
    breasts = union_distance((ellipse([side * 78, 62], [58, 46]) for side in (-1, 1)), points)
    tissue += rng.uniform(0, 0.07) * _bulk(breasts, 15.0)
    if rng.random() < 0.5:
        gas = ellipse(rng.normal([68, 128], 5), rng.uniform([18, 8], [34, 16]), rng.normal(0, 0.2))
        tissue -= rng.uniform(0.12, 0.28) * soft_mask(gas.distance(points), 2.0)
    tissue += _bones(chest, points, lungs, rng) * body
    return tissue + 0.02 * waves(points, 120.0, rng) + 0.008 * waves(points, 14.0, rng) * air


def _bulk(distance: np.ndarray, scale_mm: float) -> np.ndarray:
    """Thickness (H, W) of a rounded body along the beam: 0 outside, increasing to 1 over about `scale_mm`."""
    return 1 - np.exp(np.minimum(distance, 0) / np.float32(scale_mm))


def _bones(chest: Chest, points: np.ndarray, lungs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Absorption (H, W) of ribs, spine, clavicles and scapulae."""
    x, y = points
    lateral = np.abs(x)
    period, slope = chest.rib_period_mm, chest.rib_slope
    caged = soft_mask(lungs - 9, 2.0)
    behind = y - slope * lateral - 0.0022 * (lateral - 70) ** 2 + 1.5 * waves(points, 150.0, rng)
    before = y + 0.75 * lateral + 0.003 * (lateral - 60) ** 2 + 1.5 * waves(points, 150.0, rng)
    strength = rng.uniform(0.04, 0.10)
    bones = strength * caged * _rib(behind + rng.uniform(0, 25), period, 4.5)
    bones += (
        0.4 * strength * caged * soft_mask(55 - lateral, 8.0) * _rib(before + rng.uniform(0, 25), 1.45 * period, 7.0)
    )
    vertebrae = 0.7 + 0.3 * np.cos(2 * np.pi / 24 * (y + rng.uniform(0, 24)))
    bones += rng.uniform(0.02, 0.05) * soft_mask(lateral - 17, 2.0) * vertebrae
    collar = union_distance(chest.clavicles.values(), points)
    bones += rng.uniform(0.10, 0.17) * soft_mask(collar, EDGE_MM) * (0.75 + 0.5 * np.exp(-((collar + 2) ** 2) / 4))
    return bones + 0.03 * soft_mask(union_distance(chest.scapulae, points), 2.0)


def _rib(height: np.ndarray, period_mm: float, half_mm: float) -> np.ndarray:
    """Ribs (H, W) repeated every `period_mm` of `height`, denser at their edges."""
    from_middle = np.abs(height % period_mm - period_mm / 2)
    rim = np.exp(-(((from_middle - half_mm + 1) / 1.5) ** 2))
    return soft_mask(from_middle - half_mm, 0.8) * (0.75 + 0.4 * rim)
