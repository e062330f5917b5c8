"""Checkpoints: written atomically, the previous one kept, checked bit by bit, read without executing code in them."""

import errno
import logging
import os
import pickle
import shutil
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from util.errors import CheckpointError
from util.files import atomic_write
from util.ids import natural_key

logger = logging.getLogger(__name__)

FULL_BELOW_BYTES = 1 << 20  # free space at which a disk counts as full


class DamagedError(CheckpointError):
    """The bytes of a checkpoint are not those that were written."""


def save(path: Path, content: dict[str, Any], keep_previous: bool = False) -> None:
    """Writes `content` (tensors, numbers, text, and lists, tuples and dicts of them) to `path`.

    Args:
        path: the checkpoint.
        content: what to save.
        keep_previous: keep the existing file as `<name>.previous`, so that at any time at least one is intact.

    Raises:
        UserError: the folder cannot be written to, or the disk is full; the existing file is untouched.
    """
    with atomic_write(path) as temporary:
        _write(content, temporary)
        if keep_previous and path.exists():
            path.replace(previous_path(path))


def _write(content: dict[str, Any], path: Path) -> None:
    """Writes a file to the disk.

    Raises:
        OSError: the disk is full, or another limit was reached. PyTorch reports both as errors of its own.
    """
    try:
        torch.save(content, path)
        with path.open("rb+") as stream:
            os.fsync(stream.fileno())
    except RuntimeError as error:
        if not any(sign in str(error) for sign in ("inline_container", "PytorchStreamWriter", "iostream")):
            raise
        if shutil.disk_usage(path.parent).free < FULL_BELOW_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise OSError(errno.EFBIG, "cut short by a full disk, a quota or a limit of the file size") from error


def peek(path: Path) -> dict[str, Any]:
    """The content of a checkpoint for a glance: tensors stay on the disk, bytes are not checked; {} if unreadable."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # noqa: BLE001 - as in `load`; a glance stops nothing
        return {}
    return content if isinstance(content, dict) else {}


def previous_path(path: Path) -> Path:
    """Path of the checkpoint before the last, as kept by `save(keep_previous=True)`."""
    return path.with_name(f"{path.name}.previous")


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a checkpoint as plain data (`weights_only`) after checking its bytes; a file that contains code is refused.

    Raises:
        DamagedError: truncated, changed, or not a checkpoint.
        CheckpointError: missing, unreadable, with code, or not a dictionary of tensors and plain values.
    """
    if not path.is_file():
        what = "a folder, not a checkpoint" if path.is_dir() else "no such checkpoint"
        raise CheckpointError(f"{path}: {what}. Check the path, or train first.")
    try:
        is_intact = _check_bytes(path)
        content = torch.load(path, map_location=device, weights_only=True)
    except (DamagedError, torch.OutOfMemoryError):
        raise
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except Exception as error:
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path}: refused: it contains more than tensors and plain values; reading it could run hidden code. "
                "Use a checkpoint saved as a state dict, from a source you trust."
            ) from error
        if is_intact:
            raise CheckpointError(f"{path}: intact, but not a checkpoint ({_first_line(error)}).") from error
        raise _damaged(path, type(error).__name__) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: contains a {type(content).__name__}; expected a dictionary.")
    return content


def _check_bytes(path: Path) -> bool:
    """Compares all bytes of a checkpoint with the checksums in it, which `torch.load` does not.

    Returns:
        Whether they were compared; not possible for files of the format before PyTorch 1.6.

    Raises:
        DamagedError: they differ, or the file claims more than it holds.
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        if stream.read(4) != b"PK\x03\x04":
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            claimed = sum(part.file_size for part in parts)
            if claimed > path.stat().st_size or any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise _damaged(path, f"{claimed} bytes of content in a file of {path.stat().st_size}")
            first_bad = archive.testzip()
    except DamagedError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that of seeking to an impossible place
            raise
        raise _damaged(path, type(error).__name__) from error
    if first_bad is not None:
        raise _damaged(path, f"checksum of {first_bad}")
    return True


def _damaged(path: Path, what: str) -> DamagedError:
    """The error, with what else can be used in place of the file."""
    snapshots = [*path.parent.glob("snapshots/*.pth"), *path.parent.glob("*.pth")]
    others = [previous_path(path), *sorted(snapshots, key=lambda file: natural_key(file.stem), reverse=True)]
    intact = next((str(other) for other in others if other.is_file() and other != path), None)
    remedy = f", or use {intact}" if intact else ""
    return DamagedError(f"{path}: damaged, or not a checkpoint ({what}). Copy it again{remedy}.")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def load_newest(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Reads `path`, or the previous one if `path` is damaged or missing; None if there is neither.

    A damaged file is renamed to `<name>.damaged` if the previous one is intact.

    Raises:
        CheckpointError: all that exist are damaged, or one cannot be read.
    """
    candidates = [candidate for candidate in (path, previous_path(path)) if candidate.exists()]
    damaged: list[Path] = []
    for candidate in candidates:
        try:
            content = load(candidate, device)
        except DamagedError as error:
            damaged.append(candidate)
            logger.warning("%s", error)
        except CheckpointError:
            if candidate.exists():
                raise  # else another process of this run has just put it aside
        else:
            for each in damaged:
                logger.warning("Resuming from %s.", candidate)
                with suppress(FileNotFoundError):  # so that no later save moves it over the intact one
                    each.replace(each.with_name(f"{each.name}.damaged"))
            return content
    if damaged:
        listed = " and ".join(map(str, damaged))
        raise CheckpointError(
            f"{listed}: damaged, and no other checkpoint of this run is left. Copy one of them again, or move "
            f"{'both' if len(damaged) > 1 else 'it'} elsewhere to train from the start. Snapshots in "
            f"{path.parent / 'snapshots'} serve validation and prediction only (reload_model_path=)."
        )
    return None
