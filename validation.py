"""Scores a trained method on held-out cases, and gathers finished runs into the papers' tables.

    python validation.py with alpnet chaost2 setting2 eval_fold=0                       # this configuration's training
    python validation.py with alpnet chaost2 setting2 eval_fold=0 reload_model_path=exps/.../snapshots/25000.pth
    python validation.py with alpnet chaost2 reload_model_path=none                     # untrained, for comparison
    python validation.py with threshold chaost2                                         # plain intensity threshold
    python validation.py with tloss isic2017 noise.alpha=0.7 noise.beta=0.7             # images
    python validation.py collect with path.log_dir=exps                                 # table.md, table.csv
    python validation.py probabilities with baseline jsrt                               # for two-pass superpixels
    python validation.py suspects with baseline isic2017                                # ranks the given masks

Each validation leaves in its run folder: scores, table.md, pictures, report.html, and the masks: of scans as NIfTI on
the prepared and on the original scan's grid, of images as PNG.
"""

import logging
import shlex
import sys
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from config_ssl_upload import Settings, command, ex, read_settings, run_folder
from dataloaders.build import open_data
from dataloaders.images.data import DenseData
from dataloaders.io.png import write_png
from models import build_method, method_class
from models.evaluation import Scored, ScoreOptions, evaluation_of
from models.evaluation.suspects import rank_suspects
from models.training.load import load_trained
from util.errors import CheckpointError, ConfigError
from util.files import write_text
from util.results.image_pictures import save_memorisation
from util.results.pictures import save_training_curves
from util.results.report import save_report
from util.results.summary import write_tables
from util.results.tables import to_markdown
from util.runtime.device import keep_freed_memory, set_precision
from util.runtime.distributed import plan
from util.runtime.seeding import seed_everything

logger = logging.getLogger(__name__)

TEMPERATURE = 5.0  # of exported probabilities
WEIGHTS = {"last": ("last",), "ema": ("ema",), "both": ("last", "ema")}


@command
def validate(_config: dict[str, Any], _run: Any) -> float:
    """Segments and scores the held-out cases; returns the mean Dice (of the first protocol and weights asked for)."""
    settings = read_settings(_config)
    run, method_type = settings.run, method_class(settings.run.method)
    device = plan().device(run.device)
    keep_freed_memory(device)
    set_precision("float32", device)  # scores are those of full precision, whatever was trained in
    data = open_data(settings.data, run.path.data_dir, method_type.trains_on)
    out = run_folder(_run, settings)
    scored = [_method_to_score(settings, weights, device) for weights in WEIGHTS[run.weights]]
    if scored[0].weights in ("untrained", "none"):
        scored = scored[:1]

    options = ScoreOptions(run.surface_scores, run.save_predictions, run.seed, settings.recipe)
    found = evaluation_of(data, device).score(scored, out, options)
    pictures = dict(found.pictures)
    curves, memorisation = out / "curves.png", out / "memorisation.png"
    if not run.reload_model_path and save_training_curves(curves, settings.experiment_folder / "runs"):
        pictures["training"] = curves
    if save_memorisation(memorisation, scored[0].history, f"{scored[0].name}: predictions on training images"):
        pictures["agreement with clean and with given masks"] = memorisation
    for name, value in found.logged:
        _run.log_scalar(name, value, 0)
    write_text(out / "table.md", "\n".join(map(to_markdown, found.tables)))
    save_report(
        out / "report.html", found.title, tables=found.tables,
        pictures=pictures, facts=settings.values, command=shlex.join(["python", *sys.argv]),
    )  # fmt: skip
    picture = next(iter(found.pictures.values()))
    logger.info("\n%s\noverlay: %s\nreport: %s", to_markdown(found.tables[0]), picture, out / "report.html")
    return found.headline


def _method_to_score(settings: Settings, weights: str, device: torch.device) -> Scored:
    run = settings.run
    name = settings.method_name + (f" ({run.exp_prefix})" if run.exp_prefix else "")
    if method_class(run.method).batch_type is None:
        return Scored(name, build_method(settings.values), "none")
    if run.reload_model_path == "none":
        seed_everything(run.seed)
        return Scored(f"{name} untrained", build_method(settings.values).to(device), "untrained")
    trained = load_trained(_checkpoint_of(settings), settings.values, weights, device)
    is_named = weights == "ema" and method_class(run.method).family == "fewshot"  # images have a column for it
    return Scored(
        name + (" EMA" if is_named else ""),
        trained.method,
        weights,
        trained.normalisation,
        trained.step,
        trained.history,
    )


def _checkpoint_of(settings: Settings) -> Path:
    named = settings.run.reload_model_path
    path = Path(named or settings.experiment_folder / "checkpoint.pt").expanduser()
    if not named and not path.exists():
        raise CheckpointError(
            f"{path}: this configuration has not been trained. Train it with the same settings, name a checkpoint "
            "with reload_model_path=PATH, or score random weights with reload_model_path=none."
        )
    return path


@command
def collect(_config: dict[str, Any]) -> str:
    """Gathers all finished validations below `path.log_dir` into table.md and table.csv there."""
    settings = read_settings(_config)
    root = Path(settings.run.path.log_dir).expanduser()
    text = write_tables(root, settings.n_folds)
    logger.info("\n%s\n%s", text, root / "table.md")
    return str(root / "table.md")


@command
def probabilities(_config: dict[str, Any]) -> str:
    """Writes a trained network's foreground probabilities of the training images, for two-pass superpixels.

    They are softmax(logits / 5) as 16-bit PNG (65535 is 1) in `<experiment>/probabilities`; of several
    networks, of those that predict (`predict_with`).

    Source: superpixel-guided learning, released code (temperature 5; the branch is switched off there).
    """
    settings = read_settings(_config)
    device = plan().device(settings.run.device)
    method_type = method_class(settings.run.method)
    data = open_data(settings.data, settings.run.path.data_dir, method_type.trains_on)
    if not isinstance(data, DenseData) or len(data.config.chosen) > 1:
        raise ConfigError("probabilities: for one structure of a set of images; choose such a dataset and method.")
    method = load_trained(_checkpoint_of(settings), settings.values, "last", device).method
    folder = settings.experiment_folder / "probabilities"
    ids, chunks = data.folder.ids("train"), data.labels.chunks(data.config.test_batch)
    for where, batch in tqdm(chunks, desc="probabilities", disable=None):
        with torch.inference_mode():
            found = method.probabilities(batch.image.to(device), TEMPERATURE)[:, 1].cpu()  # type: ignore[operator]
        for image_id, one in zip(ids[where], found, strict=True):
            write_png(folder / f"{image_id}.png", data.in_full((one * 65535).round().to(torch.int32).numpy()))
    logger.info("%s: probabilities of %d training images", folder, len(ids))
    return str(folder)


@command
def suspects(_config: dict[str, Any]) -> str:
    """Ranks the given masks of the training images by how much the trained network disagrees with them.

    Writes suspects.csv and suspects.png to `<experiment>/suspects`.
    """
    settings = read_settings(_config)
    device = plan().device(settings.run.device)
    data = open_data(settings.data, settings.run.path.data_dir, method_class(settings.run.method).trains_on)
    if not isinstance(data, DenseData):
        raise ConfigError("suspects: ranks masks of images, not of scans; choose such a dataset and method.")
    method = load_trained(_checkpoint_of(settings), settings.values, "last", device).method
    return str(rank_suspects(method, data, device, settings.experiment_folder / "suspects"))


if __name__ == "__main__":
    ex.default_command = "validate"
    ex.run_commandline()
