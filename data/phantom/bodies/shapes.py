"""Analytic shapes as signed distance functions in mm that can be combined, deformed and sampled on any grid.

Points are float32 arrays (3, ...) in mm: x to the patient's right, y to the front, z to the head (RAS+). Outlines in
images use the same classes with two axes, points (2, ...); see `data.phantom.devices.pictures`.
Distances are negative inside and first-order accurate near the surface, which is sufficient for rasterisation.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import numpy as np

Layer = tuple[str, np.ndarray]  # tissue, and the signed distance (H, W) to its outline in mm


class Shape(ABC):
    """A shape with a signed distance function and a bounding box."""

    @abstractmethod
    def distance(self, points: np.ndarray) -> np.ndarray:
        """Signed distance (...) in mm of points (3, ...), negative inside."""

    @property
    @abstractmethod
    def bounds(self) -> np.ndarray:
        """Bounding box (2, 3), lowest and highest corner in mm; infinite where the shape is unbounded."""


@dataclass(frozen=True, eq=False)
class Superquadric(Shape):
    """|x/a|^n + |y/b|^n + |z/c|^n = 1, rotated and shifted; n = 2 is an ellipsoid, an infinite radius gives a cylinder.

    If `is_open_below`, the central cross-section is extended downwards indefinitely, as a vault on vertical walls.
    """

    centre: np.ndarray  # (3,) mm
    radii: np.ndarray  # (3,) mm
    rotation: np.ndarray = field(default_factory=lambda: np.eye(3))  # columns: principal axes
    exponent: float = 2.0
    is_open_below: bool = False

    def distance(self, points: np.ndarray) -> np.ndarray:
        """See `Shape`."""
        centred = points - _column(self.centre, points)
        local = np.tensordot(self.rotation.T.astype(np.float32), centred, axes=1)
        if self.is_open_below:
            local[2] = np.maximum(local[2], 0)
        radii = _column(self.radii, points)
        scaled = np.maximum(np.abs(local) / radii, 1e-6)
        radius = (scaled**self.exponent).sum(0) ** (1 / self.exponent)
        gradient = scaled ** (self.exponent - 1) / radii * radius ** (1 - self.exponent)
        return (radius - 1) / np.sqrt((gradient**2).sum(0))

    @property
    def bounds(self) -> np.ndarray:
        """See `Shape`; tight for ellipsoids, larger than necessary for n > 2."""
        if np.isfinite(self.radii).all():
            own_axes = self.rotation * self.radii
            reach = np.linalg.norm(own_axes, axis=1) if self.exponent <= 2 else np.abs(own_axes).sum(1)
        else:
            reach = np.where(np.isfinite(self.radii), np.max(self.radii[np.isfinite(self.radii)]), np.inf)
        box = np.stack([self.centre - reach, self.centre + reach])
        if self.is_open_below:
            box[0, 2] = -np.inf
        return box


@dataclass(frozen=True, eq=False)
class Tube(Shape):
    """A tube of varying width along a polyline: vessels, bowel, limbs of glands."""

    path: np.ndarray  # (M, 3) mm
    radii: np.ndarray  # (M,) mm

    def distance(self, points: np.ndarray) -> np.ndarray:
        """See `Shape`."""
        nearest = np.full(points.shape[1:], np.inf, np.float32)
        for start, end, r_start, r_end in zip(self.path, self.path[1:], self.radii, self.radii[1:], strict=False):
            axis = np.asarray(end - start, np.float32)
            centred = points - _column(start, points)
            along = np.clip(np.tensordot(axis, centred, axes=1) / (axis @ axis), 0, 1)
            centred -= _column(axis, points) * along
            width = np.float32(r_start) + np.float32(r_end - r_start) * along
            nearest = np.minimum(nearest, np.sqrt((centred**2).sum(0)) - width)
        return nearest

    @property
    def bounds(self) -> np.ndarray:
        """See `Shape`."""
        radii = self.radii[:, None]
        return np.stack([(self.path - radii).min(0), (self.path + radii).max(0)])


@dataclass(frozen=True, eq=False)
class Union(Shape):
    """Union of shapes; `blend_mm` rounds the transitions (polynomial smooth minimum)."""

    parts: tuple[Shape, ...]
    blend_mm: float = 0.0

    def distance(self, points: np.ndarray) -> np.ndarray:
        """See `Shape`."""
        result = self.parts[0].distance(points)
        for part in self.parts[1:]:
            result = _smooth_minimum(result, part.distance(points), self.blend_mm)
        return result

    @property
    def bounds(self) -> np.ndarray:
        """See `Shape`."""
        boxes = np.stack([part.bounds for part in self.parts])
        return np.stack([boxes[:, 0].min(0) - self.blend_mm, boxes[:, 1].max(0) + self.blend_mm])


@dataclass(frozen=True, eq=False)
class Intersection(Shape):
    """Intersection of shapes."""

    parts: tuple[Shape, ...]

    def distance(self, points: np.ndarray) -> np.ndarray:
        """See `Shape`."""
        return np.maximum.reduce([part.distance(points) for part in self.parts])

    @property
    def bounds(self) -> np.ndarray:
        """See `Shape`."""
        boxes = np.stack([part.bounds for part in self.parts])
        return np.stack([boxes[:, 0].max(0), boxes[:, 1].min(0)])


@dataclass(frozen=True, eq=False)
class Difference(Shape):
    """`body` without `tool`; `blend_mm` rounds the edge."""

    body: Shape
    tool: Shape
    blend_mm: float = 0.0

    def distance(self, points: np.ndarray) -> np.ndarray:
        """See `Shape`."""
        return -_smooth_minimum(-self.body.distance(points), self.tool.distance(points), self.blend_mm)

    @property
    def bounds(self) -> np.ndarray:
        """See `Shape`."""
        return self.body.bounds


@dataclass(frozen=True, eq=False)
class Offset(Shape):
    """`body` dilated by `by_mm`, or eroded if negative."""

    body: Shape
    by_mm: float

    def distance(self, points: np.ndarray) -> np.ndarray:
        """See `Shape`."""
        return self.body.distance(points) - np.float32(self.by_mm)

    @property
    def bounds(self) -> np.ndarray:
        """See `Shape`; dilated twice as far, because distances are inaccurate far from the surface."""
        margin = 2 * max(self.by_mm, 0)
        return self.body.bounds + np.array([[-margin], [margin]])


@dataclass(frozen=True, eq=False)
class Slabs(Shape):
    """Intersection of `body` with slabs repeated every `period_mm` along `normal`: ribs, vertebral discs."""

    body: Shape
    normal: np.ndarray  # (3,) unit length
    period_mm: float
    thickness_mm: float
    phase_mm: float = 0.0

    def distance(self, points: np.ndarray) -> np.ndarray:
        """See `Shape`."""
        height = np.tensordot(self.normal.astype(np.float32), points, axes=1) + np.float32(self.phase_mm)
        from_slab = np.abs(height % np.float32(self.period_mm) - np.float32(self.period_mm / 2))
        return np.maximum(self.body.distance(points), from_slab - np.float32(self.thickness_mm / 2))

    @property
    def bounds(self) -> np.ndarray:
        """See `Shape`."""
        return self.body.bounds


@dataclass(frozen=True, eq=False)
class Elongated(Shape):
    """`body` cut in the planes through `centre` and pulled apart; the gap is filled by its cross-section there."""

    body: Shape
    centre: np.ndarray  # (3,) mm
    low_mm: np.ndarray  # (3,) by which the parts below the centre move, 0 or less
    high_mm: np.ndarray  # (3,) by which the parts above it move, 0 or more

    def distance(self, points: np.ndarray) -> np.ndarray:
        """See `Shape`."""
        low, high = _column(self.low_mm, points), _column(self.high_mm, points)
        return self.body.distance(points - np.clip(points - _column(self.centre, points), low, high))

    @property
    def bounds(self) -> np.ndarray:
        """See `Shape`."""
        return self.body.bounds + np.stack([self.low_mm, self.high_mm])


@dataclass(frozen=True, eq=False)
class Waves:
    """A smooth random vector field: a sum of plane waves.

    `vectors` (N, 3) in radians per mm, `phases` (N,), `amplitudes` (N, C) in mm.
    """

    vectors: np.ndarray
    phases: np.ndarray
    amplitudes: np.ndarray

    @classmethod
    def draw(
        cls, rng: np.random.Generator, amplitude_mm: float, length_mm: float, channels: int = 1, n_axes: int = 3
    ) -> "Waves":
        """Samples five waves of about `length_mm`; their sum has a standard deviation of `amplitude_mm` per channel."""
        count = 5
        directions = rng.normal(size=(count, n_axes))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        lengths = length_mm * rng.uniform(0.7, 1.4, (count, 1))
        amplitudes = rng.normal(size=(count, channels))
        amplitudes *= amplitude_mm * np.sqrt(2) / np.linalg.norm(amplitudes, axis=0)
        return cls(2 * np.pi / lengths * directions, rng.uniform(0, 2 * np.pi, count), amplitudes)

    def at(self, points: np.ndarray) -> np.ndarray:
        """Values (C, ...) in mm at points (3, ...)."""
        phase = np.tensordot(self.vectors.astype(np.float32), points, axes=1)
        waves = np.sin(phase + self.phases.astype(np.float32).reshape(-1, *[1] * (points.ndim - 1)))
        return np.tensordot(self.amplitudes.T.astype(np.float32), waves, axes=1)

    @property
    def reach_mm(self) -> float:
        """Upper bound of the absolute value of each channel."""
        return float(np.abs(self.amplitudes).sum(0).max())


@dataclass(frozen=True, eq=False)
class Deformed(Shape):
    """`body` with a smoothly deformed surface."""

    body: Shape
    offset: Waves  # of the surface, one channel

    def distance(self, points: np.ndarray) -> np.ndarray:
        """See `Shape`."""
        return self.body.distance(points) - self.offset.at(points)[0]

    @property
    def bounds(self) -> np.ndarray:
        """See `Shape`."""
        reach = 2 * self.offset.reach_mm
        return self.body.bounds + np.array([[-reach], [reach]])


def _column(values: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.asarray(values, np.float32).reshape(len(like), *[1] * (like.ndim - 1))


def _smooth_minimum(first: np.ndarray, second: np.ndarray, blend_mm: float) -> np.ndarray:
    if blend_mm == 0:
        return np.minimum(first, second)
    blend = np.float32(blend_mm)
    mix = np.clip(0.5 + 0.5 * (second - first) / blend, 0, 1)
    return second + (first - second) * mix - blend * mix * (1 - mix)
