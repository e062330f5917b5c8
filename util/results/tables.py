"""Tables of many scores: a family of methods declares a layout, `make_tables` makes the tables.

A `Table` holds the unrounded figures and the text that is printed of them. Markdown, CSV and HTML
(`util.results.report`) all come from this one object.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from util.ids import natural_key
from util.results.intervals import Interval, mean_interval
from util.results.layout import Layout, join
from util.results.metrics import METRICS, Metric, summarise
from util.results.scores import N_FAILED, N_FOLDS

MEAN = "Mean"  # the column over all columns
UNDEFINED = "–"
TOGETHER = "all together"  # in place of their number: the values are of all cases together

_SPREADS = {
    "cases": "of the mean over cases ± sample standard deviation over cases [95 % confidence interval of the mean, "
    "Student's t], n = number of patients; without an interval for a single patient and for patients of equal scores. "
    "Undefined scores are excluded from the means and counted.",
    "runs": "of the mean over cases ± sample standard deviation over runs (number of runs).",
    "together": "of one value for all cases together.",
}


@dataclass(frozen=True, eq=False)
class Table:
    """A table of figures.

    Attributes:
        metric: name of the metric.
        printed: the table as text.
        n_labels: leading columns of `printed` that name the line.
        figures: a row per figure, unrounded: values of the layout's columns, "metric", "column" (heading), "mean",
            "std", "low", "high" (see the notes), "n_patients", "n_cases" (both 0: a value of all cases together),
            "n_undefined", "n_runs", and the values averaged over.
        notes: what a reader has to know: what a cell means, missing folds and values.
        breakdown: what the columns divide the cases of the main table by; empty: the main table.
    """

    metric: str
    printed: pd.DataFrame
    n_labels: int
    figures: pd.DataFrame
    notes: tuple[str, ...]
    breakdown: str = ""

    def to_markdown(self) -> str:
        """Formats the table in GitHub's Markdown, the notes below."""
        header = markdown_header(list(self.printed.columns), self.n_labels)
        lines = map(markdown_row, self.printed.itertuples(index=False))
        return "\n".join([header, *lines, "", *(f"- {note}" for note in self.notes)]) + "\n"

    def to_json(self) -> dict[str, Any]:
        """The figures, unrounded and in plain numbers (a Dice of 0 to 1), and the notes."""
        rows = self.figures.drop(columns="metric").to_dict("records")
        return {"metric": self.metric, "breakdown": self.breakdown, "figures": rows, "notes": self.notes}

    def to_csv(self) -> str:
        """Formats the figures as CSV, unrounded; an undefined figure is an empty cell."""
        return self.figures.to_csv(index=False, lineterminator="\n")


def markdown_row(cells: Sequence[str]) -> str:
    """Formats cells as one line of a Markdown table."""
    return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"


def markdown_header(names: Sequence[str], n_labels: int) -> str:
    """Formats the first two lines of a Markdown table; the first `n_labels` columns are left-aligned."""
    return markdown_row(names) + "\n" + markdown_row(["---"] * n_labels + ["---:"] * (len(names) - n_labels))


def make_tables(scores: pd.DataFrame, layout: Layout, *, is_complete: bool = False) -> list[Table]:
    """Makes the tables that a layout describes.

    Args:
        scores: see `util.results.scores`.
        layout: of the scores' family.
        is_complete: whether the scores should cover a whole cross-validation, so that missing folds are named.

    Returns:
        A table per metric and value of `layout.tables`; of one metric another one for each of `layout.breakdowns` in
        which the cases of a figure differ. The mean in a cell is that over runs of the mean over cases; undefined
        values are excluded and counted.
    """
    scores = layout.complete(scores)
    tables = _tables_by_metric(scores, layout, is_complete)
    cases = scores[scores["case"] != ""]
    for name in layout.breakdowns:
        by = layout.broken_down(name)
        rows = cases[cases["metric"].isin(by.metrics)] if by.metrics else cases
        figures = rows.groupby([*layout.tables, *layout.lines, *layout.columns])
        if figures[name].nunique().gt(1).any():
            tables += [replace(table, breakdown=name) for table in _tables_by_metric(cases, by)]
    return tables


def _tables_by_metric(scores: pd.DataFrame, layout: Layout, is_complete: bool = False) -> list[Table]:
    metrics = layout.metrics or tuple(scores["metric"].unique())
    tables = []
    for metric in metrics:
        rows = scores[scores["metric"] == metric]
        if rows.empty or (metric != metrics[0] and rows["value"].isna().all()):
            continue
        groups = sorted(_groups(rows, layout.tables), key=lambda group: [_rank(value, layout) for value in group[0]])
        names_folds = is_complete and metric == metrics[0]  # once is enough
        tables += [_make_table(part, metric, key, layout, names_folds) for key, part in groups]
    return tables


