"""Scores a trained method on the held-out scans of its fold, and gathers finished folds into the paper's table.

    python validation.py with alpnet chaost2 setting2 eval_fold=0                       # this configuration's training
    python validation.py with alpnet chaost2 setting2 eval_fold=0 reload_model_path=exps/.../snapshots/25000.pth
    python validation.py with alpnet chaost2 reload_model_path=none                     # untrained, for comparison
    python validation.py with threshold chaost2                                         # plain intensity threshold
    python validation.py collect with path.log_dir=exps                                 # table.csv, table.md

Each validation leaves in its run folder: scores.csv, table.md, overlays, report.html and, as NIfTI, the masks on the
prepared and on the original scan's grid.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from config_ssl_upload import Settings, command, ex, read_settings, run_folder
from dataloaders.build import FewShotTask, build_task, open_data
from dataloaders.normalise import Normalisation
from dataloaders.preprocess import paste_back
from dataloaders.samples import Volume
from dataloaders.store import PreparedFolder
from dataloaders.volume_io import write_nifti
from models import build_method
from models.evaluate import CaseResult, evaluate
from models.snapshot import load_trained
from util import pictures, scores, tables
from util.distributed import choose_device
from util.errors import CheckpointError
from util.files import write_text
from util.seeding import seed_everything

logger = logging.getLogger(__name__)

PROTOCOLS = {"reference": ("reference",), "blind": ("blind",), "both": ("reference", "blind")}


@command
def validate(_config: dict[str, Any], _run: Any) -> float:
    """Segments and scores the fold's query scans; returns the mean Dice of the first protocol."""
    settings = read_settings(_config)
    device = choose_device(settings.run.device)
    folder, fold = open_data(settings.data, settings.run.path.data_dir)
    method, normalisation, name = _method_to_score(settings, device)
    if normalisation is None:
        normalisation = Normalisation.fit(folder.spec, folder.statistics(fold.train))
    out = run_folder(_run, settings)
    logger.info("%s, fold %d: support scans %s, query scans %s", name, settings.data.eval_fold, fold.support, fold.query)

    rows: list[scores.ScoreRow] = []
    pages: list[Path] = []
    for which in PROTOCOLS[settings.run.protocol]:
        task = build_task(settings.data, folder, fold, normalisation, which)
        results = evaluate(method, task, device, settings.run.nsd_tolerance_mm)
        for result in tqdm(results, total=len(fold.query), desc=f"{which} protocol", disable=None):
            rows += _rows(settings, folder, name, which, result)
            pages.append(_draw(out, folder, which, result))
            if settings.run.save_predictions:
                _save_masks(out / "predictions" / which, folder, result)
    scores.write_scores(out / scores.FILE_NAME, rows)
    table = tables.paper_table(rows)
    _log_scores(_run, folder, task, rows)
    write_text(out / "table.md", tables.to_markdown(table))
    pictures.save_report(out / "report.html", f"{name} on {folder.spec.name}", table, pages, settings.values)
    logger.info("%s\nreport: %s", tables.to_markdown(table), out / "report.html")
    return float(np.nanmean([row.scores.dice for row in rows if row.protocol == rows[0].protocol]))
