"""What a report page tells beyond the scores of a run: `report.json`, written when a validation or a training ends."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from util.errors import DataError
from util.files import read_json_object, write_json
from util.results.metrics import METRICS, Metric
from util.results.tables import MEAN, Table

FILE_NAME = "report.json"


@dataclass(frozen=True)
class PrintedTable:
    """A table as text, see `util.results.tables.Table`."""

    columns: list[str]
    rows: list[list[str]]
    n_labels: int
    notes: list[str]
    title: str


@dataclass(frozen=True)
class Headline:
    """The main score, in the units of the tables; an end that cannot be given is None."""

    title: str
    mean: float | None
    line: str  # of the table, where it has several
    low: float | None = None
    high: float | None = None
    n_patients: int = 0
    digits: int = 2


@dataclass(frozen=True)
class Record:
    """What was run, and what came of it.

    Attributes:
        title: method, data set and the like.
        command: the command line.
        finished: time at which the run ended, ISO 8601 in UTC.
        n_cases: that were to be scored.
        failed: case that could not be scored -> reason.
        missing: masks and data sets that are missing, each with its reason.
        headline: the main score; None: nothing was scored.
        tables: of scores.
        pictures, curves: caption -> picture, relative to the run's folder.
        settings: the whole configuration, nested.
        changed: dotted keys of the settings that differ from their defaults.
        versions: of what computed the results, and the hardware.
        data: SHA-256 of what was trained on, and the like; name -> value.
    """

    title: str
    command: str = ""
    finished: str = ""
    n_cases: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    headline: Headline | None = None
    tables: list[PrintedTable] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)
    curves: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    changed: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Writes `report.json` into the run's folder."""
        write_json(folder / FILE_NAME, asdict(self))


def read_record(folder: Path) -> Record | None:
    """Reads the record of a run; None without one, as of a run of an earlier version.

    Raises:
        DataError: it is damaged.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return None
    content = read_json_object(path)
    try:
        content["headline"] = Headline(**content["headline"]) if content["headline"] else None
        content["tables"] = [PrintedTable(**table) for table in content["tables"]]
        return Record(**content)
    except (TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path}: not the record of a run ({error}). Delete it, or run the validation again; without it the page "
            "is made of the scores alone."
        ) from error


def now() -> str:
    """The time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def relative(files: Mapping[str, Path], folder: Path) -> dict[str, str]:
    """Caption -> path relative to the run's folder, in POSIX form."""
    return {caption: path.relative_to(folder).as_posix() for caption, path in files.items()}


def print_tables(tables: Sequence[Table]) -> list[PrintedTable]:
    """The tables as text."""
    return [
        PrintedTable(
            columns=[str(name) for name in table.printed.columns],
            rows=[[str(cell) for cell in row] for row in table.printed.itertuples(index=False, name=None)],
            n_labels=table.n_labels,
            notes=list(table.notes),
            title=metric(table.metric).title + (f", by {table.breakdown}" if table.breakdown else ""),
        )
        for table in tables
    ]


def headline_of(tables: Sequence[Table]) -> Headline | None:
    """The first line's mean over all columns in the first table, or its first figure."""
    if not tables or tables[0].figures.empty:
        return None
    figures = tables[0].figures
    means = figures[figures["column"] == MEAN]
    figure = (means if len(means) else figures).iloc[0]
    known = metric(tables[0].metric)
    mean, low, high = (_finite(known.factor * float(figure[name])) for name in ("mean", "low", "high"))
    labels = tables[0].printed.iloc[:, : tables[0].n_labels]
    line = ", ".join(str(labels[name].iloc[0]) for name in labels if labels[name].nunique() > 1)
    return Headline(known.title, mean, line, low, high, int(figure["n_patients"]))


def metric(name: str) -> Metric:
    """A metric, known or not."""
    return METRICS.get(name, Metric(name, factor=1.0, highest=None))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
