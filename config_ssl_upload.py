"""The Sacred experiment: every configuration key with its default, and the named configurations.

    python training.py with alpnet chaost2 setting2 eval_fold=0 path.data_dir=data
    python training.py print_config with alpnet chaost2      # every key, its value and where it was changed

Keys of the chosen method and of few-shot data stand beside the general ones, under the reference's names where the
meaning is the same (docs/migrating.md). Later named configurations beat earlier ones, `key=value` beats all. An unknown
key or a value of the wrong type is an error.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    from sacred import SETTINGS, Experiment
    from sacred.config import ConfigDict
    from sacred.utils import SacredError

import models.presets.noisy as presets
from dataloaders import catalog
from dataloaders.build import CONFIGS, DataConfig
from dataloaders.fewshot.data import FewShotConfig
from dataloaders.images.data import DenseConfig
from models import method_class
from models.networks.unet import halvings_of
from models.training.average import AverageConfig
from models.training.state import OptimConfig
from util.errors import ConfigError, UserError
from util.files import ensure_writable, short_digest
from util.runtime import distributed
from util.runtime.run_store import RUN_STORES, create_observer
from util.schema import refuse_unknown, select

SETTINGS["CONFIG"]["READ_ONLY_CONFIG"] = False  # type: ignore[index] - checkpoints hold it, as plain values
SETTINGS["CAPTURE_MODE"] = "sys"  # type: ignore[index]


@dataclass(frozen=True)
class PathConfig:
    """Where things lie."""

    data_dir: str = "data"  # the data root, or one prepared folder
    log_dir: str = "exps"  # a folder per experiment is made in it


@dataclass(frozen=True)
class RunConfig:
    """How to train and to validate, whatever the method."""

    method: str = "alpnet"  # see models.METHODS
    seed: int = 1234
    n_steps: int = 100_100  # optimiser steps
    round_steps: int = 0  # steps of a round ("epoch"), at whose end a method may refine labels; 0: one round
    batch_size: int = 1  # episodes or images per step, shared out evenly among all processes
    optim: OptimConfig = field(default_factory=OptimConfig)
    lr_step_gamma: float = 0.95  # factor on the learning rate after every `lr_step_every` steps
    lr_step_every: int = 1000  # steps; 0: constant
    ema: AverageConfig = field(default_factory=AverageConfig)
    print_interval: int = 100  # steps between logged means
    checkpoint_every: int = 1000  # steps between resumable checkpoints
    save_snapshot_every: int = 25_000  # steps between kept snapshots; 0: none
    eval_every: int = 0  # steps between evaluations on the test cases, for curves; 0: none. They choose no snapshot
    num_workers: int = 4  # processes that prepare batches; the numbers are the same for any
    device: str = "auto"  # auto, cpu or cuda (NVIDIA and AMD)
    data_on: Literal["auto", "device", "host"] = "auto"  # auto: on a GPU where they fit; host: memory-mapped files
    precision: Literal["float32", "tf32", "bf16"] = "float32"  # of the networks; losses are always float32
    channels_last: Literal["auto", "on", "off"] = "auto"  # memory order of the networks; auto: on for a GPU
    compile: Literal["off", "auto", "on"] = "off"  # torch.compile where the machine can, else without, with a reason
    store: str = "file"  # of Sacred runs: file, sql:ADDRESS or a mongodb:// address, see util.runtime.run_store
    check_data: bool = True  # check the prepared folder first
    exp_prefix: str = ""  # put before the experiment folder's name
    reload_model_path: str = ""  # validation: checkpoint; empty: this configuration's own; none: untrained
    weights: Literal["last", "ema", "both"] = "last"  # which of the saved weights to validate
    surface_scores: bool = True  # also distances between outlines, which take most of the scoring time
    save_predictions: bool = True  # masks as files
    path: PathConfig = field(default_factory=PathConfig)

    def __post_init__(self) -> None:
        positive = ("n_steps", "batch_size", "print_interval", "checkpoint_every")
        wrong = [name for name in positive if getattr(self, name) < 1]
        wrong += [
            name
            for name in ("lr_step_every", "save_snapshot_every", "eval_every", "round_steps", "num_workers")
            if getattr(self, name) < 0
        ]
        if wrong:
            raise ConfigError(
                f"{wrong[0]}={getattr(self, wrong[0])}: expected {1 if wrong[0] in positive else 0} or more."
            )


# Keys that change neither the data nor the weights: a training goes on, or is found, whatever they are.
_PRACTICAL = {
    *("print_interval", "checkpoint_every", "save_snapshot_every", "eval_every", "num_workers", "device", "data_on"),
    *("channels_last", "compile", "store", "check_data", "exp_prefix", "reload_model_path", "weights", "protocol"),
    *("surface_scores", "nsd_tolerance_mm", "save_predictions", "path", "n_sup_part", "z_margin", "val_wsize"),
    *("slices_per_pass", "images_per_pass", "diagnosed_images", "test_batch", "predict_with"),
}

# Keys in which trainings differ whose scores are set beside one another, or averaged, in tables.
_VARIED = {"seed", "eval_fold", "support_idx", "label_sets", "exclude_cls_list", "noise"}

ex = Experiment("frugalseg", save_git_info=False)
ex.add_config(asdict(RunConfig()))


class InputError(SacredError):
    """Something that the user can put right; printed as its message."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Makes Sacred print a `UserError` as one message, without a traceback; also a decorator."""
    try:
        yield
    except UserError as error:
        raise InputError(str(error), print_traceback=False) from error


