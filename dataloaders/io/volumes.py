"""Scans from files, whatever their format."""

import logging
from pathlib import Path

from dataloaders.io.dicom import read_dicom_series
from dataloaders.io.nifti import geometry_doubts, read_nifti
from dataloaders.samples import Volume
from util.errors import DataError

logger = logging.getLogger(__name__)


def read_volume(path: Path) -> Volume:
    """Reads a NIfTI or Analyze file or the DICOM series of a folder; warns where the file leaves its place uncertain.

    Raises:
        DataError: there is no such file or folder, or it cannot be read.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Check the path.")
    if path.is_dir():
        return read_dicom_series(path)
    volume = read_nifti(path)
    for doubt in geometry_doubts(volume):
        logger.warning("%s: %s", path, doubt)
    return volume
