"""Finds a run and reads what its folder holds."""

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from util.errors import DataError
from util.files import read_json_object
from util.ids import natural_key
from util.items import catching
from util.results.layout import GENERIC
from util.results.report.cases import group_cases
from util.results.report.record import FILE_NAME as RECORD
from util.results.report.record import Record, headline_of, print_tables, read_record
from util.results.report.views import VIEWS, View, read_view
from util.results.scores import FILE_NAME, read_run_scores
from util.results.tables import Table, make_tables
from util.schema import flatten

METRICS = ("dice", "legacy_dice", "iou", "hd95_mm", "hd95_px", "nsd")  # in tables of a run without a record


@dataclass(frozen=True)
class Run:
    """A finished validation, or a training without one.

    Attributes:
        folder: of the run.
        record: what was run; made of the scores alone where the run has none.
        scores: see `util.results.scores`; empty: nothing was scored.
        views: of cases.
        sacred: Sacred's own record, `run.json`; empty without one.
        warnings: what is missing.
    """

    folder: Path
    record: Record
    scores: pd.DataFrame
    views: list[View]
    sacred: dict[str, Any]
    warnings: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The experiment and the number of the validation."""
        parent = self.folder.parent
        return f"{parent.parent.name}/{self.folder.name}" if parent.name == "validation" else self.folder.name


def read_run(folder: Path) -> Run:
    """Reads a run.

    Args:
        folder: of the run, see `find_run`.

    Raises:
        DataError: its scores cannot be used.
    """
    scores = read_run_scores(folder)
    failures: dict[str, str] = {}
    record, sacred, views = None, {}, []
    with catching(failures, "record", folder):
        record = read_record(folder)
    if (folder / "run.json").exists():
        with catching(failures, "run.json", folder / "run.json"):
            sacred = read_json_object(folder / "run.json")
    files = [] if scores.empty else folder.glob(f"**/{VIEWS}/*.npz")
    for file in sorted(files, key=lambda file: natural_key(str(file))):
        with catching(failures, str(file), file):
            views.append(read_view(file))
    if record is None:
        if "record" not in failures:
            failures["record"] = "No report.json: failed cases and pictures are unknown. Run the validation again."
        record = _without_record(folder, scores, sacred)
    return Run(folder, record, scores, views, sacred, list(failures.values()))


def find_run(path: Path) -> Path:
    """The folder of a run.

    Args:
        path: that folder, its scores.csv, or the experiment's folder: then its last validation, or its training.

    Raises:
        DataError: there is none.
    """
    if path.is_file() and path.name == FILE_NAME:
        return path.parent
    validations = [file.parent for file in path.glob(f"validation/*/{FILE_NAME}")]
    if (path / FILE_NAME).exists() or ((path / RECORD).exists() and not validations):
        return path
    if validations:
        return max(validations, key=lambda folder: natural_key(folder.name))
    found = f"neither {FILE_NAME} nor validation/*/{FILE_NAME} in it" if path.is_dir() else "no such file or folder"
    if path.is_file():
        found = "not a file of scores"
    raise DataError(
        f"{path}: {found}; expected a run's folder, its experiment's folder or its {FILE_NAME}. Run the validation "
        "first."
    )


def _without_record(folder: Path, scores: pd.DataFrame, sacred: dict[str, Any]) -> Record:
    """The record of a run that has left none, from its scores and Sacred's files."""
    tables = _tables(scores)
    names = [", ".join(scores[name].unique()) for name in ("method", "dataset")]
    settings: dict[str, Any] = {}
    with suppress(DataError):
        settings = read_json_object(folder / "config.json")
    changed = sacred.get("meta", {}).get("config_updates", {})
    return Record(
        " on ".join(names),
        finished=str(sacred.get("stop_time") or sacred.get("start_time") or ""),
        n_cases=scores.loc[scores["case"] != "", "case"].nunique(),
        headline=headline_of(tables),
        tables=print_tables(tables),
        curves={"training": "curves.png"} if (folder / "curves.png").exists() else {},
        settings=settings,
        changed=sorted(flatten(changed)) if isinstance(changed, dict) else [],
    )


def _tables(scores: pd.DataFrame) -> list[Table]:
    """Tables with a line for each set of scores; of the metrics that all families print."""
    metrics = tuple(name for name in METRICS if name in set(scores["metric"]))
    groups = group_cases(scores)
    conditions = groups[0].conditions if groups else {}
    lines = tuple(dict.fromkeys((*GENERIC.lines, *conditions)))
    return make_tables(scores, replace(GENERIC, lines=lines, metrics=metrics or GENERIC.metrics))
