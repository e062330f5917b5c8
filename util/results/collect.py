"""Gathers the scores of all finished validations below a folder and makes their tables."""

from collections.abc import Hashable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from util.errors import DataError
from util.files import write_text
from util.results.layout import GENERIC, Layout
from util.results.scores import FAMILY, FILE_NAME, read_scores
from util.results.tables import make_tables

SOURCE = "source"  # column with the file that a score was read from


def write_tables(root: Path, layouts: Mapping[str, Layout]) -> str:
    """Writes the tables of all validations below a folder into it.

    table.md has all of them. table_<family>_<metric>.csv has the unrounded figures, those that end in _by_domain or
    _by_phase broken down; runs.csv a line per run with the mean of every metric over cases.

    Args:
        root: folder of experiments.
        layouts: family -> layout; the tables come in this order.

    Returns:
        The text of table.md.

    Raises:
        DataError: see `collect`.
    """
    gathered = collect([root], layouts)
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
    text = "\n".join(table.to_markdown() for table in tables)
    write_text(root / "table.md", text)
    return text


def collect(paths: Iterable[Path], layouts: Mapping[str, Layout]) -> dict[str, pd.DataFrame]:
    """Reads the `scores.csv` files at and below the given paths.

    Validations next to each other in a folder `validation` belong to one experiment: of scores that several of them
    have, the newest counts.

    Args:
        paths: files, and folders to search.
        layouts: family -> layout, which says what identifies a score and what may be averaged.

    Returns:
        Family -> its scores, with their file in the column `SOURCE`; "" for all families without a layout.

    Raises:
        DataError: nothing found, a damaged file, the same score from two experiments, or runs in one line of a table
            that differ in more than the layout averages over; the message names both files.
    """
    paths = list(paths)
    files = {file.resolve() for path in paths for file in (path.rglob(FILE_NAME) if path.is_dir() else [path])}
    if not files:
        raise DataError(f"{', '.join(map(str, paths))}: no {FILE_NAME} found there or below. Run the validation first.")
    read = [read_scores(file).assign(**{SOURCE: str(file)}) for file in sorted(files, key=_age)]
    scores = pd.concat([pd.DataFrame(columns=[FAMILY]), *read], ignore_index=True)
    scores = scores.fillna(dict.fromkeys(scores.columns.drop("value"), ""))
    family = scores[FAMILY].where(scores[FAMILY].isin(list(layouts)), "")
    gathered = {}
    for name, part in scores.groupby(family, sort=False):
        layout = layouts.get(str(name), GENERIC)
        kept = _keep_newest(layout.complete(part), layout)
        _refuse_different_runs(kept, layout)
        gathered[str(name)] = kept.sort_values(SOURCE, kind="stable", ignore_index=True)
    return gathered


def _age(file: Path) -> tuple[int, str]:
    return (file.stat().st_mtime_ns if file.exists() else 0), str(file)


def _experiment(source: str) -> str:
    """The folder that all validations of an experiment share; else the file itself."""
    runs = Path(source).parents[1]
    return str(runs) if runs.name == "validation" else source


def _keep_newest(scores: pd.DataFrame, layout: Layout) -> pd.DataFrame:
    """Of each score the last, if both are of one experiment and from different files."""
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
    within_file = repeated[repeated.duplicated([*identity, SOURCE])]
    if len(within_file):
        score = within_file.iloc[0]
        raise DataError(
            f"{score[SOURCE]}: several rows for {_describe(identity, score[identity])}; expected one. Run the "
            "validation again."
        )
    return scores.drop_duplicates(identity, keep="last")


def _refuse_different_runs(scores: pd.DataFrame, layout: Layout) -> None:
    for key, part in scores.groupby(list(layout.pooled), sort=False):
        for name in layout.constant:
            known = part[part[name] != ""].drop_duplicates(name)
            if len(known) > 1:
                first, second = known[SOURCE].iloc[:2]
                raise DataError(
                    f"{first} and {second}: both are {_describe(layout.pooled, key)}, but with {name} "
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
