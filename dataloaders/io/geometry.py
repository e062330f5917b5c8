"""Moves scans between grids: flips, crops and resampling that keep each voxel at its place in the patient."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk  # noqa: N813
from nibabel.orientations import (
    aff2axcodes,
    apply_orientation,
    axcodes2ornt,
    inv_ornt_aff,
    io_orientation,
    ornt_transform,
)
from scipy import ndimage

from dataloaders.rules import STORED
from dataloaders.samples import Volume
from util.errors import DataError

SizeRule = Literal["clean", "reference"]
MOST_VOXELS = 2**30  # of a grid made here, such as 16384 slices of 256 x 256


@dataclass(frozen=True)
class Grid:
    """Shape and affine of a scan, without its voxels."""

    shape: tuple[int, int, int]  # (D, H, W)
    affine: np.ndarray  # (4, 4), as in `Volume`

    @classmethod
    def of(cls, volume: Volume) -> "Grid":
        """The grid of a volume."""
        depth, height, width = volume.array.shape
        return cls((depth, height, width), volume.affine)

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along (z, y, x)."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return z, y, x

    def to_json(self) -> dict[str, Any]:
        """The grid in lists and numbers."""
        return {"shape": list(self.shape), "affine": self.affine.tolist()}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Grid":
        """The grid that `to_json` described."""
        depth, height, width = content["shape"]
        return cls((depth, height, width), np.array(content["affine"], np.float64))


def corner_distance_mm(first: Grid, second: Grid) -> float:
    """The largest distance between corresponding corner voxels of two grids; infinite where their shapes differ."""
    if first.shape != second.shape:
        return float("inf")
    depth, height, width = first.shape
    corners = np.array(list(product((0, width - 1), (0, height - 1), (0, depth - 1), (1,))), np.float64)
    return float(np.linalg.norm(corners @ (first.affine - second.affine).T, axis=1).max())


def reorient(volume: Volume, axis_codes: str) -> Volume:
    """Flips and swaps axes so that columns, rows and slices count in the named directions, as nearly as they can.

    Args:
        volume: in any orientation, oblique too; nothing is interpolated.
        axis_codes: three of L/R, P/A, I/S for columns, rows and slices, e.g. "LAS"; "stored": nothing is changed.
    """
    array, affine = _turned(volume.array, volume.affine, axis_codes)
    return Volume(np.ascontiguousarray(array), affine)


def reorient_grid(grid: Grid, axis_codes: str) -> Grid:
    """The grid that a volume has after `reorient`."""
    array, affine = _turned(np.broadcast_to(np.uint8(0), grid.shape), grid.affine, axis_codes)
    depth, height, width = array.shape
    return Grid((depth, height, width), affine)


def _turned(array: np.ndarray, affine: np.ndarray, axis_codes: str) -> tuple[np.ndarray, np.ndarray]:
    """Array and affine of `reorient`; a view."""
    if axis_codes == STORED:
        return array, affine
    change = ornt_transform(io_orientation(affine), axcodes2ornt(tuple(axis_codes)))
    columns_first = array.transpose(2, 1, 0)
    turned = apply_orientation(columns_first, change).transpose(2, 1, 0)
    return turned, affine @ inv_ornt_aff(change, columns_first.shape)


def on_grid_of(image: Volume, label: Volume, axis_codes: str, image_name: str = "the image") -> Volume:
    """Reorients a label map and gives it the affine of its reoriented image.

    Image and label map may count their axes in different directions, but must have one grid, up to a voxel.

    Args:
        image: the scan.
        label: its label map or mask.
        axis_codes: see `reorient`.
        image_name: for the message.

    Raises:
        DataError: they have different grids; the message does not name the label's file.
    """
    codes = "".join(aff2axcodes(image.affine)) if axis_codes == STORED else axis_codes
    turned, wanted = reorient(label, codes), reorient_grid(Grid.of(image), codes)
    require_one_grid(image, label, corner_distance_mm(Grid.of(turned), wanted), image_name)
    return Volume(turned.array, wanted.affine)


def require_one_grid(image: Volume, label: Volume, distance_mm: float, image_name: str) -> None:
    """Checks that a label map has the grid of its image, up to a voxel.

    Args:
        image: the scan.
        label: its label map, as stored.
        distance_mm: see `corner_distance_mm`.
        image_name: for the message.

    Raises:
        DataError: it has another one; the message tells how to mend it, and does not name the label's file.
    """
    if distance_mm <= min(image.spacing_mm):
        return
    apart = f", {distance_mm:.3g} mm from the image's" if np.isfinite(distance_mm) else ", unlike the image's"
    raise DataError(
        f"a grid of {label.array.shape} voxels (D, H, W){apart}, {image.array.shape}; expected the grid of "
        f"{image_name}. {_grid_remedy(image, label)}"
    )


def _grid_remedy(image: Volume, label: Volume) -> str:
    if label.array.shape != image.array.shape:
        return "Resample the label map to the image with nearest neighbours, or name the image that it belongs to."
    if _has_no_position(label):
        return (
            "The label map has the image's shape but no position (voxels of 1 mm along the axes): copy the image's "
            "header to it. Do not resample it: that would empty it."
        )
    return (
        "The label map has the image's shape: if it was drawn on this image, copy the image's header to it; else "
        "resample it with nearest neighbours."
    )


def _has_no_position(volume: Volume) -> bool:
    """Whether the affine is that of programs which know of none: unit voxels along the patient's axes, or no codes."""
    is_uncoded = volume.stored is not None and not (volume.stored.sform_code or volume.stored.qform_code)
    return is_uncoded or np.allclose(np.abs(volume.affine[:3, :3]), np.eye(3), atol=1e-6)


