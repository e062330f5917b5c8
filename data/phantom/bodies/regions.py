"""Regions of the trunk that contain the organs of the upper abdomen, for any build."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from data.phantom.bodies.anatomy import Structure
from data.phantom.bodies.build import Build
from data.phantom.bodies.shapes import (
    Difference,
    Elongated,
    Intersection,
    Offset,
    Shape,
    Superquadric,
    Union,
)

WALL_GAP_MM = 1.5  # distance between organs and the abdominal wall
SKIN_MM = 2.5
BACK_MM = 102.0  # from the origin to the surface of the muscles beside the spine
ON_THE_SPINE = ("aorta",)  # tissues that stay where they are in every build


@dataclass(frozen=True, eq=False)
class Regions:
    """Regions of the trunk that contain the organs.

    Organs are described as those of a patient of standard build; `place` moves them to where they lie.
    """

    trunk: Shape
    wall: Shape
    oval: Shape  # the cavity before subtracting the spine
    cavity: Shape
    diaphragm: Shape
    abdomen: Shape  # the cavity below the diaphragm, of a standard build
    forward_mm: float  # by how much organs are moved
    middle_mm: np.ndarray  # (3,) of the trunk

    def clip(self, shape: Shape) -> Intersection:
        """Intersection of `shape` with the abdomen."""
        return Intersection((shape, self.abdomen))

    def place(self, structure: Structure) -> Structure:
        """An organ at its place in this build."""
        return structure if structure.tissue in ON_THE_SPINE else replace(structure, forward_mm=self.forward_mm)


def draw_regions(rng: np.random.Generator, build: Build | None) -> Regions:
    """Samples the regions; None: the standard build, whose subcutaneous fat is sampled too."""
    width, depth, wall_mm = rng.normal(136, 4), rng.normal(86, 4), rng.uniform(8, 11)
    fat_side, fat_front = rng.uniform(8, 24), rng.uniform(8, 26)
    oval = Superquadric(np.array([0, 8, 0]), np.array([width, depth, np.inf]), exponent=2.3)
    hump = Superquadric(np.array([0, -66, 0]), np.array([50, 40, np.inf]))
    back = [Superquadric(np.array([x, -80, 0]), np.array([31, 22, np.inf]), exponent=2.4) for x in (-34, 34)]
    vaults = [
        Superquadric(
            np.array([side * 66, 4, 10]), np.array([92, 102, rng.normal(top, 5)]), exponent=2.3, is_open_below=True
        )
        for side, top in ((1, 106), (-1, 94))
    ]
    vault = Union(tuple(vaults), blend_mm=20.0)
    abdomen = Intersection((Offset(Difference(oval, hump, blend_mm=14.0), -WALL_GAP_MM), vault))
    enlarge = _enlargement(build)
    oval, vault = enlarge(oval), enlarge(vault)
    wall = Union((Offset(oval, wall_mm), *back), blend_mm=6.0)
    centre, radii = np.array([0, 1, 0]), np.array([width + wall_mm + fat_side, depth + wall_mm + 8 + fat_front, np.inf])
    trunk: Shape = Superquadric(centre, radii, exponent=2.25)
    middle_mm = np.zeros(3)
    if build is not None:
        outline = _outline(build, width + wall_mm, 8 + depth + wall_mm)
        trunk, middle_mm = Union((outline, Offset(wall, SKIN_MM))), outline.centre
    return Regions(
        trunk=trunk,
        wall=wall,
        oval=oval,
        cavity=Difference(oval, hump, blend_mm=14.0),
        diaphragm=Offset(vault, 3.0),
        abdomen=abdomen,
        forward_mm=build.forward_mm if build else 0.0,
        middle_mm=middle_mm,
    )


def _enlargement(build: Build | None) -> Callable[[Shape], Shape]:
    """What makes room for fat: the wall is pulled apart at the widest place of the cavity."""
    if build is None:
        return lambda shape: shape
    visceral = build.visceral_mm / build.scale
    high = np.array([visceral, visceral + build.forward_mm, 0])
    return lambda shape: Elongated(shape, np.array([0, 8, 0]), np.array([-visceral, 0, 0]), high)


def _outline(build: Build, width: float, front: float) -> Superquadric:
    """The outline of the body around muscles of a half width and a reach to the front, both of a standard build."""
    side, at_front, at_back, visceral = (
        fat / build.scale for fat in (build.side_mm, build.front_mm, build.back_mm, build.visceral_mm)
    )
    high, low = front + build.forward_mm + visceral + at_front, -BACK_MM - at_back
    radii = np.array([width + visceral + side, (high - low) / 2, np.inf])
    return Superquadric(np.array([0, (high + low) / 2, 0]), radii, exponent=2.25)
