"""The back of an eye as a fundus camera sees it: a tree of vessels, optic disc and cup, macula, four kinds of lesions.

All structures are drawn in every eye, whatever a data set annotates. Vessels are two to three times as thick as real
ones, so that they remain visible in small images. No value was tuned for a segmentation method.
"""

from dataclasses import dataclass

import numpy as np

from data.phantom.bodies.shapes import Shape
from data.phantom.devices.pictures import (
    Frame,
    Strand,
    correlated_noise,
    deform,
    ellipse,
    soft_mask,
    union_distance,
    waves,
)

FIELD_MM = 14.0  # diameter of what a camera of 45 to 50 degrees sees
LESIONS = ("EX", "HE", "SE", "MA")  # hard exudates, haemorrhages, soft exudates, microaneurysms
STRUCTURES = ("vessel", *LESIONS, "disc", "cup")
FUNDUS = np.array([0.80, 0.42, 0.20], np.float32)  # red, green, blue, 0 to 1, as all below
VESSEL, MACULA = np.array([0.50, 0.14, 0.08], np.float32), np.array([0.52, 0.24, 0.12], np.float32)
DISC, CUP = np.array([0.97, 0.70, 0.34], np.float32), np.array([1.0, 0.93, 0.74], np.float32)
LESION_COLOURS = {
    "EX": np.array([0.98, 0.88, 0.35], np.float32),
    "HE": np.array([0.36, 0.07, 0.06], np.float32),
    "SE": np.array([0.92, 0.80, 0.66], np.float32),
    "MA": np.array([0.40, 0.08, 0.06], np.float32),
}
LESION_MM = {"EX": (0.14, 0.34), "HE": (0.28, 0.55), "SE": (0.40, 0.70), "MA": (0.11, 0.16)}  # radii
N_LESIONS = {"EX": (6, 14), "HE": (3, 8), "SE": (2, 4), "MA": (6, 14)}
SOFT_MM = {"EX": 0.03, "HE": 0.06, "SE": 0.12, "MA": 0.03}  # softness of the outline


@dataclass(frozen=True, eq=False)
class Eye:
    """Outlines in mm from the middle of the field; x to the right of the image, y downwards.

    Attributes:
        disc, cup: the cup is within the disc.
        fovea: (2,) centre of the macula.
        vessels: pieces of the tree; their union are the vessels.
        lesions: kind -> outlines.
    """

    disc: Shape
    cup: Shape
    fovea: np.ndarray
    vessels: tuple[Strand, ...]
    lesions: dict[str, tuple[Shape, ...]]

    def masks(self, points: np.ndarray) -> dict[str, np.ndarray]:
        """Structure -> (H, W) bool; lesions of different kinds may overlap a little, the disc includes the cup."""
        outlines = {"vessel": self.vessels, **self.lesions, "disc": (self.disc,), "cup": (self.cup,)}
        return {name: union_distance(outlines[name], points) < 0 for name in STRUCTURES}


def draw_eye(rng: np.random.Generator, lacks: tuple[str, ...] = ()) -> Eye:
    """Samples an eye, left or right.

    Args:
        rng: of the patient.
        lacks: kinds of lesions that it has none of; all others are the same with and without them.
    """
    side = rng.choice([-1.0, 1.0])  # of the disc in the image
    centre = np.array([side * rng.uniform(2.3, 3.0), rng.uniform(-0.5, 0.5)])
    radii = rng.uniform(0.85, 1.05) * np.array([1.0, rng.uniform(1.02, 1.14)])
    disc = deform(ellipse(centre, radii), 0.02, 1.5, rng)
    cup = ellipse(centre + rng.normal(0, 0.06, 2), rng.uniform(0.40, 0.62) * radii)
    fovea = centre + np.array([-side * rng.uniform(4.0, 4.5), rng.uniform(0.1, 0.5)])
    vessels = tuple(_tree(centre, side, rng))
    lesions = {name: tuple(_lesions(name, centre, fovea, rng)) for name in LESIONS}
    return Eye(disc, cup, fovea, vessels, {name: () if name in lacks else lesions[name] for name in LESIONS})


