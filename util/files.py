"""Atomic file writes: each file is written under a temporary name and then renamed. Text, JSON, JSON5 and hashes."""

import codecs
import errno
import glob
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import json5

from util.errors import DataError, UserError

LARGEST_TEXT_BYTES = 2**28  # of JSON and CSV files
LARGEST_JSON5_BYTES = 2**20  # they are written by hand, and parsed slowly
LONGEST_REASON = 300  # characters of a parser's own message
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


def read_text(path: Path, remedy: str = "", largest_bytes: int = LARGEST_TEXT_BYTES) -> str:
    """Reads a text file in UTF-8, with or without byte order mark, or in UTF-16 with one, as spreadsheets write it.

    Args:
        path: the file.
        remedy: what to do where it cannot be read; the end of the message.
        largest_bytes: larger files are refused unread.

    Raises:
        DataError: absent, unreadable, too large, in another encoding, or with NUL characters.
    """
    try:
        with path.open("rb") as stream:
            content = stream.read(largest_bytes + 1)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}). {remedy}".rstrip()) from error
    if len(content) > largest_bytes:
        raise DataError(f"{path}: larger than {largest_bytes} bytes, the most that is read. {remedy}".rstrip())
    is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = content.decode("utf-16" if is_utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: cannot be read: not UTF-8 ({error}). Save it in UTF-8. {remedy}".rstrip()) from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}, line {line}: a NUL character; expected text. The file is damaged. {remedy}".rstrip())
    return text


def read_json(path: Path) -> Any:
    """Reads a JSON file; numbers may be NaN, as `write_json` writes undefined ones.

    Raises:
        DataError: the file is missing, too large, or is not valid JSON: also where a key is given twice, brackets are
            nested too deeply or a number has thousands of digits.
    """
    text = read_text(path, "Run the step that wrote it again.")
    try:
        return json.loads(text, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise DataError(f"{path}: not valid JSON ({reason}). Run the step that wrote it again.") from error


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Raises:
        DataError: see `read_json`; or it holds something else.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        found = type(content).__name__
        raise DataError(f"{path}: holds a {found}; expected {{...}}, an object. Run the step that wrote it again.")
    return content


def read_json5(path: Path, remedy: str = "") -> Any:
    """Reads a JSON5 file that a person wrote: up to 1 MiB, finite numbers only.

    Args:
        path: the file.
        remedy: what to do where it cannot be read; the end of the message.

    Raises:
        DataError: the file is missing, too large, or is not valid JSON5: also where a key is given twice, brackets are
            nested too deeply, or a number is NaN, infinite or has thousands of digits.
    """
    text = read_text(path, remedy, LARGEST_JSON5_BYTES)
    try:
        content = json5.loads(text, allow_duplicate_keys=False)
        _refuse_infinite(content)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise DataError(f"{path}: not valid JSON5 ({reason}). Correct that place.") from error
    return content


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:40]!r} is given twice")
    return content


def _refuse_infinite(content: Any) -> None:
    if isinstance(content, float) and not math.isfinite(content):
        raise ValueError(f"the number {content}; expected finite ones")
    for each in content.values() if isinstance(content, dict) else content if isinstance(content, list) else ():
        _refuse_infinite(each)


def short_digest(values: Mapping[str, Any]) -> str:
    """First eight hexadecimal digits of the SHA-256 of JSON-serialisable values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
