"""Short-axis slices of a beating heart, with lungs, chest wall, liver, stomach, aorta and spine around it.

Points are (2, H, W) in mm, x to the right and y downwards, from the centre of the image. Outlines are signed distances,
negative inside. Position along the heart is 0 at the apex and 1 at the base; contraction is 0 at end-diastole and 1 at
end-systole.
"""

from dataclasses import dataclass

import numpy as np

from data.phantom.bodies.shapes import Layer, Superquadric

LABELS = {"LV": 1, "MYO": 2, "RV": 3}
RV_WALL_MM = 3.0


@dataclass(frozen=True, eq=False)
class Thorax:
    """A patient.

    Attributes:
        centre: of the left ventricle (x, y), mm.
        septum_rad: direction from the left to the right ventricle.
        cavity_mm: radius of the left ventricle's cavity at the base, relaxed.
        wall_mm: thickness of the myocardium, relaxed.
        right_mm: radius of the right ventricle at the base, relaxed.
        stroke: share of the cavity's radius that contraction takes.
        waves: (2, 2) height and phase of the second and third harmonic of the outline.
        length_mm: from apex to base.
        scale: of the organs around the heart.
        shifts: (5, 2) mm, of chest, liver, stomach, aorta and spine.
        vessels: (M, 3) x, y and radius of vessels in the lungs, mm.
    """

    centre: np.ndarray
    septum_rad: float
    cavity_mm: float
    wall_mm: float
    right_mm: float
    stroke: float
    waves: np.ndarray
    length_mm: float
    scale: float
    shifts: np.ndarray
    vessels: np.ndarray


def draw_thorax(rng: np.random.Generator) -> Thorax:
    """A random patient."""
    vessels = np.column_stack([rng.uniform(-140, 140, 30), rng.uniform(-90, 90, 30), rng.uniform(1.5, 4.5, 30)])
    return Thorax(
        centre=rng.normal(0, 9, 2),
        septum_rad=float(np.pi + rng.normal(0, 0.35)),
        cavity_mm=float(rng.uniform(20, 29)),
        wall_mm=float(rng.uniform(7.5, 12)),
        right_mm=float(rng.uniform(25, 36)),
        stroke=float(rng.uniform(0.22, 0.42)),
        waves=np.column_stack([rng.normal(0, 0.04, 2), rng.uniform(0, 2 * np.pi, 2)]),
        length_mm=float(rng.uniform(72, 92)),
        scale=float(rng.uniform(0.92, 1.1)),
        shifts=rng.normal(0, 6, (5, 2)),
        vessels=vessels,
    )


def layers(thorax: Thorax, points: np.ndarray, along: float, contraction: float) -> list[Layer]:
    """Tissues of a slice, from back to front."""
    return [*_surroundings(thorax, points, along), *_heart(thorax, points, along, contraction)]


def label_map(thorax: Thorax, points: np.ndarray, along: float, contraction: float) -> np.ndarray:
    """The annotation of a slice (H, W) uint8, see `LABELS`; empty beyond apex and base."""
    label = np.zeros(points.shape[1:], np.uint8)
    if not 0 <= along <= _base(contraction):
        return label
    cavity, outer, right = _ventricles(thorax, points, along, contraction)
    label[np.maximum(right, -outer) < 0] = LABELS["RV"]
    label[outer < 0] = LABELS["MYO"]
    label[cavity < 0] = LABELS["LV"]
    return label


def _base(contraction: float) -> float:
    """The base moves towards the apex when the heart contracts."""
    return 1 - 0.1 * contraction


