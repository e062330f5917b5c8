"""Gathers the scores of all finished validations below a folder and makes their tables."""

import os
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from util.errors import DataError
from util.files import write_text
from util.ids import natural_key
from util.results.layout import GENERIC, Layout
from util.results.scores import FAMILY, FILE_NAME, N_FAILED, read_scores
from util.results.tables import Table, make_tables

SOURCE = "source"  # column with the file that a score was read from


@dataclass(frozen=True)
class Collected:
    """The tables of all validations.

    Attributes:
        folder: in which they are.
        tables: of all families.
        left_out: a message for each file that was left out, as `collect` gives them.
    """

    folder: Path
    tables: list[Table]
    left_out: list[str]

    def to_markdown(self) -> str:
        """The text of table.md."""
        left_out = "".join(f"- Left out: {each}\n" for each in self.left_out)
        return "\n".join([*(table.to_markdown() for table in self.tables), *filter(None, [left_out])])

    def to_json(self) -> dict[str, Any]:
        """As printed by `--json`."""
        tables = [table.to_json() for table in self.tables]
        return {"folder": self.folder, "tables": tables, "left_out": self.left_out}

    def require_all(self) -> None:
        """Raises a `DataError` where files were left out."""
        if self.left_out:
            raise DataError("\n".join(["left out of the tables:", *self.left_out]))


def write_tables(root: Path, layouts: Mapping[str, Layout]) -> Collected:
    """Writes the tables of all validations below a folder into it.

    table.md has all of them. table_<family>_<metric>.csv has the unrounded figures, those that end in _by_domain or
    _by_phase broken down; runs.csv a line per run with the mean of every metric over cases.

    Args:
        root: folder of experiments.
        layouts: family -> layout; the tables come in this order.

    Raises:
        DataError: see `collect`.
    """
    gathered, failures = collect([root], layouts)
    tables, runs = [], []
    for family, layout in (*layouts.items(), ("", GENERIC)):
        scores = gathered.get(family)
        if scores is None:
            continue
        made = make_tables(scores, layout, is_complete=True)
        for metric, by in dict.fromkeys((table.metric, table.breakdown) for table in made):
            figures = pd.concat([table.figures for table in made if (table.metric, table.breakdown) == (metric, by)])
            name = "_".join(filter(None, ("table", family, metric, by and f"by_{by}")))
            write_text(root / f"{name}.csv", figures.to_csv(index=False, lineterminator="\n"))
        tables += made
        runs.append(_average_runs(scores, layout).assign(**{FAMILY: family}))
    write_text(root / "runs.csv", pd.concat(runs).to_csv(index=False, lineterminator="\n"))
    collected = Collected(root, tables, failures)
    write_text(root / "table.md", collected.to_markdown())
    return collected


