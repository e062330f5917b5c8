"""Scores on disk: the `scores.csv` that every validation writes, and all of them gathered over runs."""

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from util.errors import DataError
from util.files import write_text
from util.results.metrics import Scores

FILE_NAME = "scores.csv"
CONTEXT = ("method", "dataset", "setting")  # leading columns that a file may lack; so may it seed and recipe
_SCORES = tuple(field.name for field in fields(Scores))
_REQUIRED = ("protocol", "fold", "scan", "label", "organ", *_SCORES)


class Key(NamedTuple):
    """What makes a row of `scores.csv` unique."""

    method: str
    dataset: str
    setting: str
    seed: str
    protocol: str
    fold: int
    scan: int | str
    label: int


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One organ of one scan, scored once: a row of `scores.csv`.

    Attributes:
        method: what was run; empty where the file does not say, so are the next four.
        dataset: name in the catalogue.
        setting: the paper's experimental setting, "1" or "2".
        seed: of the training; runs that differ in nothing else are averaged.
        recipe: what such runs share; empty where unknown.
        protocol: which slices were scored and how the support was chosen.
        fold: cross-validation fold.
        scan: id of the query scan, which is the patient.
        label: value of the organ in the ground truth.
        organ: its name.
        scores: see `util.results.metrics.Scores`; an undefined score (NaN) is an empty cell in the file.
    """

    method: str = ""
    dataset: str = ""
    setting: str = ""
    seed: str = ""
    recipe: str = ""
    protocol: str
    fold: int
    scan: int | str
    label: int
    organ: str
    scores: Scores

    @property
    def key(self) -> Key:
        """What must not be scored twice."""
        return Key(**{name: getattr(self, name) for name in Key._fields})


def write_scores(path: Path, rows: Iterable[ScoreRow]) -> None:
    """Writes `scores.csv`, whole or not at all; reading gives back the very same numbers."""
    records = (vars(row) | vars(row.scores) for row in rows)
    write_text(path, csv_text((*CONTEXT, "seed", "recipe", *_REQUIRED), records))


def csv_text(columns: Sequence[str], records: Iterable[Mapping[str, Any]]) -> str:
    """The records' `columns` as CSV; undefined numbers (NaN) become empty cells, all others keep every digit."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_cell(record[name]) for name in columns] for record in records)
    return stream.getvalue()


def _cell(value: Any) -> str:
    return "" if isinstance(value, float) and math.isnan(value) else str(value)


def read_scores(path: Path) -> list[ScoreRow]:
    """Reads a `scores.csv`; columns up to the recipe may be absent, further ones are passed over.

    Raises:
        DataError: the file is absent or no text, lacks a column, has no row, or a row is damaged (its line is named).
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # spreadsheets put a mark in front
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Run the validation again.") from error
    reader = csv.DictReader(lines)
    missing = [name for name in _REQUIRED if name not in (reader.fieldnames or ())]
    if missing:
        raise DataError(
            f"{path}: no column {', '.join(missing)}; expected {', '.join(_REQUIRED)}. Run the validation again."
        )
    rows = [_parse(record, path, reader.line_num) for record in reader]
    if not rows:
        raise DataError(f"{path}: a header but no scores. The validation was cut short; run it again.")
    return rows


def _parse(record: dict[Any, Any], path: Path, line: int) -> ScoreRow:
    try:
        if None in record or None in record.values():  # so does the csv module mark long and short rows
            raise ValueError("not as many cells as the header")
        return ScoreRow(
            **{name: record.get(name) or "" for name in (*CONTEXT, "seed", "recipe", "protocol", "organ")},
            fold=int(record["fold"]),
            scan=int(record["scan"]) if record["scan"].isdecimal() else record["scan"],
            label=int(record["label"]),
            scores=Scores(**{name: _score(record[name], name) for name in _SCORES}),
        )
    except ValueError as error:
        raise DataError(
            f"{path}, line {line}: damaged row ({error}). Expected whole numbers for fold, scan and label, and scores "
            "that are numbers or empty. Run the validation again."
        ) from error


def _score(text: str, name: str) -> float:
    value = float(text.strip() or "nan")
    limit = math.inf if name == "hd95_mm" else 1.0
    if math.isinf(value) or value < 0 or value > limit:
        raise ValueError(f"{name} is {text}")
    return value


def collect(paths: Iterable[Path]) -> list[ScoreRow]:
    """Reads the `scores.csv` files named, and all those below the folders named.

    Runs side by side in a folder `validation` belong to one experiment: what is scored twice there counts as scored
    last.

    Raises:
        DataError: nothing found, a damaged file, or the same scan and organ scored by two experiments under the same
            method, data set, setting, seed, protocol and fold, or such as differ in more than seed and fold under
            the same method, data set and setting; the message names both files.
    """
    paths = list(paths)
    files = [file for path in paths for file in (path.rglob(FILE_NAME) if path.is_dir() else [path])]
    if not files:
        raise DataError(f"{', '.join(map(str, paths))}: no {FILE_NAME} there or below. Run the validation first.")
    seen: dict[Key, tuple[Path, ScoreRow]] = {}
    recipes = Recipes()
    for file in sorted({file.resolve() for file in files}, key=_age):
        for row in read_scores(file):
            if row.key in seen and not _is_repetition(seen[row.key][0], file):
                raise DataError(
                    f"{seen[row.key][0]} and {file}: both score {_named(row)}. Leave one of the two out, or tell the "
                    "runs apart by the columns method and setting (exp_prefix=NAME goes into the method)."
                )
            recipes.note((row.method, row.dataset, row.setting), row.recipe, file)
            seen[row.key] = file, row
    return [row for _, row in sorted(seen.values(), key=lambda entry: str(entry[0]))]


class Recipes:
    """Sees to it that a line of a table averages only trainings that differ in nothing but seed and fold."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, ...], tuple[str, Path]] = {}

    def note(self, line: tuple[str, ...], recipe: str, source: Path) -> None:
        """Remembers a training's recipe; empty: unknown.

        Raises:
            DataError: the line has another already.
        """
        known, first = self.known.setdefault(line, (recipe, source))
        if recipe and known and recipe != known:
            raise DataError(
                f"{first} and {source}: both call themselves {', '.join(filter(None, line))}, but differ in more than "
                "seed and fold. Leave one of the two out, or tell the trainings apart with exp_prefix=NAME."
            )


def _age(file: Path) -> tuple[int, str]:
    return (file.stat().st_mtime_ns if file.exists() else 0), str(file)


def _is_repetition(one: Path, other: Path) -> bool:
    return one == other or (one.parent.parent == other.parent.parent and one.parent.parent.name == "validation")


def _named(row: ScoreRow) -> str:
    named = {name: value for name, value in row.key._asdict().items() if value != ""}
    return ", ".join(f"{name} {value}" for name, value in named.items())