def _tree(disc: np.ndarray, side: float, rng: np.random.Generator) -> list[Strand]:
    """Six trunks from the disc: four arch around the macula, two leave to the near side; each branches twice."""
    pieces: list[Strand] = []
    for up in (-1.0, 1.0):
        for angle, bend, n in ((0.40, 0.075, 4), (0.62, 0.055, 4), (-0.55, 0.03, 2)):
            # Angles are counted from the vertical towards the macula.
            towards = np.array([-side * np.sin(angle + rng.normal(0, 0.08)), up * np.cos(angle)])
            # Strands bend to the left of their direction where `bend` is above 0.
            turn = side * up * bend * rng.uniform(0.85, 1.15)
            radius = rng.uniform(0.19, 0.25) if angle > 0 else rng.uniform(0.13, 0.17)
            _grow(pieces, disc + 0.4 * towards, np.arctan2(towards[1], towards[0]), turn, radius, n, 2, rng)
    return pieces


def _grow(
    pieces: list[Strand],
    start: np.ndarray,
    angle_rad: float,
    bend: float,
    radius_mm: float,
    n_pieces: int,
    n_generations: int,
    rng: np.random.Generator,
) -> None:
    """Adds a vessel of ever thinner arcs, end to end, and the branches that leave it at their joints."""
    for number in range(n_pieces):
        half = rng.uniform(0.9, 1.2)
        piece = _arc(start, angle_rad, half, bend, radius_mm)
        pieces.append(piece)
        along = np.array([np.cos(piece.turn_rad), np.sin(piece.turn_rad)])
        start = piece.centre + half * along + bend * half**2 * np.array([-along[1], along[0]])
        angle_rad = piece.turn_rad + np.arctan(2 * bend * half)
        radius_mm *= 0.86
        if n_generations:
            fork = angle_rad + (1 if number % 2 else -1) * rng.uniform(0.5, 0.9)
            _grow(pieces, start, fork, rng.normal(0, 0.06), 0.62 * radius_mm, 2, n_generations - 1, rng)


def _arc(start: np.ndarray, angle_rad: float, half_mm: float, bend: float, radius_mm: float) -> Strand:
    """The strand that begins at a point in a direction."""
    turn = angle_rad + np.arctan(2 * bend * half_mm)
    along = np.array([np.cos(turn), np.sin(turn)])
    across = np.array([-along[1], along[0]])
    return Strand(start + half_mm * along - bend * half_mm**2 * across, float(turn), half_mm, bend, radius_mm)


def _lesions(name: str, disc: np.ndarray, fovea: np.ndarray, rng: np.random.Generator) -> list[Shape]:
    """Lesions of a kind within the field, none on the disc; hard exudates gather around the macula."""
    count = rng.integers(*N_LESIONS[name], endpoint=True)
    places = fovea + rng.normal(0, 1.2, (60, 2)) if name == "EX" else rng.uniform(-5.2, 5.2, (60, 2))
    fits = (np.hypot(*places.T) < 5.3) & (np.hypot(*(places - disc).T) > 1.9)
    shapes = []
    for place in places[fits][:count]:
        radius = rng.uniform(*LESION_MM[name])
        body = ellipse(place, radius * np.array([1.0, rng.uniform(0.7, 1.0)]), rng.uniform(0, np.pi))
        shapes.append(body if name == "MA" else deform(body, 0.12 * radius, 1.6 * radius, rng))
    return shapes


def colours(eye: Eye, frame: Frame, points: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """RGB (H, W, 3) float32 in [0, 1] under even white light, without the black surroundings of the field.

    Args:
        eye: what is seen.
        frame: its pixel grid.
        points: (2, H, W) mm, of the grid.
        rng: for the texture.
    """
    texture = 0.06 * waves(points, 4.0, rng) + 0.04 * correlated_noise(points.shape[1:], 0.25 / frame.pixel_mm, rng)
    image = FUNDUS * (1 + texture[..., None] + 0.05 * waves(points, 10.0, rng)[..., None])

    def paint(colour: np.ndarray, opacity: np.ndarray) -> None:
        image[...] += opacity[..., None] * (colour - image)

    paint(MACULA, 0.6 * np.exp(-((np.hypot(*(points - _column(eye.fovea))) / 1.3) ** 2)))
    disc, cup = (each.distance(points) for each in (eye.disc, eye.cup))
    paint(DISC, soft_mask(disc, 0.06))
    paint(CUP, 0.9 * soft_mask(cup, 0.06))
    over_disc = 1 - 0.55 * soft_mask(disc, 0.1)  # so that disc and cup show between their vessels
    paint(VESSEL, 0.85 * over_disc * soft_mask(union_distance(eye.vessels, points), 0.035))
    for name in LESIONS:
        outline = union_distance(eye.lesions[name], points)
        paint(LESION_COLOURS[name], 0.9 * soft_mask(outline, SOFT_MM[name]))
    return image.clip(0, 1).astype(np.float32)


def _column(point: np.ndarray) -> np.ndarray:
    return point.astype(np.float32)[:, None, None]
