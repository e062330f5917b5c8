"""Scans from files, whatever their format."""

import logging
import os
from pathlib import Path

from dataloaders.io.dicom import DicomSeries, read_dicom_series, read_dicom_slices
from dataloaders.io.nifti import geometry_doubts, read_frames, read_nifti
from dataloaders.samples import Volume
from util.errors import DataError

logger = logging.getLogger(__name__)


def read_volume(path: Path, series: str = "") -> Volume:
    """Reads a NIfTI or Analyze file or the DICOM series of a folder; warns where the file leaves its place uncertain.

    Args:
        path: of the file or folder.
        series: SeriesNumber of what is read of a folder with several DICOM series; empty: there must be only one.

    Raises:
        DataError: there is no such file or folder, or it cannot be read.
    """
    _require_readable(path)
    if path.is_dir():
        return read_dicom_series(path, series)
    return _with_doubts(path, [read_nifti(path)])[0]


def read_series(path: Path, series: str = "") -> DicomSeries:
    """Reads the DICOM series of a folder, with its slices; `series`: see `read_volume`.

    Raises:
        DataError: there is no such folder, or it cannot be read.
    """
    _require_readable(path)
    return read_dicom_slices(path, series)


def read_cine(path: Path, series: str = "") -> list[Volume]:
    """Reads the frames of a scan: of a NIfTI file with time as fourth axis; any other scan has one frame.

    `series`: see `read_volume`.

    Raises:
        DataError: see `read_volume`.
    """
    _require_readable(path)
    return [read_dicom_series(path, series)] if path.is_dir() else _with_doubts(path, read_frames(path))


def _require_readable(path: Path) -> None:
    if not path.exists():
        target = f" (a link to {path.readlink()})" if path.is_symlink() else ""
        raise DataError(f"{path}: no such file or folder{target}. Check the path.")
    if not os.access(path, os.R_OK | (os.X_OK if path.is_dir() else 0)):
        raise DataError(f"{path}: cannot be read (permission denied). Make it readable for the user who runs this.")


def _with_doubts(path: Path, frames: list[Volume]) -> list[Volume]:
    for doubt in geometry_doubts(frames[0]):
        logger.warning("%s: %s", path, doubt)
    return frames
