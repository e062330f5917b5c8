"""Scores a trained method on the held-out scans of its fold, and gathers finished folds into the paper's table.

    python validation.py with alpnet chaost2 setting2 eval_fold=0                       # this configuration's training
    python validation.py with alpnet chaost2 setting2 eval_fold=0 reload_model_path=exps/.../snapshots/25000.pth
    python validation.py with alpnet chaost2 reload_model_path=none                     # untrained, for comparison
    python validation.py with threshold chaost2                                         # plain intensity threshold
    python validation.py collect with path.log_dir=exps                                 # table.md, table.csv

Each validation leaves in its run folder: scores.csv, table.md, a picture per scan, report.html and, as NIfTI, the masks
on the prepared and on the original scan's grid.
"""

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from config_ssl_upload import Settings, command, ex, read_settings, run_folder
from dataloaders.build import build_task, open_data
from dataloaders.geometry import Grid, paste_back
from dataloaders.normalise import Normalisation
from dataloaders.samples import Volume
from dataloaders.store import PreparedFolder
from dataloaders.volume_io import write_nifti
from models import build_method, method_class
from models.evaluate import CaseResult, evaluate
from models.methods.base import Method
from models.snapshot import load_trained
from util.distributed import choose_device
from util.errors import CheckpointError
from util.files import write_text
from util.pictures import save_overlays, save_training_curves
from util.report import save_report
from util.scores import FILE_NAME, ScoreRow, write_scores
from util.scores import collect as collect_scores
from util.seeding import seed_everything
from util.tables import heading_of, measured_tables, to_csv, to_markdown

logger = logging.getLogger(__name__)

PROTOCOLS = {"reference": ("reference",), "blind": ("blind",), "both": ("reference", "blind")}


@command
def validate(_config: dict[str, Any], _run: Any) -> float:
    """Segments and scores the fold's query scans; returns the mean Dice under the first protocol asked for."""
    settings = read_settings(_config)
    run = settings.run
    device = choose_device(run.device)
    folder, fold = open_data(settings.data, settings.run.path.data_dir)
    name, method, normalisation = _method_to_score(settings, device)
    if normalisation is None:
        normalisation = Normalisation.fit(folder.spec, folder.statistics(fold.train))
    out = run_folder(_run, settings)
    logger.info("%s: support scans %s, query scans %s", name, list(fold.support), list(fold.query))

    tolerance_mm = run.nsd_tolerance_mm if run.surface_scores else None
    rows: list[ScoreRow] = []
    overlays: dict[str, Path] = {}
    for protocol in PROTOCOLS[run.protocol]:
        task = build_task(settings.data, folder, fold, normalisation, protocol)
        results = evaluate(method, task, device, tolerance_mm)
        for result in tqdm(results, total=len(fold.query), desc=f"{protocol} protocol", disable=None):
            rows += _rows(settings, folder, name, protocol, result)
            caption = f"{protocol} protocol, scan {result.scored.case.scan_id}"
            overlays[caption] = _draw(out, folder, name, protocol, result)
            if run.save_predictions:
                _save_masks(out / "predictions" / protocol, folder, result)
    curves = out / "curves.png"
    if not run.reload_model_path and save_training_curves(curves, settings.experiment_folder / "runs"):
        overlays["training"] = curves
    write_scores(out / FILE_NAME, rows)
    _log_scores(_run, rows)
    all_tables = measured_tables(rows, n_folds=0)
    write_text(out / "table.md", "\n".join(map(to_markdown, all_tables)))
    title = f"{name} on {folder.spec.name}, fold {settings.data.eval_fold}"
    save_report(
        out / "report.html", title, tables=all_tables,
        pictures=overlays, facts=settings.values, command=shlex.join(["python", *sys.argv]),
    )  # fmt: skip
    logger.info(
        "\n%s\noverlay: %s\nreport: %s", to_markdown(all_tables[0]), next(iter(overlays.values())), out / "report.html"
    )
    return _mean([row.scores.dice for row in rows if row.protocol == rows[0].protocol])


