"""Atomic file writes: each file is written under a temporary name and then renamed. JSON and hashes."""

import errno
import glob
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from util.errors import UserError

NAME_CHARACTERS, SUFFIX_CHARACTERS = 30, 20  # of a file's name, in that of its temporary file
STALE_AFTER_S = 600  # age of a temporary file at which its writer must have been killed


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder, with the same suffixes; renames it to `path` when the block succeeds.

    Creates the folder if needed. If the block raises, the temporary file is deleted and `path` is unchanged.

    Raises:
        UserError: the folder is not writable, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_files(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_prefix(path), suffix=_suffix(path))
        os.close(handle)
    except OSError as error:
        raise _unwritable(path, error) from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def _prefix(path: Path) -> str:
    """How temporary names of a file begin; of a long name only a part, since names are limited to 255 bytes."""
    return f".writing-{path.name[:NAME_CHARACTERS]}-"


def _suffix(path: Path) -> str:
    """The suffixes, which tell some writers the format."""
    return "".join(path.suffixes[-2:])[-SUFFIX_CHARACTERS:]


def _remove_stale_files(path: Path) -> None:
    """Removes temporary files of `path` that a killed process left; younger ones may still be written to."""
    for leftover in path.parent.glob(f"{glob.escape(_prefix(path))}*"):
        with suppress(FileNotFoundError):  # another process may just have renamed it
            if time.time() - leftover.stat().st_mtime > STALE_AFTER_S:
                leftover.unlink()


def _unwritable(path: Path, error: OSError) -> UserError:
    if error.errno == errno.ENAMETOOLONG:
        remedy = "Shorten the name of the file that this one is made from"
    else:
        remedy = f"Free some disk space, make {path.parent} writable or choose another output folder"
    return UserError(
        f"{path}: cannot be written ({error.strerror or error}). Existing files are unchanged. {remedy}; then run the "
        "same command again."
    )


def ensure_writable(folder: Path) -> Path:
    """Creates the folder if needed and checks that it is writable, so that a run fails early if not; returns it.

    Raises:
        UserError: the folder is not writable.
    """
    with atomic_write(folder / ".writable"):
        pass
    (folder / ".writable").unlink(missing_ok=True)
    return folder


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically; bytes of file names that are no UTF-8 are written as escapes."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: the file is missing or is not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}). Run the step that wrote it again.") from error


def short_digest(values: Mapping[str, Any]) -> str:
    """First eight hexadecimal digits of the SHA-256 of JSON-serialisable values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
