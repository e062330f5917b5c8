"""The model card: what the network is, what it was trained on, how good it is, and what it must not be used for."""

import inspect
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dataloaders.build import FAMILIES
from dataloaders.samples import Task
from models.export.network import IMAGES, PREDICTORS_READ, Network, without_paths
from models.export.onnx import OPSET, OnnxFile
from models.methods.base import Method
from models.prediction.origin import USES
from models.prediction.partial import values_of
from models.training.average import AverageConfig
from models.training.exported import DESCRIPTION, REVIEW, WEIGHTS
from models.training.optim import OptimConfig
from models.training.trained_on import trained_cases
from util.errors import DataError
from util.results.report.record import read_record
from util.results.tables import markdown_header, markdown_row
from util.schema import build, flatten, names_with_role

CARD = "MODEL_CARD.md"
ALWAYS = ("n_steps", "batch_size", "seed", "precision")  # settings that are listed even with their defaults
FOLLOWING = {*PREDICTORS_READ, "dataset", "datasets", "sources"} - {"label_sets"}  # settings that other sections tell
ONNX_OUTPUTS = {
    "dense": "logits of the background and the classes; their softmax are the probabilities",
    "sources": "logits of the background and the classes; their softmax are the probabilities",
    "partial": "logits of the classes of all tasks, in the order above; their sigmoids are the probabilities",
    "fewshot": "features of the encoder alone; the comparison with annotated scans is not part of the file",
    "self_trained": "logits of the background and the classes; their softmax are the probabilities",
}
LIMITS = """\
For research only. Not a medical device: it must not be used for diagnosis or treatment, and has no approval of any
authority. It always returns a segmentation, also of images for which it is not meant. Expect worse results on images
of other devices, protocols, patients or body parts than those of the training data. Check results on annotated data
of your own before you rely on them.
"""
LICENCE = """\
The code is under the Apache License 2.0. Weights inherit the terms of the data they were trained on and of the
pretrained weights they started from: both must allow what you do with them.
"""


def write_card(
    folder: Path, network: Network, checkpoint: Path, digest: str, scores: str, onnx: OnnxFile | None
) -> None:
    """Writes the model card; it holds neither paths nor ids of cases.

    Args:
        folder: where to write it.
        network: that is exported.
        checkpoint: it came from; records next to it tell the number of cases and the hardware.
        digest: SHA-256 of the weights.
        scores: tables in Markdown; empty: none are known.
        onnx: what is known of the ONNX file; None: there is none.
    """
    sections = {
        "Method": _method(network),
        "Training data": _data(network, checkpoint),
        "Settings": _settings(network),
        "Classes": _classes(network),
        "Expected input": _input(network),
        "Scores": (scores or "No validation of these weights was found.\n") + _review(network),
        "Intended use and limits": LIMITS,
        "Licence": f"{LICENCE}\n- licence of the data set: {network.spec.licence or 'not recorded'}\n",
        "Files": _files(network, digest),
        **({} if onnx is None else {"ONNX": _onnx(network, onnx)}),
        "Hardware and versions": _versions(checkpoint),
    }
    text = "\n".join(f"## {title}\n\n{content}" for title, content in sections.items())
    (folder / CARD).write_text(f"# {network.title}, trained on {network.spec.name}\n\n{text}", encoding="utf-8")


def citation(method: type[Method]) -> str:
    """What the documentation of a method, or of the one it derives from, names as its source; empty: nothing."""
    for each in method.__mro__:
        found = re.search(r"^Source:(.*?)(?:\n\n|\Z)", inspect.cleandoc(each.__doc__ or ""), re.DOTALL | re.MULTILINE)
        if found:
            return " ".join(found[1].split())
    return ""


def _method(network: Network) -> str:
    method = type(network.method)
    first, *_ = inspect.cleandoc(method.__doc__ or "").splitlines()
    source = citation(method) or "our own; no publication"
    key = network.content["settings"]["method"]
    return _list([first, f"method `{key}`, {USES[network.family]}", f"source: {source}"])


def _data(network: Network, checkpoint: Path) -> str:
    spec = network.spec
    cases = trained_cases(checkpoint, spec.name)
    number = f"{len(cases)} cases of {len(set(cases.values()))} patients" if cases else "number of cases not recorded"
    known = [f"{spec.name}{': ' * bool(spec.title)}{spec.title}", f"trained on {number}"]
    names = network.settings.get("sources")
    if isinstance(names, Sequence) and not isinstance(names, str) and names:
        known.append(f"data sets: {', '.join(str(without_paths(name)) for name in names)}")
    known += [f"modality: {spec.modality}"] * bool(spec.modality)
    return _list([*known, *([f"source: {spec.source}"] * bool(spec.source))])


def _settings(network: Network) -> str:
    config, data = type(network.method).Config, FAMILIES.get(type(network.method).family)
    types = (config, *([] if data is None else [data.config]))
    defaults = flatten({key: value for each in types for key, value in asdict(each()).items()})
    defaults |= flatten({"optim": asdict(OptimConfig()), "ema": asdict(AverageConfig())})
    settings = {key: value for key, value in network.settings.items() if key not in FOLLOWING}
    practical = names_with_role("practical", *types)
    rows = []
    for key, value in flatten(settings).items():
        is_changed = key in defaults and key not in practical and value != defaults[key]
        if key in ALWAYS or is_changed:
            rows.append([f"`{key}`", _shown(value), _shown(defaults[key]) if key in defaults else ""])
    step = network.content["step"]
    told = f"Step {'unknown' if step is None else step}, weights: {network.content['weights']}. "
    table = "\n".join([markdown_header(["setting", "value", "default"], 3), *map(markdown_row, rows)])
    return f"{told}Settings that differ from the defaults, and a few others:\n\n{table}\n"


