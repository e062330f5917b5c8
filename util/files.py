"""Files that are either whole or absent: every write goes to a temporary name first and is renamed."""

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

LEFTOVER_AFTER_S = 600  # no single file takes longer to write


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder, with the same suffixes; renames it to `path` when the block succeeds.

    The folder is made when absent. When the block fails nothing is left behind and `path` keeps its former content.

    Raises:
        UserError: the folder cannot be written to, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        handle, name = tempfile.mkstemp(
            dir=path.parent, prefix=f".writing-{path.name}-", suffix="".join(path.suffixes[-2:])
        )
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


def _remove_leftovers(path: Path) -> None:
    """Removes what a killed process left half written of `path`; what is younger may still be in the making."""
    for leftover in path.parent.glob(f".writing-{glob.escape(path.name)}-*"):
        with suppress(FileNotFoundError):  # another process may just have renamed it
            if time.time() - leftover.stat().st_mtime > LEFTOVER_AFTER_S:
                leftover.unlink()


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(
        f"{path}: cannot be written ({error.strerror or error}). Nothing that stood there was changed. Free some space "
        f"or make {path.parent} writable, or choose another output folder; then run the same command again."
    )


def writable(folder: Path) -> Path:
    """Makes the folder if need be and checks that files can be written to it, before anything is computed for it.

    Raises:
        UserError: they cannot.
    """
    with replacing(folder / ".writable"):
        pass
    (folder / ".writable").unlink(missing_ok=True)
    return folder


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        UserError: the file is absent or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error}). Let the step that wrote it write it again.") from error


def digest_of(values: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that tell such values apart; they are what JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
