"""Scans in and out of files, with their geometry. The only place where (x, y, z) file order meets our (z, y, x)."""

import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np

from dataloaders.samples import Volume
from util.errors import DataError
from util.files import replacing


def read_nifti(path: Path) -> Volume:
    """Reads a NIfTI file; the array keeps the file's scaled dtype, the affine is the header's best one.

    Raises:
        DataError: the file is absent, unreadable or truncated, or is not three-dimensional.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file. Run `python -m data.prepare` or `python -m data.check` on the folder.")
    try:
        file = nib.nifti1.Nifti1Image.from_filename(path)
        array = np.asanyarray(file.dataobj)
    except (OSError, EOFError, ValueError, nib.filebasedimages.ImageFileError) as error:
        raise DataError(f"{path}: not a readable NIfTI file, or truncated ({error}). Make or copy it again.") from error
    if array.ndim != 3:
        raise DataError(f"{path}: an array of shape {array.shape} (x, y, z, ...); expected three dimensions.")
    return Volume(np.ascontiguousarray(array.transpose(2, 1, 0)), np.asarray(file.affine, np.float64))


def write_nifti(path: Path, volume: Volume) -> None:
    """Writes `volume` as compressed NIfTI-1, whole or not at all; bool is stored as uint8.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    image = nib.nifti1.Nifti1Image(array.transpose(2, 1, 0), volume.affine)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)


def voxel_hash(array: np.ndarray) -> str:
    """SHA-256 of an array's shape, dtype and values: equal for equal voxels however the file was compressed."""
    digest = hashlib.sha256(f"{array.shape} {array.dtype.str}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
