"""What a family of methods declares about its tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd

from util.results.scores import BREAKDOWNS, N_FAILED, N_FOLDS


def join(values: Sequence[str]) -> str:
    """Joins the values that are not empty."""
    return ", ".join(filter(None, values))


@dataclass(frozen=True)
class Layout:
    """How the scores of a family become tables. All names are columns of `scores.csv`.

    Attributes:
        lines: columns whose values get a line each; a column that is empty throughout is not printed.
        columns: columns whose values get a column each.
        averaged: columns that a figure averages over, besides cases. A run is a combination of their values; all runs
            count alike.
        tables: columns whose values get a table each.
        constant: columns in which scores must agree to be averaged, where their values are known.
        by_column: those of `constant` in which only the scores of one column must agree, as where a line joins networks
            that segment a structure each.
        metrics: a table each; those after the first only where they were measured. Empty: all that are found.
        heading: values of `columns` -> heading; values with the same heading share a column.
        order: headings, and values of `tables`, that come first, in this order.
        has_mean: whether to add a column with the mean over the columns, which all count alike.
        spread: what follows the mean: "cases" or "runs", see the notes of the table.
        digits: decimals.
        title: values of `tables` -> first words of the notes.
        note: further explanation.
        published: scores of a line -> heading -> published figure; empty where they cannot be compared.
        published_note: what the published figures are.
        breakdowns: columns by whose values tables are broken down, where the cases of a figure differ in them.
        breakdown_metric: the metric of these tables; empty: the first one.
    """

    lines: tuple[str, ...]
    columns: tuple[str, ...]
    averaged: tuple[str, ...]
    tables: tuple[str, ...] = ()
    constant: tuple[str, ...] = ()
    by_column: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("dice",)
    heading: Callable[[Sequence[str]], str] = join
    order: tuple[str, ...] = ()
    has_mean: bool = False
    spread: Literal["cases", "runs"] = "cases"
    digits: int = 2
    title: Callable[[Sequence[str]], str] = join
    note: str = ""
    published: Callable[[pd.DataFrame], Mapping[str, str]] | None = None
    published_note: str = ""
    breakdowns: tuple[str, ...] = BREAKDOWNS
    breakdown_metric: str = ""

    @property
    def run(self) -> tuple[str, ...]:
        """The columns that identify a run of a method."""
        shared = ("method", "dataset", "split", "fold")
        others = (*self.tables, *self.lines, *self.columns, *self.averaged)
        return tuple(dict.fromkeys((*shared, *(name for name in others if name not in ("structure", "case")))))

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns in which no two scores may agree."""
        return (*self.run, "case", "structure", "metric")

    def pooled(self, constant: str) -> tuple[str, ...]:
        """The columns in which scores agree that may be averaged together only if one of `constant` is the same."""
        is_whole = self.has_mean and constant not in self.by_column
        return (*self.tables, *self.lines, *(() if is_whole else self.columns))

    def broken_down(self, by: str) -> "Layout":
        """The layout of one metric with a column for each value of `by`; what had columns gets lines."""
        return replace(
            self,
            lines=tuple(dict.fromkeys((*self.lines, *self.columns))),
            columns=(by,),
            metrics=(self.breakdown_metric,) if self.breakdown_metric else self.metrics[:1],
            heading=lambda values: values[0] or f"{by} unknown",
            order=self.order if self.tables else (),
            title=lambda values: join([self.title(values), f"by {by}"]),
            note="",
            published=None,
        )

    def with_hd95(self, convention: Literal["larger", "pooled"]) -> "Layout":
        """The layout with the tables of HD95 in this convention, see `util.results.metrics`."""
        if convention == "larger":
            return self
        return replace(self, metrics=tuple(name.replace("hd95_", "hd95_pooled_") for name in self.metrics))

    def complete(self, scores: pd.DataFrame) -> pd.DataFrame:
        """The scores with an empty column for every condition that they lack."""
        wanted = (*self.identity, *self.constant, N_FOLDS, N_FAILED, *BREAKDOWNS)
        missing = [name for name in wanted if name not in scores]
        return scores.assign(**dict.fromkeys(missing, ""))


# For scores of no known family.
GENERIC = Layout(
    lines=("method", "dataset", "split"),
    columns=("structure",),
    averaged=("fold", "seed"),
    constant=("config_hash",),
    metrics=(),
    has_mean=True,
)
