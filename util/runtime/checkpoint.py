"""Checkpoints: written atomically, the previous one kept, read without executing code in them."""

import logging
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from util.errors import CheckpointError
from util.files import atomic_write

logger = logging.getLogger(__name__)


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
        torch.save(content, temporary)
        if keep_previous and path.exists():
            path.replace(previous_path(path))


def previous_path(path: Path) -> Path:
    """Path of the checkpoint before the last, as kept by `save(keep_previous=True)`."""
    return path.with_name(f"{path.name}.previous")


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Reads a checkpoint as plain data (`weights_only`); a file that contains code is refused.

    Raises:
        CheckpointError: missing, damaged, or not a dictionary of tensors and plain values.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint. Check the path, or train first.")
    try:
        content = torch.load(path, map_location=device, weights_only=True)
    except (pickle.UnpicklingError, OSError, RuntimeError, ValueError, EOFError, KeyError) as error:
        if isinstance(error, pickle.UnpicklingError) and "GLOBAL" in str(error):
            raise CheckpointError(
                f"{path}: refused: it contains more than tensors and plain values; reading it could run hidden code. "
                "Use a checkpoint saved as a state dict, from a source you trust."
            ) from error
        raise CheckpointError(
            f"{path}: damaged, or not a checkpoint ({type(error).__name__}). Copy it again, or use "
            f"{previous_path(path).name} or an earlier snapshot."
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: contains a {type(content).__name__}; expected a dictionary.")
    return content


def load_newest(path: Path, device: torch.device | str = "cpu") -> dict[str, Any] | None:
    """Reads `path`, or the previous one if `path` is damaged or missing; None if there is neither.

    Raises:
        CheckpointError: both exist and both are damaged.
    """
    candidates = [candidate for candidate in (path, previous_path(path)) if candidate.exists()]
    for candidate in candidates:
        try:
            content = load(candidate, device)
        except CheckpointError as error:
            if candidate == candidates[-1]:
                raise
            logger.warning("%s Resuming from %s.", error, previous_path(path))
            with suppress(FileNotFoundError):  # so that no later save moves it over the intact one
                candidate.replace(candidate.with_name(f"{candidate.name}.damaged"))
        else:
            return content
    return None
