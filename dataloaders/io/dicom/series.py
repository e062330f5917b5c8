"""A folder of DICOM files becomes one scan: slices in order, spacing from positions, patient axes as in NIfTI."""

import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloaders.io.dicom.differences import without_copies
from dataloaders.io.dicom.files import Skipped, describe, read_files
from dataloaders.io.dicom.frame import frames_of, one_file, quiet
from dataloaders.io.dicom.pixels import MOST_VOXELS, RESCALE, has_rescale, intensities, read_stored
from dataloaders.io.dicom.planes import (
    DicomSlice,
    check_one_series,
    check_same_plane,
    of_series,
    slice_of,
    without_strays,
)
from dataloaders.samples import Volume
from util.errors import DataError

STEP_TOLERANCE = 0.05  # deviation of one slice step from the others, as a fraction of it
ROUNDING_MM, ROUNDING_STEPS = 0.075, 0.2  # deviation of slices whose positions were rounded to 0.1 mm; in steps
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's patient axes to NIfTI's

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DicomSeries:
    """A scan read from DICOM and the files it came from: `volume.array[z]` is `slices[z]`.

    `skipped` are the folder's other files, with the reasons.
    """

    volume: Volume
    slices: tuple[DicomSlice, ...]
    skipped: tuple[Skipped, ...] = ()


def read_dicom_series(folder: Path, number: str = "") -> Volume:
    """Reads the one series of a folder; see `read_dicom_slices`."""
    return read_dicom_slices(folder, number).volume


def read_dicom_slices(folder: Path, number: str = "") -> DicomSeries:
    """Reads the one series of DICOM files in a folder and remembers which slice came from which file.

    Single-frame and enhanced multi-frame files are read, compressed ones too. Files that are no slices of the scan
    (other programs' files, DICOMDIR, reports, presentation states, screenshots, localisers, copies of a slice) are
    skipped; one line of the log counts them.

    Slices are sorted along the normal of their plane; the distance between them comes from their positions, never
    from SliceThickness. MONOCHROME1 is turned round; rescale slope and intercept are applied; whole numbers stay
    integers. Oblique planes and tilted gantries are kept as they are, in the affine.

    Args:
        folder: holds the files; folders in it are not searched.
        number: SeriesNumber of the series to read where the folder holds several; empty: there must be only one.

    Raises:
        DataError: no slices; a file that is damaged or lacks geometry; colour; several series; slices that differ in
            size, orientation or pixel size; fewer than two slices; several slices at one position, missing or unevenly
            spaced slices.
    """
    with quiet():
        return _read_dicom_slices(folder, number)


def _read_dicom_slices(folder: Path, number: str) -> DicomSeries:
    files, skipped = read_files(folder)
    slices = []
    for file in files:
        with one_file(file.path):
            slices += [slice_of(frame) for frame in frames_of(file.path, file.header)]
    slices, unwanted = of_series(folder, slices, number)
    slices, strays = without_strays(slices)
    check_one_series(folder, slices)
    check_same_plane(slices)
    slices, copies = without_copies(folder, slices)
    skipped = [*skipped, *unwanted, *strays, *copies]
    if skipped:
        n_files = len({each.frame.path for each in slices})
        log.warning("%s: slices in %d files; skipped: %s", folder, n_files, describe(skipped))
    slices.sort(key=lambda each: each.height_mm)
    first, step = slices[0], _slice_step(folder, slices)
    affine = np.eye(4)
    affine[:3, :2] = first.axes.T * first.pixel_mm
    affine[:3, 2] = step
    affine[:3, 3] = first.position_mm
    return DicomSeries(Volume(_read_array(folder, slices), LPS_TO_RAS @ affine), tuple(slices), tuple(skipped))


