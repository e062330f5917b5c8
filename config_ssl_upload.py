"""The Sacred experiment: every configuration key with its default, and the named configurations.

    python training.py with alpnet chaost2 setting2 eval_fold=0 path.data_dir=data
    python training.py with tloss dataset=my_set.json5
    python training.py print_config with alpnet chaost2      # every key, its value and where it was changed

Keys of the chosen method and of its data stand next to the general ones, under the reference's names where the meaning
is the same (docs/migrating.md). A key takes its value from, in this order: its default; what follows from the data set;
what was published for this method on this data set (models/presets); the named configurations, whose order does not
matter; files of settings (`with ... mine.yaml`; JSON, JSON5 or YAML, read as plain data); the command line. An unknown
key, a value of the wrong type or a number out of range is an error, for every command.
"""

import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    from sacred import SETTINGS
    from sacred.config import ConfigDict

from dataloaders.build import family
from dataloaders.protocol import DataConfig
from models import METHODS, canonical_name, method_class
from models.prediction.pseudo_labels import PseudoLabelConfig
from models.presets import AXES, NAMED_CONFIGS, resolve
from models.training.average import AverageConfig
from models.training.optim import OptimConfig
from util.errors import ConfigError
from util.files import ensure_writable, short_digest
from util.ids import invalid_id_reason
from util.runtime import distributed
from util.runtime.experiment import SACRED_COMMANDS, PlainExperiment, json_option, plain_errors
from util.runtime.experiment import InputError as InputError
from util.runtime.run_store import RUN_STORES, create_observer, remove_empty
from util.schema import check_bounds, flatten, merge, names_with_role, option, refuse_unknown, select

SETTINGS["CONFIG"]["READ_ONLY_CONFIG"] = False  # type: ignore[index] - checkpoints hold it, as plain values
SETTINGS["CAPTURE_MODE"] = "sys"  # type: ignore[index]


@dataclass(frozen=True)
class PathConfig:
    """Folders."""

    data_dir: str = "data"  # the data root, or one prepared folder
    log_dir: str = "exps"  # each experiment has a folder in it


@dataclass(frozen=True)
class RunConfig:
    """How to train and to validate, whatever the method."""

    method: str = option("alpnet", "architecture")  # see models.METHODS
    seed: int = option(1234, "replicate", ge=0, le=2**32 - 1)
    n_steps: int = option(10_000, ge=1, le=10**9)  # optimiser steps
    # steps of a round ("epoch"), at whose end a method may refine labels; 0: one round
    round_steps: int = option(0, ge=0)
    batch_size: int = option(1, ge=1, le=65_536)  # episodes or images per step, divided evenly among all processes
    optim: OptimConfig = option(OptimConfig)
    ema: AverageConfig = option(AverageConfig)
    settings_version: int = option(1, ge=1)  # raised when a default changes its meaning: older runs are then told apart
    print_interval: int = option(100, "practical", ge=1)  # steps between logged means
    checkpoint_every: int = option(1000, "practical", ge=1)  # steps between resumable checkpoints
    save_snapshot_every: int = option(0, "practical", ge=0)  # steps between kept snapshots; 0: none
    eval_every: int = option(0, "practical", ge=0)  # steps between evaluations on the test cases, for curves; 0: none
    num_workers: int = option(4, "practical", ge=0)  # processes that prepare batches; the numbers are the same for any
    device: str = option("auto", "practical")  # auto, cpu or cuda (NVIDIA and AMD)
    data_on: Literal["auto", "device", "host"] = option("auto", "practical")  # auto: on a GPU where they fit
    precision: Literal["float32", "tf32", "bf16"] = "float32"  # of the networks; losses are always float32
    channels_last: Literal["auto", "on", "off"] = option("auto", "practical")  # memory order; auto: on
    compile: Literal["off", "auto", "on"] = option("off", "practical")  # torch.compile where the machine can
    store: str = option("file", "practical")  # of Sacred runs: file, sql:ADDRESS or mongodb://..., see run_store
    check_data: bool = option(True, "practical")  # validate the prepared folder first
    accept_changed_data: bool = option(False, "practical")  # resume although the training data have changed
    exp_prefix: str = option("", "practical")  # put before the experiment folder's name
    reload_model_path: str = option("", "practical")  # validation: checkpoint; empty: this run's own; none: untrained
    weights: Literal["last", "ema", "both"] = option("last", "practical")  # which of the saved weights to validate
    test_sets: tuple[str, ...] = option((), "practical")  # validation: further data sets to score
    surface_scores: bool = option(True, "practical")  # also surface distances, which take most of the scoring time
    hd95: Literal["larger", "pooled"] = option("larger", "practical")  # HD95 shown in tables, see util.results.metrics
    save_predictions: bool = option(True, "practical")  # masks as files
    pictures: bool = option(True, "practical")  # curves, overlays and report pages; without, short runs are quicker
    # divides the logits of exported probabilities (spguided)
    export_temperature: float = option(5.0, "practical", gt=0)
    export_to: str = option("", "practical")  # folder of exported pseudo-labels; empty: <experiment>/pseudo_labels
    pseudo_label: PseudoLabelConfig = option(PseudoLabelConfig, "practical")  # exported ones: thresholds, filters
    path: PathConfig = option(PathConfig, "practical")

    def __post_init__(self) -> None:
        check_bounds(self)
        if reason := invalid_id_reason(self.exp_prefix) if self.exp_prefix else "":
            raise ConfigError(f"exp_prefix={self.exp_prefix!r} {reason}, as it becomes a part of a folder's name.")


