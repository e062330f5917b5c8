"""Scores a trained method on held-out cases, and gathers finished runs into the papers' tables.

    python validation.py with alpnet chaost2 setting2 eval_fold=0                       # the run of this configuration
    python validation.py with alpnet chaost2 setting2 eval_fold=0 reload_model_path=exps/.../snapshots/25000.pth
    python validation.py with alpnet chaost2 reload_model_path=none                     # untrained, for comparison
    python validation.py with threshold chaost2                                         # plain intensity threshold
    python validation.py with tloss isic2017 noise.alpha=0.7 noise.beta=0.7             # images
    python validation.py with tloss isic2017 test_sets=[my_set.json5]                   # also on another data set
    python validation.py collect with path.log_dir=exps                                 # table.md, table_*.csv
    python validation.py probabilities with baseline jsrt_lung                            # for two-pass superpixels
    python validation.py suspects with baseline isic2017                                # ranks the given masks
    python validation.py export with partial_generator                                  # labels of unannotated classes

Each validation writes to its run folder: scores.csv, table.md, pictures, report.html, and the masks: of scans as NIfTI
on the prepared and on the original scan's grid, of images as PNG.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from config_ssl_upload import Settings, command, ex, read_settings, run_folder
from dataloaders.build import open_data
from dataloaders.protocol import TrainingData
from models import build_method, method_class
from models.evaluation import LAYOUTS, Candidate, Evaluation, ScoreOptions, make_evaluation
from models.evaluation.recording import write_validation_page
from models.evaluation.several import report_failures, score_on_each
from models.methods.base import Method
from models.training.exported import weights_of
from models.training.load import load_trained, load_with_encoder
from models.training.trained_on import warn_of_trained_cases
from util.errors import CheckpointError, ConfigError
from util.files import write_text
from util.results.collect import write_tables
from util.results.curves import draw_training
from util.runtime.device import keep_freed_memory, set_precision
from util.runtime.distributed import plan
from util.runtime.run_store import refusals_leave_no_record
from util.runtime.seeding import seed_everything

logger = logging.getLogger(__name__)
WEIGHTS = {"last": ("last",), "ema": ("ema",), "both": ("last", "ema")}


@command
def validate(_config: dict[str, Any], _run: Any) -> float:
    """Segments and scores the held-out cases; returns the mean Dice (of the first protocol and weights).

    Raises:
        FailedItemsError: cases could not be scored, or masks not written; all else is complete.
    """
    settings = read_settings(_config)
    run, method_type = settings.run, method_class(settings.run.method)
    device = plan().device(run.device)
    keep_freed_memory(device)
    set_precision("float32", device)  # scores are those of full precision, whatever the precision in training
    out = run_folder(_run, settings)
    with refusals_leave_no_record(_run, settings.experiment_folder):
        test_sets = [
            open_data(method_type.family, each, run.path.data_dir, method_type.trains_on)
            for each in (settings.data, *map(settings.data.on, run.test_sets))
        ]
        _require_different(test_sets)
        candidates = [_load_candidate(settings, weights, device) for weights in WEIGHTS[run.weights]]
    if candidates[0].checkpoint is None:
        candidates = candidates[:1]
    else:
        own = test_sets[0]
        warn_of_trained_cases(candidates[0].checkpoint, own.spec.name, own.tested_cases())

    asked = run.surface_scores, run.save_predictions, run.pictures
    options = ScoreOptions(*asked, run.seed, settings.config_hash, run.hd95)
    evaluations = {data.spec.name: make_evaluation(method_type.family, data, device) for data in test_sets}
    result = score_on_each(evaluations, candidates, out, options)
    write_text(out / "table.md", "\n".join(table.to_markdown() for table in result.tables))
    for name, value in result.logged:
        _run.log_scalar(name, value, 0)
    places = [f"\noverlay: {path}" for path in list(result.pictures.values())[:1]]
    if run.pictures:
        runs = None if run.reload_model_path else settings.experiment_folder / "runs"
        curves = draw_training(out, runs, candidates[0].history, candidates[0].name)
        page = write_validation_page(out, result, curves, settings.values, settings.changed, candidates[0].checkpoint)
        places += [] if page is None else [f"\nreport: {page}"]
    logger.info("\n%s%s", result.tables[0].to_markdown(), "".join(places))
    ex.answer = result.to_json(out)
    report_failures(result, out)
    return result.headline


def _require_different(test_sets: Sequence[TrainingData]) -> None:
    names = [data.spec.name for data in test_sets]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigError(f"test_sets: {twice[0]} is given twice, or is the run's own; expected further data sets.")


def _load_candidate(settings: Settings, weights: str, device: torch.device) -> Candidate:
    run = settings.run
    name = settings.method_name + (f" ({run.exp_prefix})" if run.exp_prefix else "")
    trains = method_class(run.method).batch_type is not None
    if run.reload_model_path == "none" or not (trains or run.reload_model_path):
        seed_everything(run.seed)
        method = build_method(settings.values).to(device)
        return Candidate(f"{name} untrained", method, "untrained") if trains else Candidate(name, method, "none")
    path = _find_checkpoint(settings)
    trained = (load_trained if trains else load_with_encoder)(path, settings.values, weights, device)
    return Candidate(
        name, trained.method, weights, trained.normalisation, trained.step, trained.history, trained.slices, path
    )


def _find_checkpoint(settings: Settings) -> Path:
    named = settings.run.reload_model_path
    path = Path(named or settings.experiment_folder / "checkpoint.pt").expanduser()
    if not named and not path.exists():
        raise CheckpointError(
            f"{path}: {settings.data.unidentified or 'this configuration has not been trained'}. Train it with these "
            "settings, name a checkpoint with reload_model_path=PATH, or score random weights: reload_model_path=none."
        )
    return weights_of(path)


def _open_trained(settings: Settings) -> tuple[Method, Evaluation]:
    """The trained method and its evaluation on the training images."""
    device = plan().device(settings.run.device)
    set_precision("float32", device)
    kind = method_class(settings.run.method)
    data = open_data(kind.family, settings.data, settings.run.path.data_dir, kind.trains_on)
    method = _load_candidate(settings, "last", device).method
    return method, make_evaluation(kind.family, data, device)


@command
def collect(_config: dict[str, Any]) -> str:
    """Gathers all finished validations below `path.log_dir`, of every family, into tables there.

    Raises:
        DataError: files that cannot be used; the tables are made of the others.
    """
    run = read_settings(_config).run
    root = Path(run.path.log_dir).expanduser()
    found = write_tables(root, {name: layout.with_hd95(run.hd95) for name, layout in LAYOUTS.items()})
    ex.answer = found.to_json()
    logger.info("\n%s\n%s", found.to_markdown(), root / "table.md")
    found.require_all()
    return str(root / "table.md")


@command
def probabilities(_config: dict[str, Any]) -> str:
    """Writes a trained network's foreground probabilities of the training images, for two-pass superpixels.

    They are stored as 16-bit PNG in `<experiment>/probabilities`, see models.evaluation.probabilities; of several
    networks, those that predict (`predict_with`) are averaged.
    """
    settings = read_settings(_config)
    method, evaluation = _open_trained(settings)
    folder = settings.experiment_folder / "probabilities"
    n_images = evaluation.export_probabilities(method, folder, settings.run.export_temperature)
    logger.info("%s: probabilities of %d training images", folder, n_images)
    return str(folder)


@command
def suspects(_config: dict[str, Any]) -> str:
    """Ranks the given masks of the training images by how much the trained network disagrees with them.

    Writes suspects.csv and suspects.png to `<experiment>/suspects`.
    """
    settings = read_settings(_config)
    method, evaluation = _open_trained(settings)
    return str(evaluation.rank_suspects(method, settings.experiment_folder / "suspects"))


@command
def export(_config: dict[str, Any]) -> str:
    """Writes pseudo-labels: of unlabelled scans, or of the classes that images are not annotated for.

    They go to `export_to`, by default `<experiment>/pseudo_labels`, for methods that learn from them (`pseudo_labels`);
    how probabilities become labels: `pseudo_label`.
    """
    settings = read_settings(_config)
    run, experiment = settings.run, settings.experiment_folder
    method, evaluation = _open_trained(settings)
    folder = Path(run.export_to or experiment / "pseudo_labels").expanduser()
    evaluation.export_pseudo_labels(method, folder, experiment.name, settings.config_hash, run.pseudo_label)
    return str(folder)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line, or `arguments`: a command and its words."""
    ex.run_words("validate", arguments)


if __name__ == "__main__":
    main()
