"""What of a checkpoint is exported: one set of weights and what rebuilds the method; no paths, no ids of cases."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from dataloaders.catalog import is_built_in
from dataloaders.description import DatasetSpec
from dataloaders.images.task import ImageTask
from dataloaders.rules import FoldRule
from dataloaders.scans.normalise import Normalisation
from dataloaders.scans.preprocess import parameters_of
from models import build_method, canonical_name, method_class, title_of
from models.losses import LossName
from models.methods.base import Method
from models.networks.generic_unet import find_weights, read_generic_unet
from models.networks.unet import UNetConfig, halvings_of
from models.prediction.origin import family, find_dataset
from models.training.exported import DESCRIPTION, FORMAT, KEPT, REVIEW, WEIGHTS
from models.training.load import check_fit, load_trained, read_trained
from util.errors import CheckpointError, ConfigError
from util.files import file_sha256, write_json
from util.runtime import checkpoint
from util.schema import names_with_role

# Settings that predictors read besides the method's own.
PREDICTORS_READ = ("structures", "size_px", "heads", "mean", "sd", "label_sets")
IMAGES = ("dense", "partial")  # families that segment images
A_FILE = "(a file)"  # in place of a path


@dataclass(frozen=True)
class OfImages:
    """What a file does not say of the network in it: loss, structures (empty: the first), side of prepared images."""

    loss: LossName | None = None
    structures: tuple[str, ...] = ()
    size_px: int | None = None  # None: the data set's


@dataclass(frozen=True)
class Network:
    """A trained network that is to be exported.

    Attributes:
        method: in evaluation mode, on the CPU.
        family: see `models.prediction.origin.family`.
        spec: description of the training data, without ids of cases.
        settings: all that the checkpoint holds; may contain paths.
        content: of `model.json`, except for the hash of the weights.
    """

    method: Method
    family: str
    spec: DatasetSpec
    settings: dict[str, Any]
    content: dict[str, Any]

    @property
    def title(self) -> str:
        """The method's name in tables; of an export that is exported again, whose other settings are gone, its key."""
        return title_of(self.settings)

    @property
    def task(self) -> ImageTask | None:
        """What a dense network segments; None: it is of another family."""
        if self.family != "dense":
            return None
        return ImageTask(self.spec, tuple(self.settings["structures"]), self.settings["size_px"])

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of what the network sees."""
        if self.task is not None:
            rows, columns = (part.stop - part.start for part in self.task.window)
            return self.spec.channels, rows, columns
        if self.family in IMAGES:
            side = self.settings["size_px"] or self.spec.grid.size_px
            return self.spec.channels, side, side
        preparation = self.content["preparation"] or {}
        side = (preparation.get("slices") or {}).get("crop_px") or preparation.get("size_px") or self.spec.grid.size_px
        return 3 if self.family == "self_trained" else 1, side, side

    def write(self, folder: Path) -> str:
        """Writes weights and description; returns the SHA-256 of the weights."""
        state = {name: _plain(value) for name, value in self.method.state_dict().items()}
        about = {"format": FORMAT, "method": self.content["settings"]["method"], "dataset": self.spec.name}
        about |= {"weights": self.content["weights"], "step": self.content["step"]}
        save_file(state, folder / WEIGHTS, {"frugalseg": json.dumps(about)})  # of several keys the order is random
        digest = file_sha256(folder / WEIGHTS)
        write_json(folder / DESCRIPTION, {"format": FORMAT, "weights_sha256": digest} | self.content)
        return digest


def _plain(tensor: Tensor) -> Tensor:
    """A copy in memory of its own, in the usual order."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def read_network(
    path: Path,
    weights: str,
    *,
    dataset: str | None = None,
    modelname: str | None = None,
    mean_std: tuple[float, float] | None = None,
    images: OfImages = OfImages(),
) -> Network:
    """Reads a checkpoint and builds its method.

    Args:
        path: a checkpoint or snapshot of ours, or a file of the authors of SSL-ALPNet, superpixel-guided learning or
            T-Loss.
        weights: last or ema.
        dataset: name or description of the training data, for files that do not contain it.
        modelname: encoder of a released file.
        mean_std: of the prepared training scans of a released file; CT only.
        images: what files of the authors of superpixel-guided learning and T-Loss do not contain.

    Raises:
        CheckpointError: unreadable, or without these weights.
        ConfigError: missing information, or information that the file contains.
    """
    if find_weights(checkpoint.peek(path)) is not None:
        return _from_authors(path, find_weights(checkpoint.load(path)) or {}, weights, dataset, images)
    if images != OfImages():
        raise ConfigError(f"{path}: contains what it was trained with; leave --loss, --structures and --size-px out.")
    content = read_trained(path)
    kind = family(content)
    spec = find_dataset(path, content, "images" if kind in IMAGES else "scans", dataset)
    if "settings" not in content:
        content = _released(path, spec, modelname, mean_std)
    elif modelname or mean_std:
        raise ConfigError(f"{path}: contains its encoder and normalisation; leave --modelname and --mean-std out.")
    settings = content["settings"]
    trained = load_trained(path, settings, weights, torch.device("cpu"))
    spec = without_cases(spec)
    kept = {key: content[key] for key in (*KEPT, REVIEW) if key in content}
    kept |= {"settings": needed_settings(settings, spec), "dataset": spec.to_dict()}
    return Network(trained.method, kind, spec, settings, {"weights": weights} | kept)