def _slice_step(folder: Path, slices: Sequence[DicomSlice]) -> np.ndarray:
    """The vector from one slice to the next, (3,) in LPS millimetres; `slices` are sorted along their normal."""
    if len(slices) < 2:
        raise DataError(f"{folder}: one DICOM slice; expected at least 2, as their distance gives the spacing along z.")
    positions = np.stack([each.position_mm for each in slices])
    steps = np.diff(positions, axis=0)
    usual = steps[np.linalg.norm(steps, axis=1).argsort()[(len(steps) - 1) // 2]]
    deviation = np.linalg.norm(steps - usual, axis=1) / np.linalg.norm(usual)
    if deviation.max() > STEP_TOLERANCE and not _are_even_but_rounded(positions):
        worst = int(deviation.argmax())
        raise DataError(
            f"{folder}: {np.linalg.norm(steps[worst]):.3f} mm from {slices[worst].name} to {slices[worst + 1].name}, "
            f"elsewhere {np.linalg.norm(usual):.3f} mm; expected even steps. A slice is missing or belongs to another "
            "scan: copy the series again."
        )
    return (positions[-1] - positions[0]) / (len(slices) - 1)


def _are_even_but_rounded(positions_mm: np.ndarray) -> bool:
    """Whether positions (D, 3) are even up to rounding to 0.1 mm; a missing slice moves them by more."""
    numbers = np.arange(len(positions_mm))
    design = np.stack([numbers, np.ones_like(numbers)], axis=1)
    line = np.linalg.lstsq(design, positions_mm)[0]  # step and first position
    most_mm = min(ROUNDING_MM, ROUNDING_STEPS * float(np.linalg.norm(line[0])))
    return bool(np.abs(positions_mm - design @ line).max() <= most_mm)


def _read_array(folder: Path, slices: Sequence[DicomSlice]) -> np.ndarray:
    """The intensities (D, H, W) of the slices, in their order."""
    rows, columns = slices[0].shape
    if len(slices) * rows * columns > MOST_VOXELS:
        raise DataError(
            f"{folder}: {len(slices)} slices of {rows} x {columns}; expected at most {MOST_VOXELS} voxels in a scan. "
            "Split the scan, or resample it."
        )
    places: dict[Path, list[int]] = defaultdict(list)
    for place, each in enumerate(slices):
        places[each.frame.path].append(place)
    stored: list[np.ndarray] = [np.empty(0)] * len(slices)
    for several in places.values():
        for place, array in zip(several, read_stored([slices[place].frame for place in several]), strict=True):
            stored[place] = array
    _check_rescale(folder, slices, stored)
    return _narrowed(np.stack(intensities([each.frame for each in slices], stored)))


def _check_rescale(folder: Path, slices: Sequence[DicomSlice], stored: Sequence[np.ndarray]) -> None:
    """Warns of CT without rescale.

    Raises:
        DataError: some slices have a rescale, others none.
    """
    n_with = sum(has_rescale(each.frame) for each in slices)
    if 0 < n_with < len(slices):
        odd = next(each for each in slices if has_rescale(each.frame) != (2 * n_with > len(slices)))
        raise DataError(
            f"{folder}: {' and '.join(RESCALE)} are in {n_with} of {len(slices)} slices ({odd.name} is unlike most); "
            "expected in all or none. Export the series again."
        )
    if not n_with and slices[0].frame.text("Modality") == "CT":
        low, high = min(float(each.min()) for each in stored), max(float(each.max()) for each in stored)
        log.warning(
            "%s: CT without %s; its stored values, %g to %g, are taken for Hounsfield units (air is -1000). If they "
            "are not, export the series again with these attributes.",
            folder, " and ".join(RESCALE), low, high,
        )  # fmt: skip


def _narrowed(array: np.ndarray) -> np.ndarray:
    """Whole numbers as int16 where they fit, else as int32; fractions as float32."""
    if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
        return array.astype(np.float32)
    fits = np.iinfo(np.int16).min <= array.min() and array.max() <= np.iinfo(np.int16).max
    return array.astype(np.int16 if fits else np.int32)
