"""What a checkpoint says about its training: the family of the method and the data set."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dataloaders import catalog
from dataloaders.description import DatasetSpec
from models import method_class
from util.errors import CheckpointError, ConfigError

USES = {
    "fewshot": "few-shot (segments scans)",
    "self_trained": "self-trained (segments scans without support)",
    "dense": "dense (segments images)",
    "sources": "of several sources (segments scans without support)",
    "partial": "of several tasks (segments images)",
    "partial_scans": "of several tasks (segments scans without support)",
}


def family(content: Mapping[str, Any]) -> str:
    """The family of the method in a checkpoint; released checkpoints, which hold weights alone, are few-shot.

    Methods of several tasks that were trained on scans are "partial_scans", few-shot ones that need no annotated scan
    any more "self_trained".

    Raises:
        ConfigError: a method that does not exist.
    """
    method = method_class(content["settings"]["method"]) if "settings" in content else None
    found = "fewshot" if method is None else method.family
    if method is not None and method.knows_classes:
        return "self_trained"
    dataset = content.get("dataset")
    is_of_scans = found == "partial" and isinstance(dataset, Mapping) and dataset.get("kind") == "scans"
    return "partial_scans" if is_of_scans else found


def require_family(path: Path, content: Mapping[str, Any], expected: str) -> None:
    """Checks the family of the method in a checkpoint.

    Raises:
        CheckpointError: another one.
    """
    found = family(content)
    if found != expected:
        name = content.get("settings", {}).get("method", "released weights")
        raise CheckpointError(
            f"{path}: method {name} is {USES.get(found, found)}; expected one that is {USES[expected]}."
        )


def find_dataset(path: Path, content: Mapping[str, Any], kind: catalog.Kind, given: str | None) -> DatasetSpec:
    """The description stored in a checkpoint; else that of the data set it names; else the given one.

    Args:
        path: of the checkpoint, for messages.
        content: of the checkpoint.
        kind: what the method segments.
        given: name or description of a data set; None: not given.

    Raises:
        ConfigError: nothing says what the network was trained on, or the given data set is another one.
    """
    described, name = content.get("dataset"), content.get("settings", {}).get("dataset")
    if described is not None:
        spec = DatasetSpec.from_dict(described)
    elif name or given:
        spec = catalog.dataset(name or str(given), kind)
    else:
        raise ConfigError(
            f"{path}: does not contain its data set; name it with --dataset: "
            f"{', '.join(catalog.dataset_names(kind))}, or the path of a description."
        )
    if given is not None and catalog.dataset(given).name != spec.name:
        raise ConfigError(f"{path}: trained on {spec.name}, not on {given}. Leave dataset out.")
    return spec
