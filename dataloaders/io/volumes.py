"""Scans from files, whatever their format."""

from pathlib import Path

from dataloaders.io.dicom import read_dicom_series
from dataloaders.io.nifti import read_nifti
from dataloaders.samples import Volume
from util.errors import DataError


def read_volume(path: Path) -> Volume:
    """Reads a NIfTI file or the DICOM series of a folder.

    Raises:
        DataError: there is no such file or folder, or it cannot be read.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Check the path.")
    return read_dicom_series(path) if path.is_dir() else read_nifti(path)
