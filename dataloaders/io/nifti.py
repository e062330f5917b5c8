"""Scans in and out of files, with their geometry.

Here and in `dataloaders/io/dicom.py`, (x, y, z) file order meets our (z, y, x); nowhere else.
"""

import gzip
import hashlib
import zlib
from collections.abc import Iterator
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

HEADER_SUFFIXES = (".hdr", ".hdr.gz")
VOXEL_SUFFIXES = (".img", ".img.gz")
SINGLE_SUFFIXES = (".nii", ".nii.gz")


def is_nifti(path: Path) -> bool:
    """Whether a file's name is that of one NIfTI scan: `*.nii`, `*.nii.gz`, or the header of a pair.

    The voxels of a pair, `*.img`, are not: the header next to them stands for both.
    """
    name = path.name.lower()
    if name.endswith(HEADER_SUFFIXES):
        return pair_of(path) is not None
    return name.endswith(SINGLE_SUFFIXES)


def nifti_stem(path: Path) -> str:
    """The name of a file without the suffix of NIfTI; other suffixes are kept."""
    suffixes = (*SINGLE_SUFFIXES, *HEADER_SUFFIXES, *VOXEL_SUFFIXES)
    found = max((suffix for suffix in suffixes if path.name.lower().endswith(suffix)), key=len, default="")
    return path.name[: len(path.name) - len(found)]


def pair_of(path: Path) -> tuple[Path, Path] | None:
    """Header and voxels of the pair (`*.hdr`, `*.img`) to which a file belongs; None where it has no partner."""
    own, others = (HEADER_SUFFIXES, VOXEL_SUFFIXES)
    is_header = path.name.lower().endswith(own)
    if not is_header and not path.name.lower().endswith(others):
        return None
    wanted = [f"{nifti_stem(path)}{suffix}".lower() for suffix in (others if is_header else own)]
    partners = [each for each in path.parent.iterdir() if each.name.lower() in wanted] if path.exists() else []
    exact = [each for each in partners if nifti_stem(each) == nifti_stem(path)] or partners
    if not exact:
        return None
    return (path, min(exact)) if is_header else (min(exact), path)


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
    try:
        _check_size(header, voxels)
        array = _read_voxels(header, voxels).reshape(header.shape[:3], order="F")
        with np.errstate(all="ignore"):
            array = apply_read_scaling(array, *map(np.float64, header.scale))
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    except DataError as error:
        raise DataError(f"{voxels}: {error}") from error
    except MemoryError as error:
        raise DataError(
            f"{voxels}: {_size_in_words(header)}, more than there is memory. Crop the scan first."
        ) from error
    return Volume(np.ascontiguousarray(array.transpose(2, 1, 0)), header.affine, header.stored)


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
        raise DataError(f"{file}: {found}. Run `python -m data.prepare` or `python -m data.check` on the folder.")
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


def _size_in_words(header: Header) -> str:
    gib = header.n_voxels * BYTES_PER_VOXEL / GIB
    shape = " x ".join(map(str, header.shape[:3]))
    return f"the header asks for {shape} voxels of {header.dtype.itemsize} bytes, which need {gib:.3g} GiB of memory"


def _check_size(header: Header, voxels: Path) -> None:
    """Compares what the header asks for with what the file can hold and with the memory."""
    asked, held = header.offset + header.n_bytes, voxels.stat().st_size
    with voxels.open("rb") as stream:
        is_compressed = stream.read(2) == GZIP_MAGIC
    limit = held * GZIP_RATIO if is_compressed else held
    if asked > limit:
        shape = " x ".join(map(str, header.shape[:3]))
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
    array = portable(volume.array)
    image = Nifti1Image(array.transpose(2, 1, 0), volume.affine, dtype=array.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, code="scanner")
    image.set_qform(volume.affine, code="unknown" if is_sheared(volume.affine) else "scanner")
    content = memoryview(image.to_bytes())
    header = Nifti1Header(bytes(content[:348]), check=False)
    if volume.stored is not None:
        write_geometry(header, volume.stored)
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