def _shown(value: Any) -> str:
    return f"`{without_paths(value)}`"


def _classes(network: Network) -> str:
    if network.family == "partial":
        tasks = [build(Task, each, "heads.") for each in network.settings["heads"]]
        rows = [[name, str(value), task.name] for task in tasks for name, value in values_of(task).items()]
        return _table(["class", "value in the map of its task", "task"], rows)
    if network.family == "fewshot":
        return "Any structure of the annotated scans that prediction is given; values are those of their label maps.\n"
    if network.task is not None:
        values = network.task.supplied_values
    else:
        names = network.spec.class_names
        is_of_some = network.family == "self_trained"
        places = network.spec.held_out(network.settings["label_sets"]) if is_of_some else range(1, len(names))
        values = {names[place]: network.spec.supplied_value(place) for place in places}
    return _table(["class", "value in label maps"], [[name, str(value)] for name, value in values.items()])


def _input(network: Network) -> str:
    channels, rows, columns = network.input_shape
    known = [f"the network sees {channels} channel(s) of {rows} x {columns} pixels"]
    known += _of_images(network) if network.family in IMAGES else _of_scans(network)
    return _list([*known, "`frugalseg predict` and the predictors prepare images and scans in this way themselves"])


def _of_images(network: Network) -> list[str]:
    spec = network.spec
    window = spec.intensity.window
    intensities = f"intensities {window[0]:g} to {window[1]:g} become 0 to 255" if window else "intensities as stored"
    known = [f"images that are not square are {_ASPECT[spec.grid.aspect]}"]
    known += [f"the field of view is cut out ({spec.grid.field})"] * (spec.grid.field != "none")
    known.append(f"{intensities}{', inverted' * spec.intensity.inverted}")
    if network.family == "partial":
        return [*known, _standardised(network)]
    return [*known, "network input: grey images from 0 to 1, colour from -1 to 1"]


_ASPECT = {"squeeze": "squeezed", "pad": "padded with zeros"}


def _of_scans(network: Network) -> list[str]:
    found = dict(network.content["preparation"] or {})
    slices, normalisation = found.pop("slices", None), network.content["normalisation"]
    known = [f"preparation, {key}: {value}" for key, value in found.items() if value is not None]
    if slices:
        low, high = slices["percentiles"]
        known.append(f"each slice: its percentiles {low:g} and {high:g} become 0 and 1")
        known += ["intensities are matched to quantiles of the training slices"] * bool(slices.get("reference"))
    elif normalisation.get("mean") is None:
        known.append("each scan: minus its mean, divided by its standard deviation")
    else:
        known.append(f"each scan: minus {normalisation['mean']:.6g}, divided by {normalisation['std']:.6g}")
    if network.family == "self_trained":
        known.append("network input: 0.5 times this minus 0.3, each slice between its two neighbours")
    return [*known, *([_standardised(network)] if network.family == "partial_scans" else [])]


def _standardised(network: Network) -> str:
    mean, sd = network.settings["mean"], network.settings["sd"]
    return f"network input: intensities of 0 to 255 minus {list(mean)}, divided by {list(sd)}, per channel"


def _review(network: Network) -> str:
    rule = network.content.get(REVIEW)
    if rule is None:
        return ""
    return (
        f"\nMasks with a confidence below {rule['below']:.3f} are to be looked at: this limit told poor masks from "
        f"good ones best in {rule['n_masks']} masks of that validation, where Spearman's correlation of confidence and "
        f"Dice was {rule['correlation']:.2f}. `frugalseg predict` names them.\n"
    )


def _files(network: Network, digest: str) -> str:
    files = [f"`{WEIGHTS}`: weights, SHA-256 `{digest}`", f"`{DESCRIPTION}`: settings that rebuild the method"]
    return _list([*files, "this folder is what `--checkpoint` of `frugalseg predict` takes"])


def _onnx(network: Network, onnx: OnnxFile) -> str:
    kind = network.family if network.family in ONNX_OUTPUTS else type(network.method).family
    output = ONNX_OUTPUTS[kind]
    _, channels, rows, columns = onnx.shape
    return _list(
        [
            f"`model.onnx`, opset {OPSET}: `image` (B, {channels}, H, W) float32 to `output`: {output}",
            f"axes of any length: {onnx.free}; written for {rows} x {columns} pixels; images are not prepared by it",
            f"largest difference to PyTorch on random inputs: {onnx.difference:.2g} (allowed: {onnx.tolerance:.2g})",
        ]
    )


def _versions(checkpoint: Path) -> str:
    record = None
    for folder in (checkpoint.parent, checkpoint.parent.parent):
        try:
            record = record or read_record(folder)
        except DataError:
            continue
    known = {} if record is None else {key: value for key, value in record.versions.items() if key != "system"}
    trained = [f"training: {key} {value}" for key, value in known.items()] or ["training: not recorded"]
    return _list([*trained, f"export: python {platform.python_version()}, torch {torch.__version__}"])


def _list(items: Sequence[str]) -> str:
    return "".join(f"- {each}\n" for each in items)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join([markdown_header(names, len(names)), *map(markdown_row, rows)]) + "\n"
