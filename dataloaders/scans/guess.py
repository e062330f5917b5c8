"""What can be told about scans without a description: how they are cut into slices, and the rule of their intensities.

For own scans that are segmented with an annotated one, and for drafts of descriptions (`data.describe`).
"""

from dataclasses import dataclass, replace

import numpy as np
from nibabel.orientations import io_orientation

from dataloaders.description import DatasetSpec
from dataloaders.io.geometry import Grid, reorient_grid
from dataloaders.rules import GridRule, IntensityRule
from dataloaders.samples import Volume
from dataloaders.scans.plausibility import is_air_hu
from dataloaders.scans.preprocess import PrepareParameters
from util.errors import DataError

CT_WINDOW_HU = (-125.0, 275.0)  # soft tissue of the abdomen
MR_CLIP_PERCENTILE = 99.5
ANISOTROPIC = 1.2  # slices are where voxels are longer by this factor
SIZE_PX = 256  # of the longer side of the first scan
THINNEST_PX = 3  # slices closer than so many pixels are resampled to that distance
SIZE_STEP_PX = 16
MOST_FIELDS = 2.0  # field of view of a scan, in those of the first one


@dataclass(frozen=True)
class Plane:
    """How a scan is cut into slices. Axes: 0 right-left, 1 front-back, 2 feet-head."""

    name: str
    axes: tuple[int, int]  # of rows and of columns
    axis_codes: str  # as in descriptions


# By the axis across the slices.
PLANES = {
    0: Plane("sagittal", (2, 1), "ASL"),
    1: Plane("coronal", (2, 0), "LSA"),
    2: Plane("axial", (1, 0), "LAS"),
}


def in_patient_axes(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of voxels and spacing along right-left, front-back and feet-head."""
    axes = io_orientation(grid.affine)[:, 0].astype(int)  # of the file's x, y, z
    shape, spacing = np.empty(3, int), np.empty(3)
    shape[axes], spacing[axes] = grid.shape[::-1], grid.spacing_mm[::-1]
    return shape, spacing


def slice_axis(spacing: np.ndarray) -> int:
    """The axis along which slices follow each other; feet-head where voxels are about as long as wide.

    Args:
        spacing: along right-left, front-back and feet-head.
    """
    longest = int(spacing.argmax())
    others = np.delete(spacing, longest)
    return longest if spacing[longest] > ANISOTROPIC * others.max() else 2


def describe_scan(scan: Volume) -> tuple[DatasetSpec, str]:
    """A description of scans like this one.

    Slices are those that were acquired. The longer side of the field of view becomes `SIZE_PX`. CT in Hounsfield units,
    recognised by its air, is windowed to soft tissue; any other scan is clipped at a percentile, as MR.

    Args:
        scan: raw.

    Returns:
        The description, and the rule in words.
    """
    shape, spacing = in_patient_axes(Grid.of(scan))
    across = slice_axis(spacing)
    plane = PLANES[across]
    pixel_mm = float(max(shape[axis] * spacing[axis] for axis in plane.axes)) / SIZE_PX
    between_mm = max(float(spacing[across]), THINNEST_PX * pixel_mm)
    grid = GridRule(SIZE_PX, (between_mm, pixel_mm, pixel_mm), axis_codes=plane.axis_codes)
    lowest = float(scan.array.min())
    if is_air_hu(lowest):
        modality, intensity = "CT", IntensityRule(window=CT_WINDOW_HU, normalise_by="training_scans")
        rule = f"Hounsfield units (lowest {lowest:.0f}), CT: window {CT_WINDOW_HU[0]:.0f} to {CT_WINDOW_HU[1]:.0f} HU"
    else:
        modality, intensity = "MR", IntensityRule(clip_percentile=MR_CLIP_PERCENTILE)
        rule = f"no Hounsfield units (lowest {lowest:.4g}), taken for MR: clipped at {MR_CLIP_PERCENTILE} %"
    spec = DatasetSpec("undescribed", "scans", modality=modality, grid=grid, intensity=intensity)
    return spec, f"{rule}; {plane.name} slices {between_mm:.3g} mm apart or as they are, pixels of {pixel_mm:.3g} mm"


def whole_scan(parameters: PrepareParameters, scan: Volume) -> PrepareParameters:
    """The same parameters for a grid that holds all of another scan, whose slices stay if they are further apart.

    Args:
        parameters: of a guessed description.
        scan: raw.

    Raises:
        DataError: a field of view more than `MOST_FIELDS` times as wide.
    """
    if parameters.spacing_mm is None:
        return parameters
    z_mm, y_mm, x_mm = parameters.spacing_mm
    grid = reorient_grid(Grid.of(scan), parameters.axis_codes)
    (_, rows, columns), (between_mm, row_mm, column_mm) = grid.shape, grid.spacing_mm
    needed_px = max(rows * row_mm / y_mm, columns * column_mm / x_mm)
    if needed_px > MOST_FIELDS * SIZE_PX * 1.001:
        raise DataError(
            f"a field of view of {needed_px * x_mm:.0f} mm; expected at most {MOST_FIELDS:g} times the "
            f"{SIZE_PX * x_mm:.0f} mm of the annotated scan, as places in the body have to correspond. Crop the scan, "
            "or annotate one like it."
        )
    size_px = int(np.ceil(round(needed_px, 3) / SIZE_STEP_PX)) * SIZE_STEP_PX
    return replace(parameters, spacing_mm=(max(between_mm, z_mm), y_mm, x_mm), size_px=size_px)
