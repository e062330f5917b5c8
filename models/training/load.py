"""Loads trained weights: our snapshots, checkpoints and exports, and files of the authors of SSL-ALPNet."""

import logging
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dataloaders.scans.normalise import Normalisation
from dataloaders.scans.preprocess import PrepareParameters
from dataloaders.sources.frames import SliceRule
from models import build_method, method_class
from models.methods.base import Method
from models.networks.generic_unet import find_weights
from models.training.exported import is_export, read_export
from models.training.state import FORMAT
from util.errors import CheckpointError, ConfigError
from util.runtime import checkpoint
from util.schema import build, names_with_role

logger = logging.getLogger(__name__)

# In the released checkpoints, layers that the published model never uses.
_UNUSED = ("encoder.asppconv.", "encoder.aspp_out.")


@dataclass(frozen=True)
class Trained:
    """A method ready to predict."""

    method: Method  # in evaluation mode
    normalisation: Normalisation | None  # None: not stored in the file (released checkpoints)
    preparation: PrepareParameters | None  # likewise
    step: int | None
    history: list[dict[str, float]] = field(default_factory=list)  # results of the evaluations during training
    slices: SliceRule | None = None  # how slices are normalised; None: not slice by slice


def read_trained(path: Path) -> dict[str, Any]:
    """Reads a file of trained weights: a snapshot or checkpoint of ours, or a state dict; or an exported network.

    Raises:
        CheckpointError: unreadable, refused, damaged, or none of these; or a U-Net that is to be exported first.
    """
    content = read_export(path) if is_export(path) else checkpoint.load(path)
    if find_weights(content) is not None:
        raise CheckpointError(
            f"{path}: a U-Net of the authors of superpixel-guided learning or T-Loss. Make a model of it first: "
            "`frugalseg export FILE --dataset isic2017 --loss tloss --size-px 128 --out my_model`."
        )
    weights: Any = content
    if "format" in content or "settings" in content:
        settings, weights = content.get("settings"), content.get("method")
        is_ours = content.get("format") == FORMAT and isinstance(settings, dict) and "method" in settings
        missing = [key for key in ("step", "normalisation", "preparation") if key not in content]
        if missing or not is_ours or not isinstance(weights, dict):
            raise CheckpointError(
                f"{path}: not a checkpoint of this program, though it resembles one (format "
                f"{content.get('format')!r}). Use a checkpoint.pt or snapshot that training.py wrote."
            )
    foreign = [
        str(name) for name, value in weights.items() if not (isinstance(name, str) and isinstance(value, Tensor))
    ]
    if foreign or not weights:
        raise CheckpointError(
            f"{path}: holds {', '.join(foreign[:5]) or 'nothing'} in place of weights by name; expected a "
            "checkpoint.pt or snapshot that training.py wrote, or the state dict of a few-shot network."
        )
    return content


def load_trained(path: Path, settings: dict[str, Any], weights: str, device: torch.device) -> Trained:
    """Builds the method of `settings` and loads its weights.

    Args:
        path: a snapshot, checkpoint or export of ours, or a state dict as released by SSL-ALPNet's authors.
        settings: all configuration keys, flat; the encoder is built without pretrained weights.
        weights: "last" or "ema"; released files contain one set only.
        device: where to move it.

    Raises:
        CheckpointError: unreadable, refused, of another model, or without averaged weights.
    """
    content = read_trained(path)
    if "format" in content:
        settings = settings | {key: content["settings"][key] for key in _architecture(content["settings"])}
        if weights == "ema" and "ema" not in content:
            raise CheckpointError(
                f"{path}: contains no averaged weights: its method averages none, or others were exported; use "
                "weights=last."
            )
        state, step = content["method" if weights == "last" else "ema"], content["step"]
        normalisation = Normalisation.from_dict(content["normalisation"])
        preparation, slices = _preparation(content["preparation"])
    else:
        state = {key: value for key, value in content.items() if not key.startswith(_UNUSED)}
        step = normalisation = preparation = slices = None
    history = content.get("history", []) if "format" in content else []
    method = build_method(settings | {"encoder_weights": "none"})
    check_fit(path, method.state_dict(), state)
    method.load_state_dict(state)
    logger.info("weights of %s, step %s", path, "unknown" if step is None else step)
    return Trained(method.to(device).eval(), normalisation, preparation, step, history, slices)


def load_with_encoder(path: Path, settings: dict[str, Any], weights: str, device: torch.device) -> Trained:
    """Builds a method that is not trained itself, on the encoder of a trained few-shot network.

    Args:
        path: checkpoint or snapshot of ours of a method with an encoder.
        settings: all configuration keys of the method to build, flat; the encoder's are taken from the file.
        weights: "last" or "ema".
        device: where to move it.

    Raises:
        ConfigError: the method has no encoder.
        CheckpointError: unreadable, or without an encoder of a few-shot network.
    """
    if "use_projection" not in settings:
        raise ConfigError(f"method={settings['method']!r} has nothing to load; leave reload_model_path out.")
    content = read_trained(path)
    stored = content.get("settings", {})
    if "modelname" not in stored or method_class(stored["method"]).family != "fewshot":
        raise CheckpointError(f"{path}: no encoder of a few-shot network; expected a checkpoint of alpnet.")
    trained = load_trained(path, stored, weights, device)
    encoder = {key: value for key, value in trained.method.state_dict().items() if key.startswith("encoder.")}
    chosen = {"modelname": stored["modelname"], "encoder_weights": "none", "use_projection": True}
    method = build_method(settings | chosen)
    check_fit(path, method.state_dict(), encoder)
    method.load_state_dict(encoder)
    return replace(trained, method=method.to(device).eval(), history=[])


def _preparation(recorded: dict[str, Any] | None) -> tuple[PrepareParameters | None, SliceRule | None]:
    """How scans were prepared, and how their slices were normalised; None: not recorded."""
    scan = dict(recorded or {})
    slices = scan.pop("slices", None)
    return PrepareParameters.from_json(scan) if scan else None, None if slices is None else build(SliceRule, slices)


def _architecture(settings: dict[str, Any]) -> list[str]:
    known = {"method"} | names_with_role("architecture", method_class(settings["method"]).Config)
    return [key for key in settings if key in known]


def check_fit(path: Path, wanted: dict[str, Tensor], found: dict[str, Any]) -> None:
    """Checks that weights by name are those of a model.

    Raises:
        CheckpointError: some are missing, unknown, or of another shape.
    """
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    misfit = [key for key in wanted if key in found and getattr(found[key], "shape", None) != wanted[key].shape]
    if missing or extra or misfit:
        example = (missing + extra + misfit)[0]
        raise CheckpointError(
            f"{path}: weights of another model: {len(missing)} entries missing, {len(extra)} unknown, {len(misfit)} "
            f"of another shape, such as {example}. Use the modelname it was trained with."
        )
