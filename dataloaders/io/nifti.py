"""Scans in and out of files, with their geometry.

Here and in `dataloaders/io/dicom.py`, (x, y, z) file order meets our (z, y, x); nowhere else.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from nibabel.volumeutils import apply_read_scaling

from dataloaders.io.dicom import read_dicom_series as read_dicom_series
from dataloaders.io.dtypes import portable
from dataloaders.io.nifti_header import (
    HEADER_BYTES,
    KNOWN_CODES,
    SAME_MM,
    Header,
    disagreement_mm,
    is_sheared,
    parse_header,
    write_geometry,
)
from dataloaders.io.nifti_names import is_nifti as is_nifti
from dataloaders.io.nifti_names import nifti_stem as nifti_stem
from dataloaders.io.nifti_names import pair_of as pair_of
from dataloaders.samples import Volume
from util.errors import DataError
from util.files import atomic_write
from util.runtime.machine import memory_bytes

GZIP_MAGIC = b"\x1f\x8b"
GZIP_LEVEL = 3  # of 9; higher levels take several times longer and save some percent
GZIP_RATIO = 1_032  # the most bytes that one compressed byte can become
SURPLUS_BYTES = 1 << 20  # read past the last voxel, so that the checksum of a compressed file is compared
BYTES_PER_VOXEL = 8  # needed at least: intensities are computed in float64
GIB = 2**30


def read_nifti(path: Path) -> Volume:
    """Reads a NIfTI-1, NIfTI-2 or Analyze file; the array keeps the file's scaled dtype.

    Nothing is allocated before the header has been compared with the size of the file. Whether the file is compressed
    is told from its first bytes, not from its name: some converters store plain NIfTI under a name that ends in `.gz`.

    Args:
        path: `*.nii`, `*.nii.gz`, or either file of a pair `*.hdr`, `*.img`.

    Returns:
        The scan in millimetres, whatever the header's unit. Its affine is the header's sform, else the qform, else the
        voxel sizes alone: see `geometry_doubts`.

    Raises:
        DataError: the file is absent, unreadable, damaged or truncated, is not three-dimensional, has no usable
            geometry, or is larger than the memory.
    """
    header, voxels = _read_header(path)
    if len(header.shape) < 3 or any(length > 1 for length in header.shape[3:]):
        raise DataError(f"{path}: an array of shape {header.shape} (x, y, z, ...); expected three dimensions.")
    return _read_volumes(header, voxels)[0]


def read_frames(path: Path) -> list[Volume]:
    """Reads all frames of a NIfTI file whose fourth axis is time, such as a cine scan; a 3-D file has one frame.

    Args:
        path: see `read_nifti`.

    Returns:
        The frames, all with the affine and the stored geometry of the file.

    Raises:
        DataError: see `read_nifti`; four dimensions are allowed.
    """
    header, voxels = _read_header(path)
    if len(header.shape) < 3 or any(length > 1 for length in header.shape[4:]):
        raise DataError(f"{path}: an array of shape {header.shape}; expected (x, y, z) or (x, y, z, time).")
    return _read_volumes(header, voxels)


def _read_volumes(header: Header, voxels: Path) -> list[Volume]:
    """The frames; those of a file without scaling share the memory of one array."""
    try:
        _check_size(header, voxels)
        stored = _read_voxels(header, voxels).reshape((*header.shape[:3], -1), order="F")  # (x, y, z, time)
        with np.errstate(all="ignore"):
            scale = [np.float64(value) for value in header.scale]
            arrays = [apply_read_scaling(stored[..., frame], *scale) for frame in range(stored.shape[3])]
        arrays = [array.astype(array.dtype.newbyteorder("="), copy=False) for array in arrays]
    except DataError as error:
        raise DataError(f"{voxels}: {error}") from error
    except MemoryError as error:
        raise DataError(
            f"{voxels}: {_size_in_words(header)}, more than there is memory. Crop the scan first."
        ) from error
    return [Volume(np.ascontiguousarray(array.transpose(2, 1, 0)), header.affine, header.stored) for array in arrays]


def read_shape(path: Path) -> tuple[int, ...]:
    """(D, H, W) of a NIfTI file, from its header.

    Raises:
        DataError: see `read_nifti`.
    """
    return _read_header(path)[0].shape[:3][::-1]


def _read_header(path: Path) -> tuple[Header, Path]:
    """The header, and the file that holds the voxels."""
    pair = pair_of(path)
    file = path if pair is None else pair[0]
    if not file.is_file():
        found = "a folder" if file.is_dir() else "no such file"
        raise DataError(f"{file}: {found}. Run `frugalseg prepare` or `frugalseg check` on the folder.")
    try:
        with _opened(file) as stream:
            block = stream.read(HEADER_BYTES)
        if not block:
            raise DataError("an empty file. Copy or make the file again.")
        header = parse_header(block)
    except DataError as error:
        raise DataError(f"{file}: {error}") from error
    if header.is_pair and pair is None:
        partner = f"{nifti_stem(path)}.img"
        raise DataError(
            f"{path}: the header of a pair; expected the voxels in {partner} next to it. Copy that file, too."
        )
    return header, file if pair is None or not header.is_pair else pair[1]


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """The content of a file, decompressed where it is gzip.

    Raises:
        DataError: it cannot be opened or decompressed; the message does not name the file.
    """
    try:
        with path.open("rb") as stream:
            is_compressed = stream.read(2) == GZIP_MAGIC
            stream.seek(0)
            yield cast(BinaryIO, gzip.GzipFile(fileobj=stream)) if is_compressed else stream
    except EOFError as error:
        raise DataError("truncated: its compressed content ends too early. Copy or make the file again.") from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise DataError(
            f"damaged: its compressed content is not valid ({error}). Copy or make the file again."
        ) from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror or error}). Copy or make the file again.") from error


def _shape_in_words(header: Header) -> str:
    return " x ".join(map(str, header.shape[: 4 if header.n_frames > 1 else 3]))


def _size_in_words(header: Header) -> str:
    gib = header.n_voxels * BYTES_PER_VOXEL / GIB
    shape = _shape_in_words(header)
    return f"the header asks for {shape} voxels of {header.dtype.itemsize} bytes, which need {gib:.3g} GiB of memory"


def _check_size(header: Header, voxels: Path) -> None:
    """Compares what the header asks for with what the file can hold and with the memory."""
    asked, held = header.offset + header.n_bytes, voxels.stat().st_size
    with voxels.open("rb") as stream:
        is_compressed = stream.read(2) == GZIP_MAGIC
    limit = held * GZIP_RATIO if is_compressed else held
    if asked > limit:
        shape = _shape_in_words(header)
        kind = "compressed bytes" if is_compressed else "bytes"
        raise DataError(
            f"truncated, or a damaged header: it asks for {shape} voxels of {header.dtype.itemsize} bytes from byte "
            f"{header.offset}, {asked} bytes in all; the file has {held} {kind}. Copy or make the file again."
        )
    memory = memory_bytes()
    if memory is not None and header.n_voxels * BYTES_PER_VOXEL > memory:
        raise DataError(f"{_size_in_words(header)}; there are {memory / GIB:.3g} GiB. Crop the scan first.")


def _read_voxels(header: Header, path: Path) -> np.ndarray:
    """All voxels as stored, in one dimension.

    Raises:
        DataError: fewer than the header asks for.
    """
    with _opened(path) as stream:
        left = header.offset
        while left and (skipped := len(stream.read(min(left, SURPLUS_BYTES)))):
            left -= skipped
        voxels = np.empty(header.n_bytes, np.uint8)
        n_read, view = 0, voxels.data
        while n_read < len(view) and (count := stream.readinto(view[n_read:])):  # type: ignore[attr-defined]
            n_read += count
        if n_read < len(view):
            raise DataError(f"truncated: {n_read} of {len(view)} bytes of voxels. Copy or make the file again.")
        stream.read(SURPLUS_BYTES)
    return voxels.view(header.dtype)


def geometry_doubts(volume: Volume) -> list[str]:
    """What is uncertain about the place of a scan in the patient, one sentence each; the file is not named.

    Args:
        volume: as `read_nifti` returned it.
    """
    stored = volume.stored
    if stored is None:
        return []
    if not any(code in KNOWN_CODES for code in (stored.sform_code, stored.qform_code)):
        return [
            f"does not say how the scan lies in the patient (sform_code {stored.sform_code}, qform_code "
            f"{stored.qform_code}); assumed: columns to the left, rows to the front, slices to the head. If that is "
            "wrong, left and right, or front and back, are exchanged: convert the scan again from DICOM."
        ]
    distance = disagreement_mm(stored, volume.array.shape[::-1])
    if distance <= max(min(volume.spacing_mm) / 2, SAME_MM):
        return []
    return [
        f"sform (code {stored.sform_code}) and qform (code {stored.qform_code}) differ by up to {distance:.3g} mm at "
        "the corners; the sform is used, and results carry both as the scan does. Compare a result with the scan in a "
        "viewer."
    ]


def write_nifti(path: Path, volume: Volume) -> None:
    """Writes `volume` as compressed NIfTI-1, atomically, in a `portable` dtype.

    A volume with a `stored` geometry gets its codes, matrices and unit, so that it covers the file that these came from
    in every viewer; another one gets the affine in millimetres as sform and qform, both with code 1. Equal volumes give
    equal files: the compressed stream holds no time stamp and no name.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.

    Note: NIfTI-1 keeps the affine in float32. A sheared affine (tilted gantry) cannot be said as a quaternion; then
        only the `sform` is marked as valid.
    """
    _write(path, portable(volume.array).transpose(2, 1, 0), volume)


def write_frames(path: Path, frames: Sequence[Volume], like: Path | None = None) -> None:
    """Writes frames of one grid as compressed NIfTI-1 whose fourth axis is time; a single frame has three axes.

    Args:
        path: of the result.
        frames: each as `write_nifti` takes it; the geometry of the first is written.
        like: the NIfTI file whose time step and unit of time are written; None: they are not given.

    Raises:
        DataError: `like` cannot be read.
        UserError: see `write_nifti`.
    """
    if len(frames) == 1:
        write_nifti(path, frames[0])
    else:
        array = portable(np.stack([frame.array for frame in frames]))  # (T, D, H, W)
        _write(path, array.transpose(3, 2, 1, 0), frames[0], None if like is None else _read_header(like)[0])


def _write(path: Path, array: np.ndarray, volume: Volume, like: Header | None = None) -> None:
    """Writes an array (x, y, z) or (x, y, z, time) with the geometry of a volume and the time step of a header."""
    image = Nifti1Image(array, volume.affine, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, code="scanner")
    image.set_qform(volume.affine, code="unknown" if is_sheared(volume.affine) else "scanner")
    content = memoryview(image.to_bytes())
    header = Nifti1Header(bytes(content[:348]), check=False)
    if volume.stored is not None:
        write_geometry(header, volume.stored)
    if like is not None:
        header["pixdim"][4] = like.frame_step
        header["xyzt_units"] = int(header["xyzt_units"]) | like.time_code
    with (
        atomic_write(path) as temporary,
        temporary.open("wb") as stream,
        gzip.GzipFile("", "wb", GZIP_LEVEL, stream, mtime=0) as compressed,
    ):
        compressed.write(header.binaryblock)
        compressed.write(content[348:])


def voxel_hash(array: np.ndarray) -> str:
    """SHA-256 of an array's shape, dtype and values: equal for equal voxels however the file was compressed."""
    digest = hashlib.sha256(f"{array.shape} {array.dtype.str}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()
