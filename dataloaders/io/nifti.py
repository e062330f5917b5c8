"""Scans in and out of files, with their geometry.

Here and in `dataloaders/io/dicom.py`, (x, y, z) file order meets our (z, y, x); nowhere else.
"""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from dataloaders.io.dicom import read_dicom_series as read_dicom_series
from dataloaders.samples import Volume
from util.errors import DataError
from util.files import atomic_write

GZIP_MAGIC = b"\x1f\x8b"
NIFTI_ERRORS = (OSError, EOFError, ValueError, zlib.error, ImageFileError, HeaderDataError, WrapStructError)
GZIP_LEVEL = 3  # of 9; higher levels take several times longer and save some percent


def read_nifti(path: Path) -> Volume:
    """Reads a NIfTI file; the array keeps the file's scaled dtype, the affine is the header's best one.

    Whether the file is compressed is told from its first bytes, not from its name: some converters store plain NIfTI
    under a name that ends in `.gz`.

    Raises:
        DataError: the file is absent, unreadable or truncated, is not three-dimensional, or has no usable geometry.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file. Run `python -m data.prepare` or `python -m data.check` on the folder.")
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if content.startswith(GZIP_MAGIC) else content
        file = Nifti1Image.from_bytes(content)
        array = np.asanyarray(file.dataobj)
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    except NIFTI_ERRORS as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: not a readable NIfTI file, or truncated ({reason}). Make or copy it again."
        ) from error
    affine = np.asarray(file.affine, np.float64)
    if array.ndim > 3 and set(array.shape[3:]) == {1}:
        array = array.reshape(array.shape[:3])
    if array.ndim != 3 or not array.size:
        raise DataError(f"{path}: an array of shape {array.shape} (x, y, z, ...); expected three dimensions.")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise DataError(
            f"{path}: the header's affine {affine[:3].round(3).tolist()} cannot be inverted; expected three axes of "
            "positive voxel size. Convert the scan again, or correct the header."
        )
    return Volume(np.ascontiguousarray(array.transpose(2, 1, 0)), affine)


def write_nifti(path: Path, volume: Volume) -> None:
    """Writes `volume` as compressed NIfTI-1, atomically; bool is stored as uint8.

    Equal volumes give equal files: the compressed stream holds no time stamp and no name.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.

    Note: NIfTI-1 keeps the affine in float32. A sheared affine (tilted gantry) cannot be said as a quaternion; then
        only the `sform` is marked as valid.
    """
    array = volume.array.astype(np.uint8) if volume.array.dtype == bool else volume.array
    image = Nifti1Image(array.transpose(2, 1, 0), volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, code="scanner")
    image.set_qform(volume.affine, code="unknown" if _is_sheared(volume.affine) else "scanner")
    with (
        atomic_write(path) as temporary,
        temporary.open("wb") as stream,
        gzip.GzipFile("", "wb", GZIP_LEVEL, stream, mtime=0) as compressed,
    ):
        compressed.write(image.to_bytes())


def _is_sheared(affine: np.ndarray) -> bool:
    axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return not np.allclose(axes.T @ axes, np.eye(3), atol=1e-5)


def voxel_hash(array: np.ndarray) -> str:
    """SHA-256 of an array's shape, dtype and values: equal for equal voxels however the file was compressed."""
    digest = hashlib.sha256(f"{array.shape} {array.dtype.str}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
