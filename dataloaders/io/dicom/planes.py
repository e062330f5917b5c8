"""Where slices are in the patient, and whether they are one stack."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloaders.io.dicom.files import Skipped, split_command
from dataloaders.io.dicom.frame import Frame
from dataloaders.io.dicom.pixels import check_pixels
from util.errors import DataError

PLANES = ("sagittal", "coronal", "axial")  # by the patient axis next to the normal
AXES_TOLERANCE = 1e-3
PIXEL_RANGE_MM = (1e-4, 1000.0)
MOST_STRAYS = 1 / 3  # of the scan's slices


@dataclass(frozen=True)
class DicomSlice:
    """One slice of a series.

    Attributes:
        frame: its file and header.
        series: its SeriesInstanceUID, "" where it has none.
        instance_number: its InstanceNumber, which orders the files as the scanner numbered them; None where it has
            none, and in multi-frame files.
        axes: (2, 3), directions in LPS in which columns and rows are counted.
        position_mm: (3,), centre of the first pixel, in LPS.
        pixel_mm: (2,), distance between columns and between rows.
        shape: (H, W).
    """

    frame: Frame
    series: str
    instance_number: int | None
    axes: np.ndarray
    position_mm: np.ndarray
    pixel_mm: np.ndarray
    shape: tuple[int, int]

    @property
    def path(self) -> Path:
        """The file."""
        return self.frame.path

    @property
    def name(self) -> str:
        """The file's name, and the frame of multi-frame files."""
        return self.frame.name.removeprefix(f"{self.path.parent}/")

    @property
    def height_mm(self) -> float:
        """Position along the normal of the slice."""
        return float(np.cross(*self.axes) @ self.position_mm)

    @property
    def plane(self) -> str:
        """Name of the plane that is nearest."""
        return PLANES[int(np.abs(np.cross(*self.axes)).argmax())]


def slice_of(frame: Frame) -> DicomSlice:
    """Reads where a slice is.

    Raises:
        DataError: an attribute is missing or impossible; see also `check_pixels`.
    """
    axes = frame.numbers("ImageOrientationPatient", 6).reshape(2, 3)
    if not np.allclose(axes @ axes.T, np.eye(2), atol=0.02):
        raise frame.wrong("ImageOrientationPatient", "two perpendicular unit vectors")
    between_rows, between_columns = frame.numbers("PixelSpacing", 2)
    if (
        not PIXEL_RANGE_MM[0]
        <= min(between_rows, between_columns)
        <= max(between_rows, between_columns)
        <= PIXEL_RANGE_MM[1]
    ):
        raise frame.wrong("PixelSpacing", "positive distances in mm")
    return DicomSlice(
        frame=frame,
        series=frame.text("SeriesInstanceUID"),
        instance_number=_instance_number(frame),
        axes=axes,
        position_mm=frame.numbers("ImagePositionPatient", 3),
        pixel_mm=np.array([between_columns, between_rows]),
        shape=check_pixels(frame),
    )


def _instance_number(frame: Frame) -> int | None:
    text = frame.text("InstanceNumber")
    return int(text) if not frame.groups and text.lstrip("-").isdecimal() else None


def without_strays(slices: Sequence[DicomSlice]) -> tuple[list[DicomSlice], list[Skipped]]:
    """Leaves out few slices of another size that belong to another series or plane, such as localisers."""
    shape = Counter(each.shape for each in slices).most_common(1)[0][0]
    scan = [each for each in slices if each.shape == shape]
    others = [each for each in slices if each.shape != shape]
    are_foreign = all(each.series != scan[0].series or not _is_parallel(each, scan[0]) for each in others)
    if not others or not are_foreign or len(others) > MOST_STRAYS * len(scan):
        return list(slices), []
    rows, columns = shape
    reason = f"of another size and series or plane than the {len(scan)} slices of {rows} x {columns}"
    return scan, [Skipped(each.path, reason) for each in others]


