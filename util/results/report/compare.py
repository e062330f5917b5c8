"""Compares runs case by case: paired differences to the first one, on the cases that all of them share."""

import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

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

    def to_json(self, structures: Sequence[str]) -> dict[str, Any]:
        """The figures of a run; of the first one without differences."""
        means = dict(zip((*structures, MEAN), self.means, strict=True))
        return {"name": self.name, "title": self.title, "means": means} | {
            "differences": [asdict(each) for each in self.differences]
        }


@dataclass(frozen=True)
class ComparedSet:
    """Scores of all runs under the same conditions.

    Attributes:
        title: the conditions in words, of all runs where they differ; may be empty.
        structures: that all runs have.
        shared: cases that all runs have, and the ids of their rows in the page.
        runs: in the order given.
    """

    title: str
    structures: list[str]
    shared: dict[str, str]
    runs: list[Compared]

    @property
    def metric(self) -> str:
        """Name and unit of the score."""
        return self.runs[0].group.title_of_metric

    @property
    def is_higher_better(self) -> bool:
        """Whether it is a share; distances are better when they are small."""
        return _is_higher_better(self.runs[0].group)


@dataclass(frozen=True)
class Comparison:
    """Runs compared with the first one.

    Attributes:
        folders: of the runs, in the order given.
        sets: of scores under the same conditions.
        warnings: cases and scores that are not compared, and the like.
    """

    folders: list[Path]
    sets: list[ComparedSet]
    warnings: list[str]

    def save(self, out: Path) -> Path:
        """Writes the page; returns its path."""
        first, told = self.sets[0].runs[0].name, self.warnings
        text = render("compare.html.j2", n_runs=len(self.folders), first=first, sets=self.sets, warnings=told)
        write_text(out, text)
        return out

    def to_json(self) -> dict[str, Any]:
        """As printed by `--json`: the figures of the page's tables."""
        return {
            "runs": [{"name": run.name, "folder": at} for run, at in zip(self.sets[0].runs, self.folders, strict=True)],
            "sets": [
                {"conditions": each.title, "metric": each.metric, "higher_is_better": each.is_higher_better}
                | {"cases": list(each.shared), "runs": [run.to_json(each.structures) for run in each.runs]}
                for each in self.sets
            ],
            "warnings": self.warnings,
        }


def save_comparison(paths: Sequence[Path], out: Path) -> Path:
    """Writes a page that compares runs, see `compare_runs`; returns its path."""
    return compare_runs(paths).save(out)


def compare_runs(paths: Sequence[Path]) -> Comparison:
    """Compares runs.

    Args:
        paths: of two runs or more, see `find_run`; the first one is the reference.

    Raises:
        DataError: a run cannot be read, or they have no case, structure or score in common.
    """
    runs = [read_run(find_run(path)) for path in paths]
    groups = [_groups(run) for run in runs]
    sets = [_compare_set(runs, each, number) for number, each in enumerate(_alike(groups))]
    return Comparison([run.folder for run in runs], sets, _warnings(runs, groups, sets))


def _groups(run: Run) -> list[CaseGroup]:
    groups = group_cases(run.scores)
    if not groups:
        raise DataError(f"{run.folder}: no scores of cases to compare. Name a validation that has scored cases.")
    return groups


def _alike(groups: Sequence[list[CaseGroup]]) -> list[list[CaseGroup]]:
    """The runs' groups that are compared with each other: the first ones, and further ones of equal conditions."""
    sets = [[own[0] for own in groups]]
    for group in groups[0][1:]:
        found = [next((each for each in own[1:] if each.conditions == group.conditions), None) for own in groups]
        alike = [each for each in found if each is not None]
        if len(alike) == len(groups) and _shared_structures(alike) and _shared_cases(alike):
            sets.append(alike)
    return sets


def _shared_structures(groups: Sequence[CaseGroup]) -> list[str]:
    return [name for name in groups[0].structures if all(name in group.structures for group in groups)]


def _shared_cases(groups: Sequence[CaseGroup]) -> list[str]:
    return sorted(set.intersection(*({row.case for row in group.rows} for group in groups)), key=natural_key)


def _compare_set(runs: Sequence[Run], groups: Sequence[CaseGroup], number: int) -> ComparedSet:
    structures, shared = _shared_structures(groups), _shared_cases(groups)
    _require_alike(runs, groups, structures)
    if not shared:
        counts = _counts(runs, groups)
        raise DataError(f"no case is in all runs ({counts}). Compare validations of the same cases.")
    anchors = {case: f"case-{number}-{n}" for n, case in enumerate(shared)}
    by_case = [{row.case: row for row in group.rows} for group in groups]
    rows = [{case: own[case] for case in shared} for own in by_case]
    compared = [
        _compare(name, run, group, own, None if own is rows[0] else rows[0], structures, anchors)
        for name, run, group, own in zip(_distinct_names(runs), runs, groups, rows, strict=True)
    ]
    titles = dict.fromkeys(group.title for group in groups)  # the first sets of runs may differ, as in their weights
    return ComparedSet(" and ".join(filter(None, titles)), structures, anchors, compared)


def _counts(runs: Sequence[Run], groups: Sequence[CaseGroup]) -> str:
    return "; ".join(f"{run.name}: {len(group.rows)} cases" for run, group in zip(runs, groups, strict=True))


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
    name: str, run: Run, group: CaseGroup, rows: dict[str, CaseRow], first: dict[str, CaseRow] | None,
    structures: Sequence[str], anchors: dict[str, str],
) -> Compared:  # fmt: skip
    columns = {structure: _values(rows, structure, structures) for structure in (*structures, MEAN)}
    means = [group.factor * _mean(values) for values in columns.values()]
    title = f"{run.record.title} ({run.name})"
    if first is None:
        return Compared(name, title, group, rows, means, [], None)
    sign = 1 if _is_higher_better(group) else -1
    patients = [row.patient for row in rows.values()]
    differences, points = [], []
    for structure, values in columns.items():
        change = group.factor * (values - _values(first, structure, structures))
        differences.append(_difference(structure, change, patients, sign))
        points.append((structure, [(case, anchors[case], value) for case, value in zip(rows, change, strict=True)]))
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


def _warnings(runs: Sequence[Run], groups: Sequence[list[CaseGroup]], sets: Sequence[ComparedSet]) -> list[str]:
    told = []
    for each in sets:
        compared = [run.group for run in each.runs]
        if any(len(group.rows) != len(each.shared) for group in compared):
            start = f"{each.title}: compared" if each.title and len(sets) > 1 else "Compared"
            told.append(f"{start} on the {len(each.shared)} cases that all runs share ({_counts(runs, compared)}).")
    for number, (run, own) in enumerate(zip(runs, groups, strict=True)):
        compared = [each.runs[number].group for each in sets]
        left = [group.title for group in own if not any(group is one for one in compared)]
        if left:
            reason = "as not all runs have such scores of the same cases"
            told.append(f"{run.name}: not compared, {reason}: {'; '.join(left)}.")
    failed = {run.name: len(run.record.failed) for run in runs if run.record.failed}
    told += [f"{name}: {number} cases could not be scored." for name, number in failed.items()]
    return told + [f"{run.name}: {each}" for run in runs for each in run.warnings]


def default_place(paths: Sequence[Path]) -> Path:
    """`comparison.html` in the folder that all runs share."""
    return Path(os.path.commonpath([find_run(path).resolve().parent for path in paths])) / FILE_NAME
