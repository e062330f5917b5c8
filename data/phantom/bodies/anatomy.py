"""A patient as a list of analytic bodies: labels and known volumes on any grid, at any obliqueness.

Millimetres in the patient: x to the right, y to the front, z to the head (RAS+); the origin is the middle of the trunk
at the height of the kidneys. Bodies are listed in painting order: each takes its place from those before it, so that
neighbours touch without gap or overlap.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from data.phantom.bodies.shapes import Shape, Waves


@dataclass(frozen=True, eq=False)
class Structure:
    """A body made of one tissue, belonging to an organ ("" for what no data set ever labels)."""

    organ: str
    tissue: str
    shape: Shape
    shade: float = 0.0  # this patient's brightness, in standard deviations between patients


@dataclass(frozen=True, eq=False)
class Patient:
    """Bodies in a standard frame, and the patient's own stretch and smooth warp of that frame."""

    structures: tuple[Structure, ...]
    stretch: np.ndarray  # (3,) patient mm per standard mm
    warp: Waves

    def to_standard(self, points: np.ndarray) -> np.ndarray:
        """Maps patient points (3, ...) to the frame in which the bodies are described."""
        stretched = points / self.stretch.astype(np.float32).reshape(3, *[1] * (points.ndim - 1))
        return stretched + self.warp.at(points)

    def box(self, shape: Shape) -> np.ndarray:
        """(2, 3) corners in patient mm of a box that holds `shape`."""
        reach = self.warp.reach_mm
        return (shape.bounds + np.array([[-reach], [reach]])) * self.stretch

    def organ_box(self, organs: tuple[str, ...]) -> np.ndarray:
        """(2, 3) corners in patient mm of a box that holds all of `organs`."""
        boxes = np.stack([self.box(structure.shape) for structure in self.structures if structure.organ in organs])
        return np.stack([boxes[:, 0].min(0), boxes[:, 1].max(0)])

    def visit(
        self, affine: np.ndarray, grid: tuple[int, int, int], begin: int = 0
    ) -> Iterator[tuple[Structure, tuple[slice, ...], np.ndarray]]:
        """Yields, in painting order, each structure on the grid with the part of the grid it can touch.

        Args:
            affine: (4, 4), voxel (x, y, z, 1) to patient mm.
            grid: (D, H, W).
            begin: position of the first structure to visit.

        Yields:
            The structure, the slices of (D, H, W) around it, and its signed distance in mm within them.
        """
        points = self.to_standard(grid_points(affine, grid))
        for structure in self.structures[begin:]:
            window = _window(self.box(structure.shape), affine, grid)
            if all(part.stop > part.start for part in window):
                yield structure, window, structure.shape.distance(points[(slice(None), *window)])

    def labels(self, affine: np.ndarray, grid: tuple[int, int, int], values: dict[str, int]) -> np.ndarray:
        """Labels (D, H, W) uint8: the value of the organ at each voxel's centre, 0 where there is none."""
        labels = np.zeros(grid, np.uint8)
        is_asked = [structure.organ in values for structure in self.structures]
        begin = is_asked.index(True) if any(is_asked) else len(is_asked)  # what lies below leaves no trace
        for structure, window, distance in self.visit(affine, grid, begin):
            labels[window][distance < 0] = values.get(structure.organ, 0)
        return labels

    def volumes_ml(self, organs: tuple[str, ...], spacing_mm: float = 1.5) -> dict[str, float]:
        """Volumes of `organs` as the bodies define them, by sampling them much finer than any scan does."""
        low, high = self.organ_box(organs)
        size = np.ceil((high - low) / spacing_mm).astype(int)
        affine = np.diag([spacing_mm] * 3 + [1.0])
        affine[:3, 3] = low + spacing_mm / 2
        values = {organ: value for value, organ in enumerate(organs, 1)}
        labels = self.labels(affine, (int(size[2]), int(size[1]), int(size[0])), values)
        counts = np.bincount(labels.ravel(), minlength=len(organs) + 1)
        return {organ: float(counts[value]) * spacing_mm**3 / 1000 for organ, value in values.items()}


def grid_points(affine: np.ndarray, grid: tuple[int, int, int]) -> np.ndarray:
    """Patient mm (3, D, H, W) float32 of every voxel centre of a grid."""
    z, y, x = (np.arange(size, dtype=np.float64) for size in grid)
    x_part, y_part, z_part = (affine[:3, axis, None, None, None] for axis in range(3))
    points = x_part * x + y_part * y[:, None] + z_part * z[:, None, None] + affine[:3, 3, None, None, None]
    return points.astype(np.float32)


def corners_of(box: np.ndarray) -> np.ndarray:
    """The eight corners (3, 8) of a box given by its lowest and highest corner (2, 3)."""
    return np.stack(np.meshgrid(*box.T, indexing="ij")).reshape(3, -1)


def _window(box: np.ndarray, affine: np.ndarray, grid: tuple[int, int, int]) -> tuple[slice, ...]:
    grid_corners = affine[:3, :3] @ corners_of(np.array([[0, 0, 0], grid[::-1]])) + affine[:3, 3:]
    box = np.clip(box, grid_corners.min(1), grid_corners.max(1))
    indices = np.linalg.solve(affine[:3, :3], corners_of(box) - affine[:3, 3:])[::-1]
    low = np.clip(np.floor(indices.min(1)) - 1, 0, grid).astype(int)
    high = np.clip(np.ceil(indices.max(1)) + 2, 0, grid).astype(int)
    return tuple(slice(start, stop) for start, stop in zip(low, high, strict=True))