def collect(paths: Iterable[Path], layouts: Mapping[str, Layout]) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Reads the `scores.csv` files at and below the given paths.

    Validations next to each other in a folder `validation`, each in a folder with the number of its run, belong to one
    experiment: of scores that several of them have, those of the highest number count.

    Args:
        paths: files, and folders to search.
        layouts: family -> layout, which says what identifies a score and what may be averaged.

    Returns:
        Family -> its scores, with their file in the column `SOURCE`; "" for all families without a layout. And a
        message for each file that cannot be used, as it is damaged or incomplete.

    Raises:
        DataError: nothing found or nothing readable, the same score from two experiments, or runs in one line of a
            table that differ in more than the layout averages over; the message names both files.
    """
    paths = list(paths)
    files = {file.resolve() if file.exists() else file.absolute() for path in paths for file in _find(path)}
    if not files:
        raise DataError(f"{', '.join(map(str, paths))}: no {FILE_NAME} found there or below. Run the validation first.")
    read, failures = [], []
    for file in sorted(files, key=lambda file: natural_key(str(file))):
        try:
            read.append(_read_file(file, layouts))
        except DataError as error:
            failures.append(str(error))
    if not read:
        raise DataError("\n".join(failures))
    gathered = {}
    for name, part in _by_family(pd.concat(read, ignore_index=True), layouts):
        layout = layouts.get(name, GENERIC)
        kept = _keep_newest(part, layout)
        _refuse_different_runs(kept, layout)
        gathered[name] = kept.sort_values(SOURCE, kind="stable", ignore_index=True)
    return gathered, failures


def _find(path: Path) -> Iterator[Path]:
    """The scores at and below a path, dangling links included."""
    if not path.is_dir():
        yield path
    for folder, _, names in os.walk(path):
        if FILE_NAME in names:
            yield Path(folder, FILE_NAME)


def _by_family(scores: pd.DataFrame, layouts: Mapping[str, Layout]) -> Iterator[tuple[str, pd.DataFrame]]:
    """Family -> its scores, completed for its layout; "" for all families without a layout."""
    scores = scores if FAMILY in scores else scores.assign(**{FAMILY: ""})
    scores = scores.fillna(dict.fromkeys(scores.columns.drop("value"), ""))
    family = scores[FAMILY].where(scores[FAMILY].isin(list(layouts)), "")
    for name, part in scores.groupby(family, sort=False):
        yield str(name), layouts.get(str(name), GENERIC).complete(part)


def _read_file(file: Path, layouts: Mapping[str, Layout]) -> pd.DataFrame:
    """The scores of a file, with its path in the column `SOURCE`.

    Raises:
        DataError: see `read_scores`; or a score is there twice, or cases could not be scored.
    """
    scores = read_scores(file)
    failed = next((text for text in scores.get(N_FAILED, ()) if text not in ("", "0")), None)
    if failed:
        raise DataError(
            f"{file}: {failed} case(s) could not be scored, so its means are over fewer cases than they should be. "
            f"Correct these cases and run the validation again; to average what there is, delete the column {N_FAILED}."
        )
    for name, part in _by_family(scores, layouts):
        identity = list(layouts.get(name, GENERIC).identity)
        repeated = part[part.duplicated(identity)]
        if len(repeated):
            raise DataError(
                f"{file}: several rows for {_describe(identity, repeated.iloc[0][identity])}; expected one. Run the "
                "validation again."
            )
    return scores.assign(**{SOURCE: str(file)})


def _experiment(source: str) -> str:
    """The folder that all validations of an experiment share; else the file itself."""
    for run in list(Path(source).parents)[:2]:  # the run's own folder, or that of a further test set in it
        if run.parent.name == "validation" and run.name.isdecimal():
            return str(run.parent)
    return source


def _keep_newest(scores: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Of each score the last, if all are of one experiment."""
    identity = list(layout.identity)
    repeated = scores[scores.duplicated(identity, keep=False)]
    experiments = {source: _experiment(source) for source in repeated[SOURCE].unique()}
    groups = repeated.assign(experiment=repeated[SOURCE].map(experiments)).groupby(identity, sort=False)
    is_twice = groups["experiment"].transform("nunique") > 1
    if is_twice.any():
        score = repeated[is_twice].iloc[0]
        first, second, *_ = groups.get_group(tuple(score[identity])).drop_duplicates("experiment")[SOURCE]
        raise DataError(
            f"{first} and {second}: both have scores of {_describe(identity, score[identity])}. Leave one of the two "
            "out, or distinguish the runs with exp_prefix=NAME, which becomes part of the method's name."
        )
    return scores.drop_duplicates(identity, keep="last")


def _refuse_different_runs(scores: pd.DataFrame, layout: Layout) -> None:
    for name in layout.constant:
        pooled = layout.pooled(name)
        for key, part in scores.groupby(list(pooled), sort=False):
            known = part[part[name] != ""].drop_duplicates(name)
            if len(known) > 1:
                first, second = known[SOURCE].iloc[:2]
                raise DataError(
                    f"{first} and {second}: both are {_describe(pooled, key)}, but with {name} "
                    f"{known[name].iloc[0]} and {known[name].iloc[1]}; only runs that differ in nothing but "
                    f"{' and '.join(layout.averaged)} are averaged. Leave one of the two out, or distinguish the runs "
                    "with exp_prefix=NAME."
                )


def _describe(names: Iterable[str], values: Iterable[Hashable]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(names, values, strict=True) if value != "")


def _average_runs(scores: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """A row per run and a column per metric: the mean over cases and structures; and how many values are undefined."""
    names = list(dict.fromkeys((*layout.run, *layout.constant)))
    runs = scores.groupby([*names, "metric"], sort=False)["value"].mean().unstack("metric")
    undefined = scores["value"].isna().groupby([scores[name] for name in names], sort=False).sum()
    return runs.assign(n_undefined=undefined).reset_index().rename_axis(columns=None)
