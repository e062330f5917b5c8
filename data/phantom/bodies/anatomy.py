"""A patient as a list of analytic bodies: label maps on any grid, including oblique ones, and exact organ volumes.

Patient coordinates in mm: x to the right, y to the front, z to the head (RAS+). The origin is the middle of the trunk
at the height of the kidneys, for standard build. Bodies are listed in painting order: later ones overwrite earlier
ones, so that neighbouring organs touch without gap or overlap.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from data.phantom.bodies.shapes import Shape, Waves


@dataclass(frozen=True, eq=False)
class Structure:
    """A body of one tissue that belongs to an organ ("": not labelled in any data set)."""

    organ: str
    tissue: str
    shape: Shape
    brightness: float = 0.0  # deviation from the tissue's mean, in standard deviations between patients
    forward_mm: float = 0.0  # by which it is moved to the front, in standard mm, with unchanged size and form


@dataclass(frozen=True, eq=False)
class Patient:
    """Bodies in a standard coordinate frame, with a patient-specific scaling and smooth warp of that frame."""

    structures: tuple[Structure, ...]
    stretch: np.ndarray  # (3,) patient mm per standard mm
    warp: Waves
    middle_mm: np.ndarray = field(default_factory=lambda: np.zeros(3))  # (3,) of the trunk, where images are centred

    def to_standard(self, points: np.ndarray) -> np.ndarray:
        """Maps patient coordinates (3, ...) to the standard frame of the bodies."""
        stretched = points / self.stretch.astype(np.float32).reshape(3, *[1] * (points.ndim - 1))
        return stretched + self.warp.at(points)

    def move_mm(self, structure: Structure) -> np.ndarray:
        """By which a structure is moved, (3,) in patient mm."""
        return np.array([0, structure.forward_mm, 0]) * self.stretch

    def box(self, structure: Structure) -> np.ndarray:
        """Bounding box (2, 3) of `structure`: lowest and highest corner in patient mm."""
        reach = self.warp.reach_mm
        return (structure.shape.bounds + np.array([[-reach], [reach]])) * self.stretch + self.move_mm(structure)

    def organ_box(self, organs: tuple[str, ...]) -> np.ndarray:
        """Bounding box (2, 3) of `organs`: lowest and highest corner in patient mm."""
        boxes = np.stack([self.box(structure) for structure in self.structures if structure.organ in organs])
        return np.stack([boxes[:, 0].min(0), boxes[:, 1].max(0)])

    def visit(
        self, affine: np.ndarray, grid: tuple[int, int, int], begin: int = 0
    ) -> Iterator[tuple[Structure, tuple[slice, ...], np.ndarray]]:
        """Yields the structures in painting order, each with the part of the grid that contains it.

        Args:
            affine: (4, 4), voxel (x, y, z, 1) to patient mm.
            grid: (D, H, W).
            begin: index of the first structure.

        Yields:
            Structure, slices of (D, H, W) around it, and its signed distance in mm in this window.
        """
        structures = self.structures[begin:]
        moves = {each.forward_mm: self.move_mm(each) for each in structures}
        points = {forward: self.to_standard(grid_points(affine, grid, -move)) for forward, move in moves.items()}
        for structure in structures:
            window = _window(self.box(structure), affine, grid)
            if all(part.stop > part.start for part in window):
                yield structure, window, structure.shape.distance(points[structure.forward_mm][(slice(None), *window)])

    def labels(self, affine: np.ndarray, grid: tuple[int, int, int], values: dict[str, int]) -> np.ndarray:
        """Label map (D, H, W) uint8 of the organs in `values` at the voxel centres; 0 elsewhere."""
        labels = np.zeros(grid, np.uint8)
        is_requested = [structure.organ in values for structure in self.structures]
        # structures before the first requested one do not change the labels
        begin = is_requested.index(True) if any(is_requested) else len(is_requested)
        for structure, window, distance in self.visit(affine, grid, begin):
            labels[window][distance < 0] = values.get(structure.organ, 0)
        return labels

    def volumes_ml(self, organs: tuple[str, ...], spacing_mm: float = 1.5) -> dict[str, float]:
        """Volumes of `organs`, by sampling the bodies on a fine grid."""
        low, high = self.organ_box(organs)
        size = np.ceil((high - low) / spacing_mm).astype(int)
        affine = np.diag([spacing_mm] * 3 + [1.0])
        affine[:3, 3] = low + spacing_mm / 2
        values = {organ: value for value, organ in enumerate(organs, 1)}
        labels = self.labels(affine, (int(size[2]), int(size[1]), int(size[0])), values)
        counts = np.bincount(labels.ravel(), minlength=len(organs) + 1)
        return {organ: float(counts[value]) * spacing_mm**3 / 1000 for organ, value in values.items()}


def grid_points(affine: np.ndarray, grid: tuple[int, int, int], move_mm: np.ndarray | float = 0.0) -> np.ndarray:
    """Patient coordinates (3, D, H, W) float32 in mm of the voxel centres of a grid, moved by (3,) mm."""
    z, y, x = (np.arange(size, dtype=np.float64) for size in grid)
    x_part, y_part, z_part = (affine[:3, axis, None, None, None] for axis in range(3))
    origin = (affine[:3, 3] + move_mm)[:, None, None, None]
    points = x_part * x + y_part * y[:, None] + z_part * z[:, None, None] + origin
    return points.astype(np.float32)


def box_corners(box: np.ndarray) -> np.ndarray:
    """Corners (3, 8) of a box given by its lowest and highest corner (2, 3)."""
    return np.stack(np.meshgrid(*box.T, indexing="ij")).reshape(3, -1)


def _window(box: np.ndarray, affine: np.ndarray, grid: tuple[int, int, int]) -> tuple[slice, ...]:
    grid_corners = affine[:3, :3] @ box_corners(np.array([[0, 0, 0], grid[::-1]])) + affine[:3, 3:]
    box = np.clip(box, grid_corners.min(1), grid_corners.max(1))
    indices = np.linalg.solve(affine[:3, :3], box_corners(box) - affine[:3, 3:])[::-1]
    low = np.clip(np.floor(indices.min(1)) - 1, 0, grid).astype(int)
    high = np.clip(np.ceil(indices.max(1)) + 2, 0, grid).astype(int)
    return tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))
