"""Scores on disk: one long table for every family of methods, `scores.csv`, with one value per line.

The first nine columns are the same everywhere (`COLUMNS`). Every further column is a condition under which the value
was measured, such as seed, protocol, weights or noise; each family writes the conditions it needs. Conditions are flat
columns and not `key=value` pairs in a single cell: a spreadsheet filters and pivots columns only, and
`pandas.read_csv("scores.csv").groupby(["method", "noise"])` works without any parsing. Files with different conditions
can still be concatenated; a condition that a file does not have is empty.

The last column of the file, `n_scores`, is the number of scores that the validation wrote, so that a file that was cut
short is recognised; several files in one are fine.

All columns but `value` are text, so that "007" stays a case id. Undefined values (NaN) are empty cells; every other
value keeps all its digits.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from util.csv_files import read_table
from util.errors import DataError
from util.files import write_text
from util.results.metrics import METRICS
from util.results.wide_scores import is_wide, to_long

FILE_NAME = "scores.csv"

# method      name in tables, such as "SSL-ALPNet"
# dataset     name in the catalogue
# split       part of the data set that the case belongs to, such as "test"
# fold        cross-validation fold, a whole number; empty without cross-validation
# case        id of the scan or image; empty: the value is for all cases together
# patient     whose case it is; empty: unknown, every case counts as a patient
# structure   what was segmented; several together are joined by "+"
# metric      see util.results.metrics.METRICS
# value       a number; empty: undefined
COLUMNS = ("method", "dataset", "split", "fold", "case", "patient", "structure", "metric", "value")

# Conditions with a meaning for tables of every family: which layout to use, the folds of a whole cross-validation, and
# what cases may differ in, by which tables are broken down.
FAMILY, N_FOLDS = "family", "n_folds"
BREAKDOWNS = ("phase", "domain")

# Number of cases that could not be scored, of a run with such cases: its means are not comparable with those of others.
N_FAILED = "n_failed"

N_SCORES = "n_scores"  # in the file only


def make_scores(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Makes the long table of records.

    Args:
        records: mappings with "value" and any other columns; what a record lacks is empty.

    Returns:
        `COLUMNS`, then the conditions in the order of their first appearance; text, and float64 for "value".
    """
    given = list(records)
    names = dict.fromkeys(COLUMNS) | dict.fromkeys(name for record in given for name in record)
    text = {name: [str(record.get(name, "")) for record in given] for name in names if name != "value"}
    values = [float(record["value"]) for record in given]
    return pd.DataFrame({name: values if name == "value" else text[name] for name in names}).astype({"value": float})


def csv_text(columns: Sequence[str], records: Iterable[Mapping[str, Any]]) -> str:
    """Formats the records' `columns` as CSV; undefined numbers (NaN) are empty cells, others keep every digit."""
    return pd.DataFrame(list(records), columns=list(columns), dtype=object).to_csv(index=False, lineterminator="\n")


def write_scores(path: Path, scores: pd.DataFrame) -> None:
    """Writes the long table and its length atomically; `read_scores` returns exactly the same numbers."""
    write_text(path, scores.assign(**{N_SCORES: len(scores)}).to_csv(index=False, lineterminator="\n"))


def read_scores(path: Path) -> pd.DataFrame:
    """Reads a `scores.csv`, also one of scans that an earlier version wrote.

    Returns:
        As `make_scores` does; the columns are in the order of the file.

    Raises:
        DataError: the file is missing or is not text, lacks a column, has no rows or other than the number written, or
            a row is damaged; the message names the line.
    """
    table = read_table(path, "Run the validation again.")
    header, lines = list(table.columns), ((line.number, list(line.cells)) for line in table.lines)
    if is_wide(header):
        header, lines = to_long(header, lines)
    _check_header(header, path)
    rows = [_parse_row(header, cells, path, line) for line, cells in lines]
    if not rows:
        raise DataError(f"{path}: a header but no scores. The validation was interrupted; run it again.")
    scores = pd.DataFrame(rows, columns=header).astype({"value": float})
    _check_number(scores, path)
    return scores.drop(columns=N_SCORES, errors="ignore")


def read_run_scores(folder: Path) -> pd.DataFrame:
    """The scores of a validation: of its folder, and of the folders in it that hold those of one data set each.

    Returns:
        Empty where the folder has no scores.

    Raises:
        DataError: a file is damaged.
    """
    own = folder / FILE_NAME
    parts = [read_scores(file) for file in ([own, *sorted(folder.glob(f"*/{FILE_NAME}"))] if own.is_file() else [])]
    scores = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=list(COLUMNS))
    return scores.fillna(dict.fromkeys(scores.columns.drop("value"), ""))


def _check_number(scores: pd.DataFrame, path: Path) -> None:
    """Refuses a table with other than the written number of scores; older files do not have the number."""
    written = scores[N_SCORES].value_counts() if N_SCORES in scores else pd.Series(dtype=int)
    for expected, found in written.items():
        is_number = str(expected).isdecimal() and int(str(expected)) > 0
        if not is_number or found % int(str(expected)):
            raise DataError(
                f"{path}: found {found} scores, but the validation wrote {expected}; the file was cut short or edited. "
                f"Run the validation again; if scores were left out on purpose, delete the column {N_SCORES}."
            )


def _check_header(header: Sequence[str], path: Path) -> None:
    missing = [name for name in COLUMNS if name not in header]
    if missing:
        raise DataError(
            f"{path}, line 1: no column {', '.join(missing)}; expected {', '.join(COLUMNS)} and any further "
            "conditions. Run the validation again."
        )
    if "" in header:
        raise DataError(f"{path}, line 1: a column without a name. Run the validation again.")


def _parse_row(header: Sequence[str], cells: list[str], path: Path, line: int) -> list[Any]:
    try:
        if len(cells) != len(header):
            raise ValueError(f"found {len(cells)} cells, expected {len(header)}")
        row: dict[str, Any] = dict(zip(header, cells, strict=True))
        if not re.fullmatch(r"\d*", row["fold"]):
            raise ValueError(f"found the fold {row['fold']!r}, expected a whole number or an empty cell")
        row["value"] = _parse_value(row["value"], row["metric"])
    except ValueError as error:
        raise DataError(f"{path}, line {line}: damaged row ({error}). Run the validation again.") from error
    return list(row.values())


def _parse_value(text: str, name: str) -> float:
    """Reads a score; raises ValueError where a metric cannot have such a value."""
    metric = METRICS.get(name)
    highest = math.inf if metric is None or metric.highest is None else metric.highest
    try:
        value = float(text or "nan")
    except ValueError:
        value = math.inf
    if math.isinf(value) or (metric is not None and not math.isnan(value) and not 0 <= value <= highest):
        limits = "" if metric is None else (" from 0" + (f" to {highest:g}" if highest < math.inf else ""))
        raise ValueError(f"found {name} {text!r}, expected a number{limits} or an empty cell")
    return value