def _from_authors(
    path: Path, weights: Mapping[str, Tensor], kind: str, dataset: str | None, images: OfImages
) -> Network:
    """A network of the authors of superpixel-guided learning or T-Loss."""
    spec = find_dataset(path, {}, "images", dataset)
    if images.loss is None:
        raise ConfigError(f"{path}: does not contain the loss of its training; add --loss ce, or tloss.")
    if kind == "ema":
        raise CheckpointError(f"{path}: contains no averaged weights; use --weights last.")
    try:
        unet = read_generic_unet(weights)
    except KeyError as error:
        raise CheckpointError(f"{path}: a U-Net without {error}. Is it cut short, or of another version?") from error
    structures = images.structures or (spec.classes[0].name,)
    settings = {
        "method": "supervised",
        "loss": images.loss,
        "class_weighted": False,
        "unet": asdict(unet.config) | {"halvings": list(unet.config.halvings)},
        "structures": list(structures),
        "size_px": images.size_px,
    }
    _check_sides(path, unet.config, ImageTask(spec, structures, images.size_px))
    method = build_method(settings)
    own = {name: value for name, value in method.state_dict().items() if not name.startswith("network.")}  # the loss's
    state = own | {f"network.{name}": value for name, value in unet.state.items()}
    check_fit(path, method.state_dict(), state)
    method.load_state_dict(state)
    spec = without_cases(spec)
    content = {
        "weights": kind,
        "step": None,
        "settings": needed_settings(settings, spec),
        "dataset": spec.to_dict(),
        "normalisation": Normalisation().to_dict(),
        "preparation": None,
    }
    return Network(method.eval(), "dense", spec, settings, content)


def _check_sides(path: Path, config: UNetConfig, task: ImageTask) -> None:
    """Whether the network was made for images of this size, which decides how often it halves them.

    Raises:
        ConfigError: other channels, classes or sides.
    """
    names = task.spec.class_names
    unknown = sorted(set(task.names) - set(names[1:]))
    if unknown:
        raise ConfigError(f"--structures {', '.join(unknown)}: expected some of {', '.join(names[1:])}.")
    rows, columns = (part.stop - part.start for part in task.window)
    wanted = (task.spec.channels, len(task.names) + 1, halvings_of(rows, columns))
    if wanted != (config.in_channels, config.n_classes, config.halvings):
        raise ConfigError(
            f"{path}: a network of {config.in_channels} channels and {config.n_classes} classes that halves rows and "
            f"columns {config.halvings} times; images of {task.spec.name}, {', '.join(task.names)}, of {rows} x "
            f"{columns} pixels need {wanted[0]} channels, {wanted[1]} classes and {wanted[2]}. Choose --dataset, "
            "--structures and --size-px of its training, such as --size-px 128 of T-Loss."
        )


def _released(
    path: Path, spec: DatasetSpec, modelname: str | None, mean_std: tuple[float, float] | None
) -> dict[str, Any]:
    """What a file of the authors of SSL-ALPNet does not say, with the keys of a snapshot."""
    if modelname is None:
        raise ConfigError(f"{path}: does not contain the name of its encoder; add --modelname dlfcn_res101.")
    if spec.intensity.normalise_by == "training_scans" and mean_std is None:
        raise ConfigError(
            f"{path}: does not contain the normalisation of CT; add --mean-std with the mean and the standard "
            "deviation of the prepared training scans (0 to 255)."
        )
    settings = {"method": "alpnet", "modelname": modelname, "prototypes": "local", "train_on": "superpixels"}
    return {
        "settings": settings,
        "step": None,
        "normalisation": Normalisation(*(mean_std or ())).to_dict(),
        "preparation": parameters_of(spec).to_json(),
    }


def without_cases(spec: DatasetSpec) -> DatasetSpec:
    """A description without ids of cases, domains, annotators and files; published sets stay as they are."""
    hidden: dict[str, Any] = {"cases": (), "folds": FoldRule(), "domains": {}, "annotators": "majority"}
    return spec if is_built_in(spec) else replace(spec, **hidden, files="", prepared="")


def needed_settings(settings: Mapping[str, Any], spec: DatasetSpec) -> dict[str, Any]:
    """Those settings that rebuild the method and its predictor; paths are replaced."""
    config = method_class(settings["method"]).Config
    exact = names_with_role("architecture", config) | set(PREDICTORS_READ)
    names = {each.name for each in fields(config)} | set(PREDICTORS_READ)
    own = {key: value if key in exact else without_paths(value) for key, value in settings.items() if key in names}
    return {"method": canonical_name(settings["method"]), "dataset": spec.name} | own


def without_paths(value: Any) -> Any:
    """A setting in which every text with a slash has become "(a file)"."""
    if isinstance(value, Mapping):
        return {key: without_paths(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_paths(each) for each in value]
    return A_FILE if isinstance(value, str) and ("/" in value or "\\" in value) else value
