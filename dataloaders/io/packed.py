"""Many small files of one kind as one array on disk, so that a training step reads memory instead of opening files."""

import glob
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np

from util.errors import DataError, UserError
from util.files import atomic_write
from util.progress import ProgressBar
from util.records import digest, hash_files

logger = logging.getLogger(__name__)
DIGEST_LENGTH = 16


def packed(
    files: Sequence[Path], read: Callable[[Path], np.ndarray], cache: Path, folder: Path | None = None
) -> np.ndarray:
    """All files as one read-only array (N, ...), memory-mapped from `<cache>-<digest>.npy`.

    The array is written at the first call, one file at a time, and again whenever names or contents of the files have
    changed (see `util.records.hash_files`); what stood there for other files is then removed. So every selection of
    files, and every way to read them, needs a cache name of its own. Where nothing can be written, the array is held
    in memory.

    Args:
        files: in the order of the array's first axis.
        read: turns a file into an array; all of one shape and type.
        cache: folder and first part of the name.
        folder: relative to which the files' names count, and where their hashes are remembered; None: that of `cache`.

    Raises:
        DataError: no files, a file is absent, or one differs from the first in shape or type.
    """
    if not files:
        raise DataError(f"{cache}: no files to pack. Check that the data set holds images of the split asked for.")
    path = cache.with_name(f"{cache.name}-{_digest(files, folder or cache.parent)}.npy")
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
    """Names and contents of the files, in their order, as a short hexadecimal text."""
    found = hash_files(files, folder)
    if len(found) < len(set(files)):
        missing = next(file for file in files if not file.exists())
        raise DataError(f"{missing}: no such file. Run the step that makes it again.")
    return digest(found)[:DIGEST_LENGTH]


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
    for file in ProgressBar(files, desc=f"packing {name}", leave=False):
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
