"""Many small files of one kind as one array on disk, so that a training step reads memory instead of opening files."""

import glob
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from tqdm import tqdm

from util.errors import DataError, UserError
from util.files import atomic_write

logger = logging.getLogger(__name__)
DIGEST_LENGTH = 16


def packed(files: Sequence[Path], read: Callable[[Path], np.ndarray], cache: Path) -> np.ndarray:
    """All files as one read-only array (N, ...), memory-mapped from `<cache>-<digest>.npy`.

    The array is written at the first call, one file at a time, and again whenever names, sizes or times of the files
    have changed; what stood there for other files is then removed. So every selection of files, and every way to read
    them, needs a cache name of its own. Where nothing can be written, the array is held in memory.

    Args:
        files: in the order of the array's first axis.
        read: turns a file into an array; all of one shape and type.
        cache: folder and first part of the name; the files' names count relative to that folder.

    Raises:
        DataError: no files, a file is absent, or one differs from the first in shape or type.
    """
    if not files:
        raise DataError(f"{cache}: no files to pack. Check that the data set holds images of the split asked for.")
    path = cache.with_name(f"{cache.name}-{_digest(files, cache.parent)}.npy")
    found = _mapped(path, len(files))
    if found is not None:
        return found
    try:
        with atomic_write(path) as temporary, temporary.open("wb") as stream:
            _write(stream, _arrays(files, read, cache.name), len(files))
    except DataError:
        raise
    except UserError as error:
        logger.warning("%s Until then the files are read anew at every start and held in memory.", error)
        return _in_memory(_arrays(files, read, cache.name), len(files))
    _remove_older(cache, path)
    return np.lib.format.open_memmap(path, mode="r")


def _digest(files: Sequence[Path], folder: Path) -> str:
    """Names, sizes and times of the files as a short hexadecimal text."""
    digest = hashlib.sha256()
    for file in files:
        try:
            state = file.stat()
        except OSError as error:
            raise DataError(f"{file}: no such file ({error.strerror}). Run the step that makes it again.") from error
        digest.update(f"{os.path.relpath(file, folder)}\0{state.st_size}\0{state.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:DIGEST_LENGTH]


def _mapped(path: Path, count: int) -> np.ndarray | None:
    """The array at `path`; None where there is none, or it is damaged."""
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # what numpy raises for damaged files
        logger.info("%s: damaged (%s), made again", path, error)
        return None
    return array if len(array) == count else None


def _arrays(files: Sequence[Path], read: Callable[[Path], np.ndarray], name: str) -> Iterator[np.ndarray]:
    """The files' arrays, all of one shape and type."""
    first = None
    for file in tqdm(files, desc=f"packing {name}", disable=None, leave=False):
        array = read(file)
        first = array if first is None else first
        if (array.shape, array.dtype) != (first.shape, first.dtype):
            raise DataError(
                f"{file}: {array.dtype} of shape {array.shape}; expected {first.dtype} of shape {first.shape} as in "
                f"{files[0]}. Prepare the data set again."
            )
        yield array


def _write(stream: BinaryIO, arrays: Iterator[np.ndarray], count: int) -> None:
    """Writes in sequence: a full disk then raises an error, where writing to mapped memory would kill the process."""
    for position, array in enumerate(arrays):
        if position == 0:
            description = np.lib.format.dtype_to_descr(array.dtype)
            header = {"descr": description, "fortran_order": False, "shape": (count, *array.shape)}
            np.lib.format.write_array_header_1_0(stream, header)
        stream.write(array.tobytes())


def _in_memory(arrays: Iterator[np.ndarray], count: int) -> np.ndarray:
    first = next(arrays)
    whole = np.empty((count, *first.shape), first.dtype)
    whole[0] = first
    for position, array in enumerate(arrays, start=1):
        whole[position] = array
    whole.flags.writeable = False
    return whole


def _remove_older(cache: Path, path: Path) -> None:
    """Removes arrays of the same name for files that were; a process that still reads one keeps it until it ends."""
    for older in cache.parent.glob(f"{glob.escape(cache.name)}-{'[0-9a-f]' * DIGEST_LENGTH}.npy"):
        if older != path:
            with suppress(OSError):
                older.unlink()