def _groups(rows: pd.DataFrame, names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    """Value of the columns -> rows, in the order of appearance."""
    return iter(rows.groupby(list(names), sort=False)) if names else iter([((), rows)])  # type: ignore[arg-type]


def _rank(value: str, layout: Layout) -> int:
    return layout.order.index(value) if value in layout.order else len(layout.order)


def _make_table(rows: pd.DataFrame, metric: str, key: tuple[str, ...], layout: Layout, names_folds: bool) -> Table:
    headings = {values: layout.heading(values) for values, _ in _groups(rows, layout.columns)}
    rows = rows.assign(
        column=[headings[values] for values in rows[list(layout.columns)].itertuples(index=False, name=None)]
    )
    columns = _sort_columns(headings, layout)
    groups = sorted(_groups(rows, layout.lines), key=lambda group: natural_key(group[0][0]))
    lines = [_Line(dict(zip(layout.lines, values, strict=True)), part, columns, layout) for values, part in groups]
    figures = [
        dict(zip(layout.tables, key, strict=True)) | line.labels | {"metric": metric, "column": column} | figure
        for line in lines
        for column, figure in line.figures.items()
    ]
    shown = [name for name in layout.lines if any(line.labels[name] for line in lines)]
    printed, notes = _format_lines(lines, columns, shown, _metric(metric), layout)
    return Table(
        metric=metric,
        printed=printed,
        n_labels=len(shown),
        figures=pd.DataFrame(figures),
        notes=(
            _meaning(layout.title(key), metric, lines, layout),
            *notes,
            *(note for line in lines for note in _gaps(line, lines, names_folds)),
        ),
    )


def _metric(name: str) -> Metric:
    return METRICS.get(name, Metric(name, factor=1.0, highest=None))


def _sort_columns(headings: dict[tuple[str, ...], str], layout: Layout) -> list[str]:
    """Headings in the layout's order, then by ascending numbers, then in the order of appearance."""

    def numbers(values: tuple[str, ...]) -> list[float]:
        try:
            return [float(value) for value in values]
        except ValueError:
            return []

    values = {heading: key for key, heading in reversed(headings.items())}
    return sorted(
        dict.fromkeys(headings.values()), key=lambda heading: (_rank(heading, layout), numbers(values[heading]))
    )


class _Line:
    """One line of a table: its labels, scores and figures by column heading."""

    def __init__(self, labels: dict[str, str], rows: pd.DataFrame, columns: Sequence[str], layout: Layout) -> None:
        self.labels, self.rows = labels, rows
        parts = {column: part for column in columns if not (part := rows[rows["column"] == column]).empty}
        weights = {column: _weights(part, layout.averaged) for column, part in parts.items()}
        self.figures = {column: _figure(part, weights[column], layout) for column, part in parts.items()}
        if layout.has_mean:
            everything = pd.concat(parts.values())
            self.figures[MEAN] = _figure(everything, np.concatenate(list(weights.values())), layout)

    @property
    def name(self) -> str:
        """The labels in words."""
        return join([f"{name} {value}" if value.isdecimal() else value for name, value in self.labels.items()])


def _weights(rows: pd.DataFrame, averaged: Sequence[str]) -> np.ndarray:
    """(N,) weights with which the mean over rows is the mean over runs of the mean over a run; 0 where undefined."""
    defined = rows["value"].notna().to_numpy()
    run = rows.groupby(list(averaged), sort=False).ngroup().to_numpy()
    weights = defined / np.maximum(np.bincount(run, defined), 1)[run]
    return weights / max(weights.sum(), 1)


def _figure(rows: pd.DataFrame, weights: np.ndarray, layout: Layout) -> dict[str, float | int | str]:
    values = rows["value"].to_numpy()
    per_case = summarise([summarise(part["value"]).mean for _, part in rows.groupby("case", sort=False)])
    patients = rows["patient"].where(rows["patient"] != "", rows["case"]).to_numpy()
    interval = Interval(math.nan, math.nan, len({*patients[weights > 0]} - {""}))
    per_run = summarise([summarise(part["value"]).mean for _, part in _groups(rows, layout.averaged)])
    if layout.spread == "cases" and interval.n:
        interval = mean_interval(values, patients, weights, highest=_metric(rows["metric"].iloc[0]).highest)
    counting = rows[weights > 0]
    return {
        "mean": float(np.nansum(values * weights) / weights.sum()) if weights.any() else math.nan,
        "std": per_case.std if layout.spread == "cases" else per_run.std,
        "low": interval.low,
        "high": interval.high,
        "n_patients": interval.n,
        "n_cases": per_case.n_defined if rows["case"].any() else 0,
        "n_undefined": int(np.isnan(values).sum()),
        "n_runs": per_run.n_defined,
        **{name: " ".join(sorted(counting[name].unique(), key=natural_key)) for name in layout.averaged},
    }


def _format_lines(
    lines: Sequence[_Line], columns: Sequence[str], shown: Sequence[str], metric: Metric, layout: Layout
) -> tuple[pd.DataFrame, list[str]]:
    """The table as text, a published line below the measured one; and the note that these lines need."""
    headings = [*columns, MEAN] if layout.has_mean else list(columns)
    counts = _counts(lines, layout) if layout.spread == "cases" else [{} for _ in lines]
    printed, notes = [], []
    for line, counted in zip(lines, counts, strict=True):
        labels = {name: line.labels[name] for name in shown}
        cells = {heading: _cell(line.figures.get(heading), metric, layout) for heading in headings}
        printed.append(labels | cells | counted)
        published = layout.published(line.rows) if layout.published else {}
        if published.keys() & set(columns):
            named = labels | {"method": f"{labels['method']}, published"}
            printed.append(named | {heading: published.get(heading, UNDEFINED) for heading in headings})
            notes = [layout.published_note]
    frame = pd.DataFrame(printed).rename(columns={name: name.replace("_", " ").capitalize() for name in shown})
    return frame, notes


def _cell(figure: Mapping[str, float | int | str] | None, metric: Metric, layout: Layout) -> str:
    if figure is None or math.isnan(float(figure["mean"])):
        return UNDEFINED
    mean, std, low, high = (
        f"{metric.factor * float(figure[name]):.{layout.digits}f}" for name in ("mean", "std", "low", "high")
    )
    text = mean + (f" ± {std}" if std != "nan" else "")
    if layout.spread == "runs":
        return f"{text} ({figure['n_runs']})"
    number = f", n = {figure['n_patients']}" if figure["n_patients"] else ""
    return text + (f" [{low}, {high}]" if low != "nan" else "") + number


def _counts(lines: Sequence[_Line], layout: Layout) -> list[dict[str, str]]:
    """Number of folds, of cases, of undefined values and, where there are several, of other values averaged over."""
    whole = [line.figures[MEAN] if layout.has_mean else next(iter(line.figures.values())) for line in lines]
    numbers = [{name: len(str(figure[name]).split()) for name in layout.averaged} for figure in whole]
    others = [name for name in layout.averaged if name != "fold" and any(each[name] > 1 for each in numbers)]
    return [
        ({"Folds": str(each["fold"])} if "fold" in each else {})
        | {"Cases": str(figure["n_cases"]) if line.rows["case"].any() else TOGETHER}
        | {"Undefined": str(figure["n_undefined"])}
        | {f"{name.replace('_', ' ').capitalize()}s": str(each[name]) for name in others}
        for line, figure, each in zip(lines, whole, numbers, strict=True)
    ]  # fmt: skip


def _meaning(title: str, metric: str, lines: Sequence[_Line], layout: Layout) -> str:
    known = _metric(metric).title
    several = [
        name
        for name in layout.averaged
        if name == "fold"
        or any(line.rows[name].nunique() > 1 for line in lines)
        or (layout.spread == "runs" and any(line.rows[name].any() for line in lines))
    ]
    over = " and ".join(f"{name.replace('_', ' ')}s" for name in several) or "runs"
    is_joint = layout.spread == "cases" and not any(line.rows["case"].any() for line in lines)
    return (
        f"{title}{'. ' * bool(title)}{known}: mean over {over} {_SPREADS['together' if is_joint else layout.spread]}"
        f"{' ' * bool(layout.note)}{layout.note}"
    )


def _gaps(line: _Line, lines: Sequence[_Line], names_folds: bool) -> list[str]:
    """What is missing in a line: cases and folds without scores, columns that other lines of the data set have."""
    failed = [text for text in line.rows[N_FAILED].unique() if text not in ("", "0")]
    notes = [f"{line.name}: without {text} case(s) that could not be scored." for text in failed]
    n_folds = max((int(text) for text in line.rows[N_FOLDS].unique() if text.isdecimal()), default=0)
    by_missing: dict[tuple[int, ...], list[str]] = {}
    for column in line.figures if names_folds else ():
        found = {int(fold) for fold in str(line.figures[column].get("fold", "")).split()}
        if column != MEAN:
            by_missing.setdefault(tuple(sorted({*range(n_folds)} - found)), []).append(column)
    for missing, columns in by_missing.items():
        if missing:
            folds = ", ".join(map(str, missing))
            notes.append(f"{line.name}: no defined score of fold {folds} for {', '.join(columns)}.")
    if MEAN in line.figures:
        alike = [other for other in lines if other.labels.get("dataset") == line.labels.get("dataset")]
        expected = dict.fromkeys(column for other in alike for column in other.figures)
        absent = [
            name for name in expected if name not in line.figures or math.isnan(float(line.figures[name]["mean"]))
        ]
        if absent:
            notes.append(f"{line.name}: the mean is without {', '.join(absent)}.")
    return notes
