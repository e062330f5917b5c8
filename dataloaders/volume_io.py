"""Scans in and out of files, with their geometry.

Here, and in `dataloaders/dicom.py`, (x, y, z) file order meets our (z, y, x); nowhere else.
"""

import gzip
import hashlib
import re
import zlib
from pathlib import Path

import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from PIL import Image

from dataloaders.dicom import read_dicom_series as read_dicom_series
from dataloaders.samples import Volume
from util.errors import DataError
from util.files import replacing

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
    """Writes `volume` as compressed NIfTI-1, whole or not at all; bool is stored as uint8.

    Equal volumes give equal files: no time stamp and no name goes into the compressed stream.

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
        replacing(path) as temporary,
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


def trailing_number(path: Path) -> int | None:
    """The integer at the end of a file's name, before its suffix: 7 for `IMG-0004-00007.png`; None without digits."""
    match = re.search(r"\d+$", path.stem)
    return int(match[0]) if match else None


def png_files(folder: Path) -> list[Path]:
    """The PNG files of a folder by the number that ends their names.

    Raises:
        DataError: there are none, a name has no number, or two have the same.
    """
    by_number: dict[int, Path] = {}
    for path in sorted(folder.glob("*.png")):
        number = trailing_number(path)
        if number is None or number in by_number:
            found = "no slice number" if number is None else f"the slice number of {by_number[number].name}"
            raise DataError(
                f"{path}: {found} at the end of its name; expected one stack of files such as IMG-0004-00007.png, each "
                "with a number of its own. Move other files elsewhere."
            )
        by_number[number] = path
    if not by_number:
        raise DataError(f"{folder}: no *.png found; expected one per slice. Copy or download the folder again.")
    return [by_number[number] for number in sorted(by_number)]


def read_png_stack(folder: Path) -> np.ndarray:
    """Reads the grey PNG files of a folder as (D, H, W), sorted by the number that ends their names.

    Raises:
        DataError: see `png_files`; or a file is damaged, is not grey, or differs in size from the first.
    """
    files = png_files(folder)
    slices = [_read_png(path) for path in files]
    for path, slice_ in zip(files, slices, strict=True):
        if slice_.shape != slices[0].shape:
            raise DataError(
                f"{path}: {slice_.shape} pixels; expected {slices[0].shape} as in {files[0].name}. Copy it again."
            )
    return np.stack(slices)


def _read_png(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            array = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: not a readable PNG file, or truncated ({error}). Copy it again.") from error
    if array.ndim != 2:
        raise DataError(f"{path}: an array of shape {array.shape}; expected one grey channel (H, W).")
    return array