def _is_parallel(first: DicomSlice, second: DicomSlice) -> bool:
    return np.allclose(first.axes, second.axes, atol=AXES_TOLERANCE)


def of_series(folder: Path, slices: Sequence[DicomSlice], number: str) -> tuple[list[DicomSlice], list[Skipped]]:
    """The slices of the series with a SeriesNumber, where there are several series, and the others.

    Args:
        folder: for messages.
        slices: of one or more series; those of a single one are kept, whatever its number.
        number: to choose; empty: none is chosen.

    Raises:
        DataError: no series has the number, see `check_one_series`.
    """
    if not number or len({each.series for each in slices}) == 1:
        return list(slices), []
    chosen = [each for each in slices if each.frame.text("SeriesNumber") == number]
    if not chosen:
        check_one_series(folder, slices)
    others = [each for each in slices if each.frame.text("SeriesNumber") != number]
    return chosen, [Skipped(each.path, f"of other series than number {number}") for each in others]


def check_one_series(folder: Path, slices: Sequence[DicomSlice]) -> None:
    """Refuses several series.

    Raises:
        DataError: slices of different SeriesInstanceUID; it names numbers, not the UIDs, which identify the patient.
    """
    counts = Counter(each.series for each in slices)
    if len(counts) == 1:
        return
    examples = {each.series: each for each in reversed(slices)}
    listed = ", ".join(
        f"SeriesNumber {examples[uid].frame.text('SeriesNumber') or 'none'} ({count} slices, e.g. {examples[uid].name})"
        for uid, count in counts.most_common(4)
    )
    numbers = {each.frame.text("SeriesNumber") for each in examples.values()}
    remedy = "Move the others to folders of their own."
    if len(numbers) == len(counts):
        remedy = (
            "The option --series NUMBER of `frugalseg predict` takes the one that you need; or "
            f"{split_command(folder, ['SeriesNumber'])} copies each to a folder of its own."
        )
    raise DataError(
        f"{folder}: {len(counts)} DICOM series found (SeriesInstanceUID differs): {listed}{', ...' * (len(counts) > 4)}"
        f"; expected one. {remedy}"
    )


def check_same_plane(slices: Sequence[DicomSlice]) -> None:
    """Refuses slices that differ in size, orientation or pixel size.

    Raises:
        DataError: they do; it names one that differs from most.
    """
    _check_orientation(slices)
    common = Counter((each.shape, *each.pixel_mm.round(4)) for each in slices).most_common(1)[0][0]
    first = next(each for each in slices if (each.shape, *each.pixel_mm.round(4)) == common)
    for other in slices:
        if other.shape != first.shape:
            found, expected = f"{other.shape} pixels", f"{first.shape}"
        elif not np.allclose(other.pixel_mm, first.pixel_mm, rtol=1e-4):
            found, expected = f"pixel size {other.pixel_mm.tolist()} mm", f"{first.pixel_mm.tolist()} mm"
        else:
            continue
        raise DataError(
            f"{other.frame.name}: {found}; expected {expected} as in {first.name}. Move files of other series, such as "
            "localisers, out of the folder."
        )


def _check_orientation(slices: Sequence[DicomSlice]) -> None:
    groups: list[list[DicomSlice]] = []
    for each in slices:
        group = next((group for group in groups if _is_parallel(group[0], each)), None)
        if group is None:
            groups.append([each])
        else:
            group.append(each)
    if len(groups) == 1:
        return
    listed = ", ".join(
        f"{len(group)} {group[0].plane} (ImageOrientationPatient {group[0].axes.ravel().round(4).tolist()}, e.g. "
        f"{group[0].name})"
        for group in sorted(groups, key=len, reverse=True)[:4]
    )
    raise DataError(
        f"{slices[0].path.parent}: slices of {len(groups)} orientations: {listed}; expected one. Move those of other "
        "orientations, such as localisers, to folders of their own."
    )