logger = logging.getLogger(__name__)

ex = PlainExperiment("frugalseg", save_git_info=False, additional_cli_options=[json_option])
ex.add_axes(AXES)


@plain_errors()
def complete(fixed: Any = None, preset: Any = None, fallback: Any = None) -> Any:
    """All keys with their values, for Sacred; `fixed` holds the named configurations and the command line.

    They are validated here, and so for every command.
    """
    given = merge(preset or {}, fixed or {})
    summary = ConfigDict(defaults_for(given))(fixed, preset, fallback)
    read_settings(dict(summary))
    summary.typechanged.clear()  # a key of several types is none of the user's concern
    return summary


ex.configurations.append(complete)


def defaults_for(given: Mapping[str, Any]) -> dict[str, Any]:
    """The value of every key that is not given: default, what follows from the data, what was published.

    Raises:
        ConfigError: an unknown method, data set or group, or a value from which nothing can follow.
    """
    method = method_class(given.get("method", RunConfig().method))
    data_type = family(method.family).config
    plain = plain_defaults(method, data_type)
    chosen = merge(plain, given)
    published = resolve(
        chosen | {"method": canonical_name(chosen["method"]), "dataset": select(data_type, chosen).spec.name}
    )
    chosen = merge(plain, published, given)
    data = select(data_type, chosen)
    return merge(plain, data.derived(chosen), method.derived(data.facts), published)


def plain_defaults(method: Any, data_type: type) -> dict[str, Any]:
    """The defaults of the dataclasses alone."""
    return asdict(RunConfig()) | asdict(data_type()) | asdict(method.Config())


def known_words() -> list[str]:
    """All words of a command line: named configurations, then the keys of all methods, each with "=" at the end."""
    defaults = [plain_defaults(method, family(method.family).config) for method in METHODS.values()]
    return [
        *NAMED_CONFIGS,
        *SACRED_COMMANDS,
        *(f"{key}=" for key in sorted({key for each in defaults for key in flatten(each)})),
    ]