@plain_errors()
def further_defaults(fixed: Any = None, preset: Any = None, fallback: Any = None) -> Any:
    """Adds the keys of the chosen method and of its family's data, which therefore are the only ones accepted."""
    given = dict(preset) | dict(fixed)
    method = method_class(given["method"])
    defaults = asdict(CONFIGS[method.family]()) | asdict(method.Config())
    following = _fewshot_defaults if method.family == "fewshot" else _dense_defaults
    return ConfigDict(defaults | following(defaults, given))(fixed, preset, fallback)


def _fewshot_defaults(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What follows from the data set and the setting."""
    values = defaults | given
    spec = catalog.dataset(values["dataset"], "scans")
    excluded = list(spec.held_out(values["label_sets"])) if values["setting"] == 2 else []
    return {"max_iters_per_load": spec.episodes_per_pass, "exclude_cls_list": excluded}


def _dense_defaults(defaults: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """What the network must be to fit the images: channels, classes, and how often they can be halved."""
    data = select(
        DenseConfig, defaults | {key: given[key] for key in ("dataset", "structures", "size_px") if key in given}
    )
    unet = {
        "in_channels": data.spec.channels,
        "n_classes": len(data.chosen) + 1,
        "halvings": list(halvings_of(*data.shape)),
    }
    return {"unet": defaults["unet"] | unet}


ex.configurations.append(further_defaults)

# Methods. Expected Dice x 100, mean over organs and folds: paper, tables 1 and 2.
ex.add_named_config("alpnet", method="alpnet", prototypes="local", train_on="superpixels")  # 78.84 MR, 73.35 CT
ex.add_named_config("ssl_panet", method="alpnet", prototypes="global", train_on="superpixels")  # 63.17 MR, 57.88 CT
ex.add_named_config("panet", method="alpnet", prototypes="global", train_on="labels")  # 38.53 MR, 31.86 CT
ex.add_named_config("alpnet_annotated", method="alpnet", prototypes="local", train_on="labels")  # 51.28 MR, 41.63 CT
ex.add_named_config("threshold", method="threshold")

# A few scans, a CPU or a small GPU, no pretrained weights: eleven minutes on two cores. The learning rate was chosen on
# fold 1 of eight CHAOST2 scans, not on the fold that is reported; source and scores: docs/performance.md.
ex.add_named_config(
    "small",
    modelname="resnet18",
    encoder_weights="none",
    n_steps=4000,
    optim={"lr": 3e-3},
    checkpoint_every=250,
    print_interval=50,
    num_workers=0,
)

# Data sets.
ex.add_named_config("chaost2", dataset="CHAOST2")
ex.add_named_config("sabs", dataset="SABS")

# The paper's settings. 1: any slice is trained on, unlabelled. 2: slices that show a tested organ are left out.
ex.add_named_config("setting1", setting=1)
ex.add_named_config("setting2", setting=2)

# Learning from noisy masks: methods, losses, image sets, and each published setting; sources in models.presets.noisy.
for word, values in presets.DATA.items():
    ex.add_named_config(word, values)
for word in presets.GUIDED_METHODS:
    ex.add_named_config(word, presets.GUIDED_TRAINING | {"method": word})
for word in presets.LOSS_TITLES:
    ex.add_named_config(word, presets.ROBUST_TRAINING | {"loss": word})
for preset in presets.published_settings():
    ex.add_named_config(preset.name, preset.values)
ex.add_named_config("noisy_small", presets.NOISY_SMALL)
ex.add_named_config("fast", precision="bf16", compile="auto")  # any method; what it costs: docs/performance.md


@dataclass(frozen=True)
class Settings:
    """The whole configuration, checked."""

    run: RunConfig
    data: DataConfig
    values: dict[str, Any]  # all keys, as Sacred stores them, but for one spelling of each data set

    @property
    def method_name(self) -> str:
        """The name of the method, as its paper calls it."""
        return method_class(self.run.method).title(self.values)

    @property
    def n_folds(self) -> int:
        """Folds of a complete cross-validation of scans."""
        return self.data.spec.n_folds if isinstance(self.data, FewShotConfig) else catalog.dataset("CHAOST2").n_folds

    @property
    def _is_clean(self) -> bool:
        return method_class(self.run.method).trains_on == "clean" or not self.values.get("noise", {}).get("alpha")

    @property
    def experiment_folder(self) -> Path:
        """Folder of this training: readable names, and a hash of every key that shapes the weights."""
        run, data, shaping = self.run, self.data, _shaping(self.values)
        if isinstance(data, FewShotConfig):
            what = f"setting{data.setting}_sets{data.label_sets}_fold{data.eval_fold}"
        elif self._is_clean:
            what = f"{'+'.join(data.chosen)}_clean"
            del shaping["noise"]
        else:
            what = f"{'+'.join(data.chosen)}_{data.noise.name}"
        prefix = f"{run.exp_prefix}_" if run.exp_prefix else ""
        name = f"{prefix}{self.method_name}_{data.spec.name}_{what}_seed{run.seed}_{short_digest(shaping)}".replace(
            " ", "-"
        )
        return Path(run.path.log_dir).expanduser() / name

    @property
    def recipe(self) -> str:
        """A hash that trainings share whose scores may be averaged: all that shapes the weights but seed and fold."""
        return short_digest({key: value for key, value in _shaping(self.values).items() if key not in _VARIED})

    def require_same(self, saved: Mapping[str, Any], path: Path) -> None:
        """Refuses to go on from a checkpoint of another training.

        Raises:
            ConfigError: its settings differ in keys that shape the weights; the message lists them.
        """
        there, here = _shaping(saved), _shaping(self.values)
        ignored = {"noise"} if self._is_clean else set()
        keys = sorted(key for key in (there.keys() | here.keys()) - ignored if there.get(key) != here.get(key))
        if keys:
            listed = "; ".join(f"{key}: {there.get(key)!r} there, {here.get(key)!r} here" for key in keys)
            raise ConfigError(
                f"{path}: a checkpoint of another training ({listed}). Take those settings, or put it elsewhere and "
                "start anew."
            )


def _shaping(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that shape the weights."""
    return {key: value for key, value in values.items() if key not in _PRACTICAL}


def read_settings(values: dict[str, Any]) -> Settings:
    """Checks a flat dictionary of settings, strictly.

    Raises:
        ConfigError: an unknown key, a wrong type, or a value out of range.
    """
    method = method_class(values["method"])
    data_type = CONFIGS[method.family]
    refuse_unknown(values, RunConfig, data_type, method.Config)
    select(method.Config, values)
    data = select(data_type, values)
    return Settings(select(RunConfig, values), data, dict(values) | {"dataset": data.spec.name})


def command(function: Callable) -> Any:
    """Registers a command of the experiment that reports user errors without a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return ex.command(plain_errors()(function))


@ex.config_hook
def store_runs(config: dict[str, Any], command_name: str, logger: logging.Logger) -> dict[str, Any]:
    """Keeps the run of a training or a validation in its experiment's folder; on the first process only."""
    folders = {"train": "runs", "validate": "validation"}
    if command_name in folders and distributed.plan().is_first:
        with plain_errors():
            folder = ensure_writable(read_settings(config).experiment_folder / folders[command_name])
            observer = create_observer(config["store"], folder)
        ex.observers[:] = [o for o in ex.observers if not isinstance(o, RUN_STORES)]
        ex.observers.append(observer)
    return {}


def run_folder(run: Any, settings: Settings) -> Path:
    """Where a validation leaves its files: by the number of its Sacred run, or "unobserved" if it has none."""
    return settings.experiment_folder / ("unobserved" if run._id is None else f"validation/{run._id}")