def _method_to_score(settings: Settings, device: torch.device) -> tuple[str, Method, Normalisation | None]:
    """The name in tables, the method, and the normalisation it was trained with (None: fit it)."""
    run = settings.run
    name = settings.method_name + (f" ({run.exp_prefix})" if run.exp_prefix else "")
    if method_class(run.method).batch_type is None:
        return name, build_method(settings.values), None
    if run.reload_model_path == "none":
        seed_everything(run.seed)
        return f"{name} untrained", build_method(settings.values).to(device), None
    path = Path(run.reload_model_path or settings.experiment_folder / "checkpoint.pt").expanduser()
    if not run.reload_model_path and not path.exists():
        raise CheckpointError(
            f"{path}: this configuration has not been trained. Train it with the same settings, name a checkpoint "
            "with reload_model_path=PATH, or score random weights with reload_model_path=none."
        )
    trained = load_trained(path, settings.values, run.weights, device)
    return name + (" EMA" if run.weights == "ema" else ""), trained.method, trained.normalisation


def _rows(settings: Settings, folder: PreparedFolder, name: str, protocol: str, result: CaseResult) -> list[ScoreRow]:
    return [
        ScoreRow(
            method=name,
            dataset=folder.spec.name,
            setting=str(settings.run.setting),
            protocol=protocol,
            fold=settings.data.eval_fold,
            scan=result.scored.case.scan_id,
            label=value,
            organ=folder.spec.class_names[value],
            scores=scores,
        )
        for value, scores in result.scores.items()
    ]


def _draw(out: Path, folder: PreparedFolder, name: str, protocol: str, result: CaseResult) -> Path:
    scored = result.scored
    painted = np.zeros(scored.truth.shape, np.uint8)
    for place in np.argsort([-mask.sum() for mask in result.masks]):  # the smallest organ on top
        painted[result.masks[place]] = scored.case.classes[place]
    path = out / "overlays" / f"{protocol}_scan_{scored.case.scan_id}.png"
    save_overlays(
        path,
        scored.stored.array,
        scored.truth,
        {name: painted},
        scan=scored.case.scan_id,
        organs={value: heading_of(folder.spec.class_names[value]) for value in scored.case.classes},
        dice={name: {value: scores.dice for value, scores in result.scores.items()}},
        affine=scored.stored.affine,
    )
    return path


def _save_masks(out: Path, folder: PreparedFolder, result: CaseResult) -> None:
    """Writes a mask per organ (values 0 and the label), on the prepared and, where known, on the original grid."""
    scan = result.scored.case.scan_id
    original = folder.manifest.scans.get(str(scan), {}).get("original")
    for value, mask in zip(result.scored.case.classes, result.masks, strict=True):
        labelled = Volume(mask.astype(np.uint8) * value, result.scored.stored.affine)
        write_nifti(out / f"scan_{scan}_label_{value}.nii.gz", labelled)
        if original:
            grid = Grid.from_json(original)
            pasted = paste_back(labelled, grid.shape, grid.affine)
            write_nifti(out / "original_grid" / f"scan_{scan}_label_{value}.nii.gz", pasted)


def _log_scores(log: Any, rows: Sequence[ScoreRow]) -> None:
    """Logs mean scores over scans; for the reference protocol also under the reference's names."""
    for protocol in dict.fromkeys(row.protocol for row in rows):
        mine = [row for row in rows if row.protocol == protocol]
        organs = dict.fromkeys(row.organ for row in mine)
        dice = {organ: _mean([row.scores.dice for row in mine if row.organ == organ]) for organ in organs}
        for organ, value in dice.items():
            log.log_scalar(f"{protocol}/dice/{organ.lower()}", value, 0)
        log.log_scalar(f"{protocol}/dice/mean", _mean(list(dice.values())), 0)
        if protocol == "reference":
            for value in dice.values():
                log.log_scalar("mar_val_batches_classDice", value, 0)
            log.log_scalar("mar_val_batches_meanDice", _mean(list(dice.values())), 0)


def _mean(values: Sequence[float]) -> float:
    """Mean of the defined values; undefined ones stay in scores.csv and are counted in the table."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


@command
def collect(_config: dict[str, Any]) -> str:
    """Gathers all finished validations below `path.log_dir` into table.md and table.csv there."""
    settings = read_settings(_config)
    root = Path(settings.run.path.log_dir).expanduser()
    rows = collect_scores([root])
    all_tables = measured_tables(rows, settings.data.spec.n_folds)
    text = "\n".join(map(to_markdown, all_tables))
    write_text(root / "table.md", text)
    for table in all_tables:
        write_text(root / ("table.csv" if table.metric == "dice" else f"table_{table.metric}.csv"), to_csv(table))
    logger.info("\n%s\n%s", text, root / "table.md")
    return str(root / "table.md")


if __name__ == "__main__":
    ex.default_command = "validate"
    ex.run_commandline()
