"""A folder of DICOM files becomes one scan: slices in order, spacing from positions, patient axes as in NIfTI."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.errors import InvalidDicomError

from dataloaders.samples import Volume
from util.errors import DataError

GEOMETRY_TAGS = ("ImageOrientationPatient", "ImagePositionPatient", "PixelSpacing")
STEP_TOLERANCE = 0.05  # deviation of one slice step from the others, as a fraction of it
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's patient axes to NIfTI's


@dataclass(frozen=True)
class DicomSlice:
    """One file of a series.

    Attributes:
        path: the file.
        series: its SeriesInstanceUID, "" where it has none.
        instance_number: its InstanceNumber, which orders the files as the scanner numbered them.
        axes: (2, 3), directions in LPS in which columns and rows are counted.
        position_mm: (3,), centre of the first pixel, in LPS.
        pixel_mm: (2,), distance between columns and between rows.
        array: (H, W), rescaled intensities.
    """

    path: Path
    series: str
    instance_number: int | None
    axes: np.ndarray
    position_mm: np.ndarray
    pixel_mm: np.ndarray
    array: np.ndarray

    @property
    def height_mm(self) -> float:
        """Position along the normal of the slice."""
        return float(np.cross(*self.axes) @ self.position_mm)


@dataclass(frozen=True)
class DicomSeries:
    """A scan read from DICOM and the files it came from: `volume.array[z]` is `slices[z]`."""

    volume: Volume
    slices: tuple[DicomSlice, ...]


def read_dicom_series(folder: Path) -> Volume:
    """Reads the one series of single-frame DICOM files in a folder; see `read_dicom_slices`."""
    return read_dicom_slices(folder).volume


def read_dicom_slices(folder: Path) -> DicomSeries:
    """Reads the one series of single-frame DICOM files in a folder and remembers which slice came from which file.

    Slices are sorted along the normal of their plane; the distance between them comes from their positions, never
    from SliceThickness. Rescale slope and intercept are applied; whole numbers stay integers. Oblique planes and
    tilted gantries are kept as they are, in the affine.

    Args:
        folder: holds `*.dcm` files; where there are none, every file in it is taken for DICOM.

    Raises:
        DataError: no files; a file that is damaged, is no DICOM, or lacks geometry; several series; slices that differ
            in size, orientation or pixel size; fewer than two slices; duplicate, missing or unevenly spaced slices.
    """
    slices = sorted((_read_slice(path) for path in _dicom_files(folder)), key=lambda each: each.path.name)
    _check_one_series(folder, slices)
    _check_same_plane(slices)
    slices.sort(key=lambda each: each.height_mm)
    first, step = slices[0], _slice_step(folder, slices)
    affine = np.eye(4)
    affine[:3, :2] = first.axes.T * first.pixel_mm
    affine[:3, 2] = step
    affine[:3, 3] = first.position_mm
    array = _narrowed(np.stack([each.array for each in slices]))
    return DicomSeries(Volume(array, LPS_TO_RAS @ affine), tuple(slices))


def _dicom_files(folder: Path) -> list[Path]:
    files = [path for path in folder.glob("*") if path.is_file() and not path.name.startswith(".")]
    files = [path for path in files if path.suffix.lower() == ".dcm"] or files
    if not files:
        raise DataError(f"{folder}: no DICOM files found; expected *.dcm. Copy or download the scan again.")
    return files


def _read_slice(path: Path) -> DicomSlice:
    try:
        header = pydicom.dcmread(path)
        missing = [tag for tag in (*GEOMETRY_TAGS, "PixelData") if not header.get(tag)]
        if missing:
            raise DataError(
                f"{path}: DICOM without {', '.join(missing)}, or truncated; expected an image slice with its geometry. "
                "Copy or download the file again, or export the series without removing these tags."
            )
        pixels = header.pixel_array
        slope, intercept = float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)
        number = header.get("InstanceNumber")
        between_rows, between_columns = header.PixelSpacing
        slice_ = DicomSlice(
            path=path,
            series=str(header.get("SeriesInstanceUID", "")),
            instance_number=None if number is None else int(number),
            axes=np.array(header.ImageOrientationPatient, np.float64).reshape(2, 3),
            position_mm=np.array(header.ImagePositionPatient, np.float64).reshape(3),
            pixel_mm=np.array([between_columns, between_rows], np.float64),
            array=pixels if (slope, intercept) == (1, 0) else pixels * slope + intercept,
        )
    except DataError:
        raise
    except (InvalidDicomError, OSError, EOFError, ValueError, AttributeError, KeyError, RuntimeError) as error:
        raise DataError(f"{path}: not a readable DICOM file, or truncated ({error}). Copy it again.") from error
    if slice_.array.ndim != 2 or slice_.pixel_mm.min() <= 0:
        raise DataError(
            f"{path}: pixels of shape {slice_.array.shape}, {slice_.pixel_mm.tolist()} mm apart; expected one grey "
            "image (H, W) per file and positive distances. Export the series as single-frame files."
        )
    return slice_


def _check_one_series(folder: Path, slices: Sequence[DicomSlice]) -> None:
    series = Counter(each.series for each in slices)
    if len(series) > 1:
        listed = ", ".join(f"{uid or 'no SeriesInstanceUID'} ({count} files)" for uid, count in series.most_common(4))
        raise DataError(
            f"{folder}: {len(series)} DICOM series found: {listed}; expected one. Move the others to folders of their "
            "own."
        )


def _check_same_plane(slices: Sequence[DicomSlice]) -> None:
    first = slices[0]
    for other in slices[1:]:
        if other.array.shape != first.array.shape:
            found, expected = f"{other.array.shape} pixels", f"{first.array.shape}"
        elif not np.allclose(other.axes, first.axes, atol=1e-3):
            found, expected = f"orientation {other.axes.ravel().tolist()}", f"{first.axes.ravel().tolist()}"
        elif not np.allclose(other.pixel_mm, first.pixel_mm, rtol=1e-4):
            found, expected = f"pixel size {other.pixel_mm.tolist()} mm", f"{first.pixel_mm.tolist()} mm"
        else:
            continue
        raise DataError(
            f"{other.path}: {found}; expected {expected} as in {first.path.name}. Move files of other series, such as "
            "localisers, out of the folder."
        )


def _slice_step(folder: Path, slices: Sequence[DicomSlice]) -> np.ndarray:
    """The vector from one slice to the next, (3,) in LPS millimetres; `slices` are sorted along their normal."""
    if len(slices) < 2:
        raise DataError(f"{folder}: one DICOM slice; expected at least 2, as their distance gives the spacing along z.")
    heights = np.array([each.height_mm for each in slices])
    twins = np.flatnonzero(np.diff(heights) < 1e-3)
    if twins.size:
        first, second = slices[twins[0]], slices[twins[0] + 1]
        raise DataError(
            f"{folder}: {first.path.name} and {second.path.name} have the same position; expected every slice once. "
            "Remove the duplicate."
        )
    positions = np.stack([each.position_mm for each in slices])
    steps = np.diff(positions, axis=0)
    usual = steps[np.linalg.norm(steps, axis=1).argsort()[(len(steps) - 1) // 2]]
    deviation = np.linalg.norm(steps - usual, axis=1) / np.linalg.norm(usual)
    if deviation.max() > STEP_TOLERANCE:
        worst = int(deviation.argmax())
        raise DataError(
            f"{folder}: {np.linalg.norm(steps[worst]):.3f} mm from {slices[worst].path.name} to "
            f"{slices[worst + 1].path.name}, elsewhere {np.linalg.norm(usual):.3f} mm; expected even steps. A slice is "
            "missing or belongs to another scan: copy the series again."
        )
    return (positions[-1] - positions[0]) / (len(slices) - 1)


def _narrowed(array: np.ndarray) -> np.ndarray:
    """Whole numbers as int16 where they fit, else as int32; fractions as float32."""
    if array.dtype.kind == "f" and not np.array_equal(array, np.rint(array)):
        return array.astype(np.float32)
    fits = np.iinfo(np.int16).min <= array.min() and array.max() <= np.iinfo(np.int16).max
    return array.astype(np.int16 if fits else np.int32)
