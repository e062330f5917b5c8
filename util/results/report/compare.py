"""Compares runs case by case: paired differences to the first one, on the cases that all of them share."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from util.errors import DataError
from util.files import write_text
from util.ids import natural_key
from util.results.intervals import mean_interval
from util.results.report.cases import CaseGroup, CaseRow, group_cases
from util.results.report.page import render
from util.results.report.record import metric
from util.results.report.runs import Run, find_run, read_run
from util.results.report.strip import Plot, make_plot

FILE_NAME = "comparison.html"
MEAN = "Mean"
EQUAL = 1e-9  # smaller differences are none


@dataclass(frozen=True)
class Difference:
    """Scores of a run minus those of the first one, in one structure; printed units.

    Attributes:
        structure: or `MEAN`.
        n: cases in which both are defined.
        median, mean: of the differences.
        low, high: 95 % confidence interval of the mean; NaN where none can be given.
        better, worse: number of cases.
    """

    structure: str
    n: int
    median: float
    mean: float
    low: float
    high: float
    better: int
    worse: int


@dataclass(frozen=True)
class Compared:
    """A run and its differences to the first one; none for the first one itself."""

    name: str
    title: str
    group: CaseGroup
    rows: dict[str, CaseRow]  # of the shared cases
    means: list[float]
    differences: list[Difference]
    plot: Plot | None


def save_comparison(paths: Sequence[Path], out: Path) -> Path:
    """Writes a page that compares runs; returns its path.

    Args:
        paths: of two runs or more, see `find_run`; the first one is the reference.
        out: the page.

    Raises:
        DataError: a run cannot be read, or they have no case, structure or score in common.
    """
    runs = [read_run(find_run(path)) for path in paths]
    groups = [_first_group(run) for run in runs]
    structures = [name for name in groups[0].structures if all(name in group.structures for group in groups)]
    _require_alike(runs, groups, structures)
    by_case = [{row.case: row for row in group.rows} for group in groups]
    shared = sorted(set.intersection(*map(set, by_case)), key=natural_key)
    counts = [f"{run.name}: {len(rows)} cases" for run, rows in zip(runs, by_case, strict=True)]
    if not shared:
        raise DataError(f"no case is in all runs ({'; '.join(counts)}). Compare validations of the same cases.")
    names = _distinct_names(runs)
    compared = [
        _compare(name, run, group, {case: rows[case] for case in shared}, {case: by_case[0][case] for case in shared},
                 structures, run is runs[0])
        for name, run, group, rows in zip(names, runs, groups, by_case, strict=True)
    ]  # fmt: skip
    text = render(
        "compare.html.j2",
        compared=compared,
        structures=structures,
        shared=shared,
        warnings=_warnings(runs, groups, counts, len(shared)),
        metric=groups[0].title_of_metric,
        conditions=groups[0].title,
        is_higher_better=_is_higher_better(groups[0]),
    )
    write_text(out, text)
    return out


def _first_group(run: Run) -> CaseGroup:
    groups = group_cases(run.scores)
    if not groups:
        raise DataError(f"{run.folder}: no scores of cases to compare. Name a validation that has scored cases.")
    return groups[0]


def _require_alike(runs: Sequence[Run], groups: Sequence[CaseGroup], structures: Sequence[str]) -> None:
    for name, values in (
        ("data sets", [" and ".join(group.scores["dataset"].unique()) for group in groups]),
        ("scores", [group.metric for group in groups]),
        ("protocols", [_protocol(group) for group in groups]),
    ):
        if len(set(values)) > 1:
            found = "; ".join(f"{run.name}: {value}" for run, value in zip(runs, values, strict=True))
            raise DataError(f"runs of different {name} ({found}); expected the same. Compare validations of one kind.")
    if not structures:
        found = "; ".join(f"{run.name}: {', '.join(group.structures)}" for run, group in zip(runs, groups, strict=True))
        raise DataError(f"no structure is in all runs ({found}). Compare validations of the same structures.")


def _protocol(group: CaseGroup) -> str:
    return " and ".join(group.scores["protocol"].unique()) if "protocol" in group.scores else ""


def _distinct_names(runs: Sequence[Run]) -> list[str]:
    """Letters, by which the tables tell the runs apart; numbers where there are more runs than letters."""
    return [chr(ord("A") + n) if n < len(runs) <= 26 else str(n + 1) for n in range(len(runs))]


def _is_higher_better(group: CaseGroup) -> bool:
    """Whether it is a share; distances are better when they are small."""
    highest = metric(group.metric).highest
    return highest is None or not math.isinf(highest)


def _compare(
    name: str, run: Run, group: CaseGroup, rows: dict[str, CaseRow], first: dict[str, CaseRow],
    structures: Sequence[str], is_first: bool,
) -> Compared:  # fmt: skip
    columns = {structure: _values(rows, structure, structures) for structure in (*structures, MEAN)}
    means = [group.factor * _mean(values) for values in columns.values()]
    title = f"{run.record.title} ({run.name})"
    if is_first:
        return Compared(name, title, group, rows, means, [], None)
    sign = 1 if _is_higher_better(group) else -1
    patients = [row.patient for row in rows.values()]
    differences, points = [], []
    for structure, values in columns.items():
        change = group.factor * (values - _values(first, structure, structures))
        differences.append(_difference(structure, change, patients, sign))
        points.append(
            (structure, [(case, f"case-{n}", value) for n, (case, value) in enumerate(zip(rows, change, strict=True))])
        )
    return Compared(name, title, group, rows, means, differences, make_plot(points, signed=True))


def _values(rows: dict[str, CaseRow], structure: str, structures: Sequence[str]) -> np.ndarray:
    """(N,) scores of the cases; of `MEAN` the mean over structures, undefined where one of them is."""
    if structure != MEAN:
        return np.array([row.values.get(structure, math.nan) for row in rows.values()])
    return np.array([np.mean([row.values.get(name, math.nan) for name in structures]) for row in rows.values()])


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else math.nan


def _difference(structure: str, change: np.ndarray, patients: Sequence[str], sign: int) -> Difference:
    is_known = ~np.isnan(change)
    known = change[is_known]
    if not len(known):
        return Difference(structure, 0, math.nan, math.nan, math.nan, math.nan, 0, 0)
    low, high, _ = mean_interval(known, np.asarray(patients)[is_known], highest=None)
    better, worse = int((sign * known > EQUAL).sum()), int((sign * known < -EQUAL).sum())
    return Difference(structure, len(known), float(np.median(known)), float(known.mean()), low, high, better, worse)


def _warnings(runs: Sequence[Run], groups: Sequence[CaseGroup], counts: Sequence[str], n_shared: int) -> list[str]:
    told = []
    if any(len(group.rows) != n_shared for group in groups):
        told.append(f"Compared on the {n_shared} cases that all runs share ({'; '.join(counts)}).")
    others = {run.name: "; ".join(each.title for each in group_cases(run.scores)[1:]) for run in runs}
    if len(set(others.values())) == 1 and others[runs[0].name]:
        told.append(f"Only the first set of scores is compared, {groups[0].title}; not {others[runs[0].name]}.")
    else:
        told += [f"{name}: not compared: {text}." for name, text in others.items() if text]
    failed = {run.name: len(run.record.failed) for run in runs if run.record.failed}
    told += [f"{name}: {number} cases could not be scored." for name, number in failed.items()]
    return told + [f"{run.name}: {each}" for run in runs for each in run.warnings]


def default_place(paths: Sequence[Path]) -> Path:
    """`comparison.html` in the folder that all runs share."""
    return Path(os.path.commonpath([find_run(path).resolve().parent for path in paths])) / FILE_NAME
