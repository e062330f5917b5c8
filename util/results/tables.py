"""The table that a paper prints of many scores: a column per organ, a line per method, as Markdown and CSV."""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from util.results.metrics import bootstrap_interval, summarise
from util.results.scores import CONTEXT, ScoreRow, csv_text

MEAN = "Mean"  # the column over all organs

Metric = Literal["dice", "precision", "recall", "iou", "hd95_mm", "nsd"]

# Columns of the table in the paper's order -> the names that data sets give the organ (in lower case).
ORGANS = {
    "Left kidney": ("lk", "kid_l"),
    "Right kidney": ("rk", "kid_r"),
    "Spleen": ("spleen",),
    "Liver": ("liver",),
}

_LINE = (*CONTEXT, "protocol")  # what tells the lines of a table apart
_WORDS = (*_LINE, "structure", "figure", "hardware")  # columns of words, set to the left


@runtime_checkable
class Printable(Protocol):
    """Anything that can be shown as a table with notes below."""

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know."""
        ...

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """The header, and the lines."""
        ...


@dataclass(frozen=True)
class Figure:
    """One cell of the table.

    Attributes:
        mean: mean over folds and seeds of the mean over query scans (for the column over organs: the mean of theirs).
        std: sample standard deviation over scans.
        low, high: 95 % bootstrap interval of `mean` over patients.
        n_scans: scans with a defined value.
        n_undefined: undefined values, which entered nothing.
        folds: those with a defined value.
        n_seeds: trainings that differ in nothing but the seed.
    """

    mean: float
    std: float
    low: float
    high: float
    n_scans: int
    n_undefined: int
    folds: tuple[int, ...]
    n_seeds: int = 1


@dataclass(frozen=True)
class Line:
    """One line of the table: the same method, data set, setting and protocol."""

    method: str
    dataset: str
    setting: str
    protocol: str
    figures: dict[str, Figure]  # by column heading


@dataclass(frozen=True)
class Table:
    """Scores as a paper prints them.

    Attributes:
        metric: which score.
        columns: organ headings in the paper's order, then the mean.
        lines: in the order of the rows they came from.
        notes: what a reader must know: the meaning of a cell, folds and values that are missing.
    """

    metric: Metric
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    notes: tuple[str, ...]

    def cells(self) -> tuple[list[str], list[list[str]]]:
        """The table as text: its header and its lines; context columns that are empty throughout are left out."""
        context = [name for name in _LINE if any(getattr(line, name) for line in self.lines)]
        counts = ["Folds", "Scans", "Undefined"] + (["Seeds"] if self._has_seeds else [])
        header = [*(name.capitalize() for name in context), *self.columns, *counts]
        return header, [[*(getattr(line, name) for name in context), *self._printed(line)] for line in self.lines]

    @property
    def _has_seeds(self) -> bool:
        return any(line.figures[MEAN].n_seeds > 1 for line in self.lines)

    def _printed(self, line: Line) -> list[str]:
        mean = line.figures[MEAN]
        figures = [_printed_figure(line.figures.get(column), self.metric) for column in self.columns]
        counts = [len(mean.folds), mean.n_scans, mean.n_undefined] + ([mean.n_seeds] if self._has_seeds else [])
        return [*figures, *map(str, counts)]


def _printed_figure(figure: Figure | None, metric: Metric) -> str:
    if figure is None or math.isnan(figure.mean):
        return "–"
    factor = 1 if metric == "hd95_mm" else 100
    mean, std, low, high = (f"{factor * x:.2f}" for x in (figure.mean, figure.std, figure.low, figure.high))
    return mean + (f" ± {std}" if std != "nan" else "") + (f" [{low}, {high}]" if low != "nan" else "")


def paper_table(rows: Sequence[ScoreRow], metric: Metric = "dice", n_folds: int = 5) -> Table:
    """The paper's table: a line per method, data set, setting and protocol, a column per organ, and their mean.

    Each figure is the mean over folds and seeds of the mean over query scans. Undefined values enter nothing; they are
    counted in the table, and folds without any are named in its notes.

    Args:
        rows: as `collect` gives them.
        metric: which score.
        n_folds: number of folds of a complete cross-validation.

    Source: SSL-ALPNet (ECCV 2020), section 4.1 and tables 1-2.
    """
    by_line: dict[tuple[str, str, str, str], dict[str, list[ScoreRow]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_line[row.method, row.dataset, row.setting, row.protocol][heading_of(row.organ)].append(row)
    found = {heading: None for organs in by_line.values() for heading in organs}
    columns = (*(name for name in ORGANS if name in found), *(name for name in found if name not in ORGANS))
    lines = tuple(
        Line(*key, figures=_figures({name: organs[name] for name in columns if name in organs}, metric))
        for key, organs in by_line.items()
    )
    return Table(metric, (*columns, MEAN), lines, _notes(lines, metric, n_folds))


def measured_tables(rows: Sequence[ScoreRow], n_folds: int = 5) -> list[Table]:
    """The table of Dice, and those of HD95 and NSD where they were measured; missing folds are named under Dice."""
    further: list[Metric] = ["hd95_mm", "nsd"]
    measured: list[Metric] = [m for m in further if not all(math.isnan(getattr(row.scores, m)) for row in rows)]
    return [paper_table(rows, n_folds=n_folds), *(paper_table(rows, metric, n_folds=0) for metric in measured)]


def heading_of(organ: str) -> str:
    """The column of an organ: its name in words, whatever the data set calls it."""
    return next((heading for heading, names in ORGANS.items() if organ.lower() in names), organ)


def _figures(organs: Mapping[str, list[ScoreRow]], metric: Metric) -> dict[str, Figure]:
    weights = {organ: _weights(rows, metric) for organ, rows in organs.items()}
    figures = {organ: _figure(rows, weights[organ], metric) for organ, rows in organs.items()}
    every_row = [row for rows in organs.values() for row in rows]
    return figures | {MEAN: _figure(every_row, np.concatenate(list(weights.values())), metric)}


def _weights(rows: Sequence[ScoreRow], metric: Metric) -> np.ndarray:
    """(N,) weights with which the mean over rows is that of the means of each fold and seed; 0 where undefined."""
    defined = ~np.isnan([getattr(row.scores, metric) for row in rows])
    _, group = np.unique([f"{row.fold} {row.seed}" for row in rows], return_inverse=True)
    weights = defined / np.maximum(np.bincount(group, defined), 1)[group]
    return weights / max(weights.sum(), 1)


def _figure(rows: Sequence[ScoreRow], weights: np.ndarray, metric: Metric) -> Figure:
    values = np.array([getattr(row.scores, metric) for row in rows])
    scans = np.array([row.scan for row in rows])
    per_scan = summarise([summarise(values[scans == scan]).mean for scan in np.unique(scans)])
    low, high = bootstrap_interval(values, scans, weights)
    return Figure(
        mean=float(np.nansum(values * weights) / weights.sum()) if weights.any() else math.nan,
        std=per_scan.std,
        low=low,
        high=high,
        n_scans=per_scan.n_defined,
        n_undefined=int(np.isnan(values).sum()),
        folds=tuple(sorted({row.fold for row, weight in zip(rows, weights, strict=True) if weight})),
        n_seeds=len({row.seed for row in rows}),
    )


def _notes(lines: Sequence[Line], metric: Metric, n_folds: int) -> tuple[str, ...]:
    over = "folds and seeds" if any(line.figures[MEAN].n_seeds > 1 for line in lines) else "folds"
    unit = {"hd95_mm": "HD95 in mm", "nsd": "NSD × 100", "iou": "IoU × 100"}.get(metric, f"{metric.capitalize()} × 100")
    meaning = (
        f"{unit}: mean over {over} of the mean over query scans ± sample standard deviation over scans "
        "[95 % bootstrap interval over patients]. Undefined scores enter no mean; they are counted."
    )
    return (meaning, *(note for line in lines for note in _gaps(line, lines, n_folds)))


def _gaps(line: Line, lines: Sequence[Line], n_folds: int) -> list[str]:
    """What is not in a line: folds without scores, organs that other lines of the data set have."""
    setting = line.setting and f"setting {line.setting}"
    name = ", ".join(filter(None, (line.method, line.dataset, setting, line.protocol)))
    organs = [organ for organ in line.figures if organ != MEAN]
    by_missing: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for organ in organs:
        by_missing[tuple(sorted({*range(n_folds)} - {*line.figures[organ].folds}))].append(organ)
    notes = [
        f"{name}: no defined score of fold {', '.join(map(str, missing))} for {', '.join(without)}."
        for missing, without in by_missing.items()
        if missing
    ]
    expected = {organ: None for other in lines if other.dataset == line.dataset for organ in other.figures}
    absent = [organ for organ in expected if organ not in line.figures or math.isnan(line.figures[organ].mean)]
    if absent:
        notes.append(f"{name}: the mean is without {', '.join(absent)}.")
    return notes


def to_markdown(table: Printable) -> str:
    """The table in GitHub's Markdown, its notes below."""
    header, lines = table.cells()
    ruler = ["---" if name.lower() in _WORDS else "---:" for name in header]
    drawn = ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in (header, ruler, *lines)]
    return "\n".join([*drawn, "", *(f"- {note}" for note in table.notes)]) + "\n"


def to_csv(table: Table) -> str:
    """The table as CSV with one line per figure, unrounded; an undefined figure is an empty cell."""
    records = [
        vars(line) | vars(figure) | {"metric": table.metric, "organ": organ, "folds": " ".join(map(str, figure.folds))}
        for line in table.lines
        for organ, figure in line.figures.items()
    ]
    return csv_text(
        (*_LINE, "metric", "organ", "mean", "std", "low", "high", "n_scans", "n_undefined", "folds"), records
    )