def remove_border(volume: Volume, fraction: float) -> Volume:
    """Removes a fraction of the rows and of the columns on each side."""
    _, height, width = volume.array.shape
    rows, columns = round(height * fraction), round(width * fraction)
    cut = volume.array[:, rows : height - rows, columns : width - columns]
    return Volume(np.ascontiguousarray(cut), _shifted(volume.affine, columns, rows))


def crop_or_pad(volume: Volume, size_px: int, fill: float) -> Volume:
    """Crops or pads rows and columns to `size_px`; the central one, n // 2, moves to `size_px` // 2."""
    depth, *in_plane = volume.array.shape
    _check_grid(volume, (depth, size_px, size_px))
    starts = [length // 2 - size_px // 2 for length in in_plane]
    source = tuple(slice(max(s, 0), min(s + size_px, n)) for s, n in zip(starts, in_plane, strict=True))
    target = tuple(slice(part.start - s, part.stop - s) for part, s in zip(source, starts, strict=True))
    array = np.full((depth, size_px, size_px), fill, volume.array.dtype)
    array[:, *target] = volume.array[:, *source]
    return Volume(array, _shifted(volume.affine, starts[1], starts[0]))


def resample_image(volume: Volume, spacing_mm: tuple[float, float, float], size_rule: SizeRule = "clean") -> Volume:
    """Resamples linearly to another spacing; the first voxel stays where it is, 0 comes from outside the scan.

    Interpolation runs along the array's own axes, whatever their directions in the patient: oblique and sheared scans
    are as good as straight ones. Integers stay integers, truncated, as in the reference.

    Raises:
        DataError: more than `MOST_VOXELS` voxels.
    """
    size = _resampled_shape(volume.array.shape, volume.spacing_mm, spacing_mm, size_rule)[::-1]
    _check_grid(volume, size[::-1])
    image = sitk.GetImageFromArray(volume.array)
    image.SetOrigin(volume.affine[:3, 3].tolist())
    image.SetSpacing(volume.spacing_mm[::-1])
    origin, direction = image.GetOrigin(), image.GetDirection()
    resampled = sitk.Resample(image, size, sitk.Transform(), sitk.sitkLinear, origin, spacing_mm[::-1], direction, 0)
    z, y, x = np.divide(spacing_mm, volume.spacing_mm)
    return Volume(sitk.GetArrayFromImage(resampled), volume.affine @ np.diag([x, y, z, 1.0]))


def resample_label(volume: Volume, spacing_mm: tuple[float, float, float], size_rule: SizeRule = "clean") -> Volume:
    """Resamples each label's mask linearly and keeps what exceeds one half."""
    result = resample_image(Volume(np.zeros_like(volume.array), volume.affine), spacing_mm, size_rule)
    for value in np.unique(volume.array[volume.array > 0]):
        mask = Volume((volume.array == value).astype(np.float32), volume.affine)
        result.array[resample_image(mask, spacing_mm, size_rule).array > 0.5] = value
    return result


def _resampled_shape(
    shape: Sequence[int], old_mm: Sequence[float], new_mm: Sequence[float], size_rule: SizeRule
) -> tuple[int, ...]:
    """How many samples each axis has; "clean" counts those within the outer faces of the scan's voxels."""
    slack = 1e-6  # of a voxel; keeps rounding from adding or dropping a sample
    factors = [new / old for old, new in zip(old_mm, new_mm, strict=True)]
    if size_rule == "reference":
        return tuple(int(n / factor + 1 + slack) for n, factor in zip(shape, factors, strict=True))
    return tuple(int((n - 0.5 - slack) / factor) + 1 for n, factor in zip(shape, factors, strict=True))


def _check_grid(volume: Volume, shape: tuple[int, ...]) -> None:
    if math.prod(shape) > MOST_VOXELS:
        sizes = " x ".join(f"{size:.3g}" for size in volume.spacing_mm)
        raise DataError(
            f"{volume.array.shape} voxels (D, H, W) of {sizes} mm would become {shape}; expected at most {MOST_VOXELS} "
            "voxels. Correct unit or voxel size in the header, or prepare with larger voxels."
        )


def _shifted(affine: np.ndarray, columns: int, rows: int) -> np.ndarray:
    """The affine of an array that begins at another column and row."""
    shift = np.eye(4)
    shift[:2, 3] = columns, rows
    return affine @ shift


def paste_back(
    mask: Volume,
    original_shape: tuple[int, int, int],
    original_affine: np.ndarray,
    interpolation: Literal["linear", "nearest"] = "linear",
) -> Volume:
    """Brings a mask or label map into the grid of the original scan, through the patient's coordinates alone.

    Args:
        mask: on any grid that overlaps the scan; bool, or integer labels with 0 for the background.
        original_shape: (D, H, W) of the scan.
        original_affine: its (4, 4) affine.
        interpolation: "linear" interpolates each label's mask and keeps what exceeds one half; "nearest" copies.

    Returns:
        The same dtype on the original grid; background beyond the outer faces of the mask's voxels.
    """
    order = {"nearest": 0, "linear": 1}[interpolation]
    grid = Grid(original_shape, original_affine)
    result = np.zeros(original_shape, mask.array.dtype)
    for value in np.unique(mask.array[mask.array != 0]):
        box, share = _resampled(Volume((mask.array == value).astype(np.float32), mask.affine), grid, order)
        result[box][share > 0.5] = value
    return Volume(result, original_affine)


def interpolate_to(values: Volume, grid: Grid) -> np.ndarray:
    """Interpolates values of at least 0, linearly, on another grid, through the patient's coordinates alone.

    Args:
        values: (D, H, W) float32 on any grid, such as a probability.
        grid: where they are wanted.

    Returns:
        float32 of the grid's shape; 0 beyond the outer faces of the voxels of `values`.
    """
    result = np.zeros(grid.shape, np.float32)
    if values.array.any():
        box, found = _resampled(values, grid, order=1)
        result[box] = found
    return result


def _resampled(values: Volume, grid: Grid, order: int) -> tuple[tuple[slice, slice, slice], np.ndarray]:
    """The part of a grid that values above 0 can reach, and the values there."""
    # Voxel of the grid (x, y, z) -> voxel of the values; then both in (z, y, x).
    between = np.linalg.inv(values.affine) @ grid.affine
    matrix, offset = between[2::-1, 2::-1], between[2::-1, 3]
    box = _reach(values.array > 0, matrix, offset, grid.shape)
    shift = (matrix @ [part.start for part in box] + offset).tolist()
    shape = tuple(part.stop - part.start for part in box)
    if min(shape) == 0:
        return box, np.zeros(shape, np.float32)
    return box, ndimage.affine_transform(values.array, matrix, shift, shape, order=order, mode="grid-constant")


def _reach(
    mask: np.ndarray, matrix: np.ndarray, offset: np.ndarray, shape: tuple[int, int, int]
) -> tuple[slice, slice, slice]:
    """The part of a grid of `shape` that a mask can touch; `matrix` and `offset` lead from the grid to the mask."""
    places = [np.flatnonzero(mask.any(tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    corners = np.array(list(product(*((found[0] - 1, found[-1] + 1) for found in places))))
    on_grid = np.linalg.solve(matrix, (corners - offset).T)
    low, high = np.floor(on_grid.min(axis=1)), np.ceil(on_grid.max(axis=1)) + 1
    z, y, x = (slice(*np.clip((a, b), 0, n).astype(int).tolist()) for a, b, n in zip(low, high, shape, strict=True))
    return z, y, x