def _ventricles(
    thorax: Thorax, points: np.ndarray, along: float, contraction: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances to the left cavity, to the outer face of its wall, and to the right ventricle behind it."""
    profile = float(np.sqrt(np.clip(1 - 0.9 * (1 - along) ** 2, 0.05, 1)))
    inner_mm = thorax.cavity_mm * profile * (1 - thorax.stroke * contraction)
    wall_mm = thorax.wall_mm * (0.7 + 0.3 * profile) * (1 + 0.35 * contraction)
    cavity = _wavy_disc(thorax, points, inner_mm)
    outer = _wavy_disc(thorax, points, inner_mm + wall_mm)
    towards = np.array([np.cos(thorax.septum_rad), np.sin(thorax.septum_rad)])
    right_mm = thorax.right_mm * (profile - 0.2) / 0.8 * (1 - 0.2 * contraction)
    if right_mm < 4:  # near the apex there is no right ventricle
        return cavity, outer, np.full(points.shape[1:], np.inf)
    centre = thorax.centre + towards * (inner_mm + wall_mm) * 0.8
    turn = np.column_stack([towards, [-towards[1], towards[0]]])
    right = Superquadric(centre, np.array([right_mm, right_mm * 1.25]), turn)
    return cavity, outer, right.distance(points)


def _wavy_disc(thorax: Thorax, points: np.ndarray, radius_mm: float) -> np.ndarray:
    x, y = points[0] - thorax.centre[0], points[1] - thorax.centre[1]
    angle = np.arctan2(y, x)
    (second, second_at), (third, third_at) = thorax.waves
    wave = second * np.cos(2 * angle + second_at) + third * np.cos(3 * angle + third_at)
    return np.hypot(x, y) - radius_mm * (1 + wave)


def _heart(thorax: Thorax, points: np.ndarray, along: float, contraction: float) -> list[Layer]:
    cavity, outer, right = _ventricles(thorax, points, min(max(along, 0.0), 1.0), contraction)
    hull = np.minimum(outer, right - RV_WALL_MM)
    if along < 0:  # below the apex: fat
        return [("fat", outer)]
    if along > _base(contraction):  # above the base: atria and vessels, which nobody annotates
        return [("fat", hull - 4), ("muscle", outer + 4), ("blood", cavity - 2), ("blood", right + 6)]
    found: list[Layer] = [("fat", hull - 4), ("myocardium", right - RV_WALL_MM), ("blood", right)]
    found += [("myocardium", outer), ("blood", cavity)]
    for turn in (0.9, 2.6):  # papillary muscles belong to the cavity in the annotation
        angle = thorax.septum_rad + np.pi + turn - 1.75
        place = thorax.centre + np.array([np.cos(angle), np.sin(angle)]) * thorax.cavity_mm * 0.5
        if along > 0.3:
            found.append(("myocardium", np.hypot(points[0] - place[0], points[1] - place[1]) - 3.5))
    return found


def _surroundings(thorax: Thorax, points: np.ndarray, along: float) -> list[Layer]:
    scale, shifts = thorax.scale, thorax.shifts
    body = _oval(points, (25, 35) + shifts[0], (175 * scale, 128 * scale), 2.5)
    lung = body + 24
    liver = _oval(points, (-45, 92 - 25 * along) + shifts[1], (88 * scale, 46 * scale * (1.25 - 0.5 * along)), 2.3)
    stomach = _oval(points, (78, 88) + shifts[2], (38 * scale, 30 * scale * (1.2 - 0.6 * along)), 2.0)
    aorta = _oval(points, (66, 48) + shifts[3], (12.0, 12.0), 2.0)
    spine = _oval(points, (34, 118) + shifts[4], (24.0, 20.0), 3.0)
    found: list[Layer] = [("fat", body), ("muscle", body + 11), ("lung", lung)]
    for x, y, radius_mm in thorax.vessels:
        found.append(("blood", np.maximum(np.hypot(points[0] - x, points[1] - y) - radius_mm, lung + 3)))
    found += [("liver", np.maximum(liver, lung)), ("muscle", np.maximum(stomach - 3, lung))]
    found += [("fluid", np.maximum(stomach, lung)), ("bone", spine), ("muscle", aorta - 2), ("blood", aorta)]
    return found


def _oval(points: np.ndarray, centre: np.ndarray, radii: tuple[float, float], exponent: float) -> np.ndarray:
    return Superquadric(np.asarray(centre, float), np.array(radii), np.eye(2), exponent).distance(points)