@dataclass(frozen=True)
class Settings:
    """The whole configuration, validated."""

    run: RunConfig
    data: DataConfig
    values: dict[str, Any]  # all keys, as Sacred stores them; data are identified by what they are, not by their place

    @property
    def method_name(self) -> str:
        """The name of the method, as its paper calls it."""
        return method_class(self.run.method).title(self.values)

    @property
    def experiment_folder(self) -> Path:
        """Folder of this run: readable names, and a hash of everything that shapes the weights."""
        run, data = self.run, self.data
        prefix = f"{run.exp_prefix}_" if run.exp_prefix else ""
        what = data.summary(method_class(run.method).trains_on)
        digest = short_digest(identity(self.values))
        name = f"{prefix}{self.method_name}_{data.spec.name}_{what}_seed{run.seed}_{digest}"
        return Path(run.path.log_dir).expanduser() / name.replace(" ", "-")

    @property
    def config_hash(self) -> str:
        """A hash that repetitions share: all that shapes the weights but seed, fold and the like."""
        return short_digest({key: value for key, value in identity(self.values).items() if not self._is_replicate(key)})

    @property
    def changed(self) -> list[str]:
        """The dotted keys whose values differ from the defaults of the dataclasses."""
        defaults = flatten(plain_defaults(*_method_and_data(self.values)))
        return [key for key, value in flatten(self.values).items() if value != defaults.get(key)]

    def _is_replicate(self, key: str) -> bool:
        names = names_with_role("replicate", *_types(self.values))
        return key in names or key.partition(".")[0] in names

    def differing(self, saved: Mapping[str, Any]) -> set[str]:
        """The keys that shape the weights and in which other settings differ."""
        there, here = identity(saved), identity(self.values)
        return {key for key in there.keys() | here.keys() if there.get(key) != here.get(key)}

    def require_same(self, saved: Mapping[str, Any], path: Path, can_prolong: bool = False) -> Path:
        """Refuses to resume from a checkpoint of another run; returns the folder of the run that wrote it.

        Args:
            saved: the settings in the checkpoint.
            path: of the checkpoint.
            can_prolong: whether a run with fewer `n_steps` is the beginning of this one.

        Raises:
            ConfigError: its settings differ in keys that shape the weights; the message lists them.
        """
        keys = sorted(self.differing(saved))
        if keys == ["n_steps"] and can_prolong and saved["n_steps"] < self.run.n_steps:
            logger.info("%s: prolonged from n_steps=%d to %d.", path, saved["n_steps"], self.run.n_steps)
            return replace(self, values=self.values | {"n_steps": saved["n_steps"]}).experiment_folder
        if keys:
            there, here = identity(saved), identity(self.values)
            defaults = flatten(plain_defaults(*_method_and_data(self.values)))
            listed = "; ".join(
                f"{key}: {there.get(key, defaults.get(key))!r} there, {here.get(key, defaults.get(key))!r} here"
                for key in keys
            )
            raise ConfigError(
                f"{path}: a checkpoint of another run ({listed}). Use those settings, or move it elsewhere and start "
                "again."
            )
        return self.experiment_folder


def identity(values: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that shape the weights and differ from their defaults, flat: a new key changes no older run."""
    method, data_type = _method_and_data(values)
    practical = names_with_role("practical", RunConfig, data_type, method.Config)
    ignored = data_type.ignored_keys(values, method.trains_on)
    defaults = flatten(plain_defaults(method, data_type))
    return {
        key: value
        for key, value in flatten(values).items()
        if key not in practical
        and key.partition(".")[0] not in practical | ignored
        and (value != defaults.get(key) or key == "settings_version")
    }


def _method_and_data(values: Mapping[str, Any]) -> tuple[Any, Any]:
    method = method_class(values["method"])
    return method, family(method.family).config


def _types(values: Mapping[str, Any]) -> tuple[type, ...]:
    method, data_type = _method_and_data(values)
    return RunConfig, data_type, method.Config


def read_settings(values: dict[str, Any]) -> Settings:
    """Validates a flat dictionary of settings, strictly.

    Raises:
        ConfigError: an unknown key, a wrong type, or a value out of range.
    """
    method, data_type = _method_and_data(values)
    refuse_unknown(values, RunConfig, data_type, method.Config)
    select(method.Config, values)
    data = select(data_type, values)
    told = dict(values) | {"method": canonical_name(values["method"])} | data.identified
    return Settings(select(RunConfig, values), data, told)


def command(function: Callable) -> Any:
    """Registers a command of the experiment that reports user errors without a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    return ex.command(plain_errors()(function))


@ex.config_hook
def store_runs(config: dict[str, Any], command_name: str, logger: logging.Logger) -> dict[str, Any]:
    """Stores training and validation runs in their experiment's folder; on the first process only."""
    folders = {"train": "runs", "validate": "validation"}
    if command_name in folders and distributed.plan().is_first:
        with plain_errors():
            folder = ensure_writable(read_settings(config).experiment_folder / folders[command_name])
            try:
                observer = create_observer(config["store"], folder)
            except ConfigError:
                remove_empty(folder, folder.parent)
                raise
        ex.observers[:] = [o for o in ex.observers if not isinstance(o, RUN_STORES)]
        ex.observers.append(observer)
    return {}


def run_folder(run: Any, settings: Settings) -> Path:
    """Where a validation stores its files: by the number of its Sacred run, or "unobserved" if it has none."""
    return settings.experiment_folder / ("unobserved" if run._id is None else f"validation/{run._id}")
