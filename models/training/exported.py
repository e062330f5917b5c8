"""Reads exported networks: weights in `model.safetensors`, what rebuilds the method in `model.json`; no code."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from models.training.state import FORMAT as CONTENT_FORMAT
from util.errors import CheckpointError, DataError
from util.files import file_sha256, read_json_object
from util.runtime.checkpoint import DamagedError

FORMAT = "frugalseg-export-1"
WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
# Keys of model.json; those of a checkpoint have the same content there.
KEPT = ("step", "settings", "dataset", "normalisation", "preparation")
OWN = ("format", "weights", "weights_sha256")
REVIEW = "review"  # which masks are to be looked at, see `ReviewRule`; only where a validation chose it
REMEDY = "Copy the folder again, or export the checkpoint again with `frugalseg export`."


def is_export(path: Path) -> bool:
    """Whether a path names the folder of an exported network, or its weights."""
    return path.suffix == ".safetensors" or any((path / name).is_file() for name in (WEIGHTS, DESCRIPTION))


def weights_of(path: Path) -> Path:
    """The file of weights in the folder of an exported network; any other path as it is."""
    return path / WEIGHTS if path.is_dir() and is_export(path) else path


def read_export(path: Path) -> dict[str, Any]:
    """The content of an exported network, with the keys of a snapshot.

    Args:
        path: the folder, or the weights in it.

    Returns:
        `method` holds the exported weights; if these are averaged ones, so does `ema`.

    Raises:
        DamagedError: the weights are not those that were exported with the description.
        CheckpointError: a file is missing, unreadable, or of another kind.
    """
    weights = weights_of(path)
    description = weights.with_name(DESCRIPTION)
    for file in (weights, description):
        if not file.is_file():
            raise CheckpointError(
                f"{path}: no {file.name} in {file.parent}; expected the folder of an exported network, with {WEIGHTS} "
                f"and {DESCRIPTION}. {REMEDY}"
            )
    content = _read_description(description)
    try:
        if file_sha256(weights) != content["weights_sha256"]:
            raise DamagedError(
                f"{weights}: damaged, or not the weights that {description} describes (their SHA-256 differ). {REMEDY}"
            )
        state = load_file(weights)
    except SafetensorError as error:
        raise DamagedError(f"{weights}: not a file of safetensors ({error}). {REMEDY}") from error
    except OSError as error:
        raise CheckpointError(f"{weights}: cannot be read ({error.strerror or error}).") from error
    found = {"format": CONTENT_FORMAT, "history": [], "method": state}
    found |= {key: content[key] for key in (*KEPT, REVIEW) if key in content}
    return found | ({"ema": state} if content["weights"] == "ema" else {})


def _read_description(path: Path) -> dict[str, Any]:
    try:
        content = read_json_object(path)
    except DataError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    if content.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: format {content.get('format')!r}; expected {FORMAT!r}, as `frugalseg export` writes it."
        )
    missing = [key for key in (*OWN, *KEPT) if key not in content]
    if missing or not isinstance(content["settings"], dict) or "method" not in content["settings"]:
        raise CheckpointError(f"{path}: no {', '.join(missing) or 'method in settings'}. {REMEDY}")
    return content
