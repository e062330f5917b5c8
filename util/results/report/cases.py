"""The cases of a run: their scores by structure, the worst, the median and the best one, and far-off pieces."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np
import pandas as pd

from util.ids import natural_key
from util.results.report.record import metric
from util.results.scores import N_FAILED

PLACES = {"worst": 0.0, "best": 1.0, "median": 0.5}  # place in the order of the mean score; the first one counts

# A structure has a far-off piece if it was found on the whole (FAIR_DICE or more), and yet a twentieth of its surface
# or of the truth's is FAR_MM or more away from the other: further than neighbouring abdominal organs reach into each
# other, so a piece in another part of the body.
FAIR_DICE, FAR_MM = 0.5, 50.0
FAR_RULE = f"Dice of {100 * FAIR_DICE:g} or more although HD95 is {FAR_MM:g} mm or more"

# Columns that a case, a structure or a score has of its own; all others are conditions of a group of scores.
_OWN = {"case", "patient", "structure", "metric", "value", "label", "task", "phase", "domain", "centre", "source"}
_TOLD = {N_FAILED, "n_folds", "n_cases", "config_hash", "steps", "learned", "family"}


@dataclass
class CaseRow:
    """A case.

    Attributes:
        case: id.
        anchor: id of the table's row in the page.
        values: structure -> score.
        distance: largest HD95 over the structures; NaN: unknown.
        far: structures with far-off pieces, in words.
        mark: worst, median or best; else empty.
    """

    case: str
    anchor: str
    patient: str
    values: dict[str, float]
    distance: float
    far: list[str]
    mark: str = ""

    @property
    def mean(self) -> float:
        """Mean over the structures whose score is defined."""
        defined = [value for value in self.values.values() if not math.isnan(value)]
        return float(np.mean(defined)) if defined else math.nan


@dataclass(frozen=True)
class CaseGroup:
    """Cases that were scored under the same conditions.

    Attributes:
        conditions: those in which the groups of a run differ.
        metric: name of the score.
        structures: in the order of the scores.
        rows: by id.
        distance: unit of HD95, "mm" or "px"; empty: not measured.
    """

    conditions: dict[str, str]
    metric: str
    structures: list[str]
    rows: list[CaseRow]
    distance: str = ""
    scores: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def title(self) -> str:
        """The conditions in words."""
        return ", ".join(value for value in self.conditions.values() if value)

    @property
    def marked(self) -> list[CaseRow]:
        """The worst, the median and the best case, in this order; fewer where these are one."""
        order = ["worst", "median", "best"]
        return sorted((row for row in self.rows if row.mark), key=lambda row: order.index(row.mark))

    @property
    def means(self) -> dict[str, float]:
        """Structure -> mean over the cases whose score is defined, in printed units; NaN where there is none."""
        values = {name: [row.values.get(name, math.nan) for row in self.rows] for name in self.structures}
        return {name: self.factor * float(pd.Series(each).mean()) for name, each in values.items()}

    @property
    def title_of_metric(self) -> str:
        """Name and unit of the score."""
        return metric(self.metric).title

    @property
    def factor(self) -> float:
        """Of printed scores."""
        return metric(self.metric).factor

    @property
    def highest(self) -> float | None:
        """Largest printed score, None: not known."""
        highest = metric(self.metric).highest
        return None if highest is None or math.isinf(highest) else highest * self.factor


def group_cases(scores: pd.DataFrame) -> list[CaseGroup]:
    """Makes a group of cases for each combination of conditions, such as protocol and weights.

    Args:
        scores: see `util.results.scores`; may be empty.
    """
    if scores.empty:
        return []
    cases = scores[scores["case"] != ""]
    if cases.empty:
        return []
    main = "dice" if (cases["metric"] == "dice").any() else str(cases["metric"].iloc[0])
    rows = cases[cases["metric"] == main]
    names = _varying(rows)
    numbers = count(1)
    return [_group(dict(zip(names, key, strict=True)), part, cases, main, numbers) for key, part in _parts(rows, names)]


def _varying(rows: pd.DataFrame) -> list[str]:
    """The conditions in which scores differ, without those that follow from others."""
    names: list[str] = []
    for name in ("dataset", "protocol", "weights", *rows.columns):
        if name in rows and name not in _OWN | _TOLD | set(names) and rows[name].nunique() > 1:
            n_before = rows.groupby(names).ngroups if names else 1
            if rows.groupby([*names, name]).ngroups > n_before:
                names.append(name)
    return names


def _parts(rows: pd.DataFrame, names: Sequence[str]) -> Iterator[tuple[tuple[str, ...], pd.DataFrame]]:
    return iter(rows.groupby(list(names), sort=False)) if names else iter([((), rows)])  # type: ignore[arg-type]


def _group(
    conditions: dict[str, str], rows: pd.DataFrame, cases: pd.DataFrame, main: str, numbers: Iterator[int]
) -> CaseGroup:
    alike = np.logical_and.reduce([cases[name] == value for name, value in conditions.items()] or [[True] * len(cases)])
    alike = cases[alike]
    measured = set(alike.loc[alike["value"].notna(), "metric"])
    unit = next((unit for unit in ("mm", "px") if f"hd95_{unit}" in measured), "")
    distances = alike[alike["metric"] == f"hd95_{unit}"].set_index(["case", "structure"])["value"].to_dict()
    structures = list(rows["structure"].unique())
    found = []
    for case, part in sorted(rows.groupby("case", sort=False), key=lambda pair: natural_key(str(pair[0]))):
        values = dict(zip(part["structure"], part["value"], strict=True))
        own = {name: distances.get((case, name), math.nan) for name in values}
        known = [distance for distance in own.values() if not math.isnan(distance)]
        far = _far_off(values, own) if unit == "mm" and main == "dice" else []
        patient = str(part["patient"].iloc[0]) or str(case)
        found.append(CaseRow(str(case), f"case-{next(numbers)}", patient, values, max(known, default=math.nan), far))
    _mark(found)
    return CaseGroup(conditions, main, structures, found, unit, alike)


def _far_off(dice: dict[str, float], distances: dict[str, float]) -> list[str]:
    return [
        f"{name}: HD95 {distances[name]:.0f} mm at Dice {100 * value:.1f}"
        for name, value in dice.items()
        if value >= FAIR_DICE and distances[name] >= FAR_MM
    ]


def _mark(rows: list[CaseRow]) -> None:
    order = sorted((row for row in rows if not math.isnan(row.mean)), key=lambda row: row.mean)
    for name, place in PLACES.items() if order else ():
        row = order[round(place * (len(order) - 1))]
        row.mark = row.mark or name
