"""Resuming a run from its checkpoint, and prolonging a shorter run."""

import logging
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from models.training.state import FORMAT, TrainingState
from util.errors import CheckpointError, UserError
from util.runtime import checkpoint

logger = logging.getLogger(__name__)

# Entries of a checkpoint that a snapshot lacks.
_FOR_TRAINING = ("optimisers", "averaged_count", "random_state", "scalars", "means", "n_replaced_labels")
_FOR_PREDICTION = ("step", "settings", "normalisation", "method", "history")


def load_resumable(path: Path, device: torch.device) -> dict[str, Any] | None:
    """Reads the newest intact checkpoint of a run; None if there is none.

    Raises:
        CheckpointError: all are damaged, or the file is no checkpoint that training can resume from.
    """
    content = checkpoint.load_newest(path, device)
    if content is None:
        return None
    previous = checkpoint.previous_path(path)
    then = f"resumes from {previous.name}" if previous.exists() and path.exists() else "trains from the start"
    remedy = f"Move it elsewhere: the same command then {then}."
    settings = content.get("settings")
    is_ours = content.get("format") == FORMAT and isinstance(settings, dict) and "method" in settings
    if not is_ours or any(key not in content for key in _FOR_PREDICTION):
        held = ", ".join(sorted(map(str, content))[:5]) or "nothing"
        raise CheckpointError(f"{path}: not a checkpoint of this program (holds {held}). {remedy}")
    missing = [key for key in _FOR_TRAINING if key not in content]
    if missing:
        raise CheckpointError(
            f"{path}: a snapshot of step {content['step']}: weights without {', '.join(missing)}, from which training "
            f"cannot resume. {remedy} Validation and prediction can use it (reload_model_path=FILE, --checkpoint FILE)."
        )
    return content


def restore(state: TrainingState, content: Mapping[str, Any], path: Path) -> None:
    """Restores a checkpoint from `load_resumable`.

    Raises:
        CheckpointError: its content does not fit the method, as after a change of the program.
    """
    try:
        state.load_state_dict(content)
    except (UserError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, LookupError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(
            f"{path}: does not fit the method of this version of the program ({type(error).__name__}: {reason}). Use "
            "the version that wrote it, or move the file elsewhere to train from the start."
        ) from error


def log_shorter_runs(folder: Path, differing: Callable[[Mapping[str, Any]], set[str]], can_prolong: bool) -> None:
    """Logs the longest run next to a new one that differs in a smaller `n_steps` alone, and how to prolong it.

    Args:
        folder: of the new run.
        differing: the keys in which settings differ from the new run's.
        can_prolong: whether no learning rate depends on the length of the run.
    """
    found = []
    for path in folder.parent.glob(f"{folder.name.rpartition('_')[0]}_*/checkpoint.pt"):
        content = checkpoint.peek(path) if path.parent != folder else {}
        with suppress(UserError, LookupError, TypeError):  # a file that is no checkpoint of this version
            if differing(content["settings"]) == {"n_steps"}:
                found.append((int(content["step"]), path.parent))
    if not found:
        return
    step, other = max(found)
    if can_prolong:
        copied = shlex.join(["cp", "-r", f"{other}/.", str(folder)])
        logger.info(
            "%s: the same training with another n_steps, at step %d. To prolong it in place of training from step 0, "
            "stop this run, run `%s` and the same command again: the weights are the same.",
            *(other, step, copied),
        )
    else:
        logger.info(
            "%s: the same training with another n_steps, at step %d. It cannot be prolonged: its learning rate follows "
            "n_steps (optim.schedule).",
            *(other, step),
        )
