"""The table of a user's own files (CSV, one line per case) that a description names by `files`."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataloaders.description import DatasetSpec
from dataloaders.samples import ORIGIN
from util.csv_files import read_table as read_csv_table
from util.errors import DataError
from util.ids import comparable_id, invalid_id_reason, natural_key

COLUMNS = ("id", "image", "label", *ORIGIN, "split", "fold", "note")
MASK, ANNOTATOR = "mask:", "@"  # columns mask:<class>, and label@<annotator> or mask:<class>@<annotator>
PATH_PREFIXES = (f"label{ANNOTATOR}", MASK)
LISTED = 10  # problems that a message lists


@dataclass(frozen=True)
class TableRow:
    """One case, as its line has it.

    Attributes:
        line: number of the line in the file, from 1.
        cells: column -> text without white space at its ends; empty cells are left out.
        folder: to which paths are relative.
    """

    line: int
    cells: dict[str, str]
    folder: Path

    @property
    def id(self) -> str:
        """The case's name."""
        return self.cells["id"]

    @property
    def image(self) -> Path:
        """The file or folder of the image."""
        return self.paths["image"]

    @property
    def paths(self) -> dict[str, Path]:
        """Column -> file or folder, of the cells that name one."""
        columns = [name for name in self.cells if name in ("image", "label") or name.startswith(PATH_PREFIXES)]
        return {name: self.folder / Path(self.cells[name]).expanduser() for name in columns}


def read_table(path: Path, spec: DatasetSpec) -> list[TableRow]:
    """Reads the table, in natural order of the ids.

    Columns may be separated by commas, semicolons or tabs, as spreadsheets write them. Empty lines are skipped.

    Args:
        path: of the table.
        spec: the data set, for the names of its classes.

    Raises:
        DataError: the table is absent, unreadable or empty; a column is unknown, missing or given twice; an id is
            missing, given twice or unfit as a file name; or a file does not exist. All bad lines are listed.
    """
    remedy = f"Correct `files` in the description, or the table of the files of {spec.name} (CSV in UTF-8)."
    table = read_csv_table(path, remedy)
    header = table.columns
    _check_header(path, header, spec)
    rows, problems = [], []
    for line in table.lines:
        cells = {name: value.strip() for name, value in zip(header, line.cells, strict=False) if value.strip()}
        if any(cell.strip() for cell in line.cells[len(header) :]):
            problems.append(f"line {line.number}: more cells than columns; put text with separators in quotes")
        if cells:
            rows.append(TableRow(line.number, cells, path.parent))
    problems += [*_id_problems(rows), *_path_problems(rows)]
    if problems:
        raise _error(path, problems)
    if not rows:
        raise DataError(f"{path}: no case; expected one line per case below the header.")
    return sorted(rows, key=lambda row: natural_key(row.id))


def _check_header(path: Path, header: Sequence[str], spec: DatasetSpec) -> None:
    masks = [f"{MASK}{name}" for name in spec.class_names[1:]]
    known = [*COLUMNS, *masks]
    for name in header:
        base = name.partition(ANNOTATOR)[0] if name.startswith(("label", MASK)) else name
        if base not in known:
            close = difflib.get_close_matches(base, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"expected some of {', '.join(known)}."
            raise DataError(f"{path}: column {name!r} is unknown; {hint} Put remarks into the column note.")
    for name in ("id", "image"):
        if name not in header:
            raise DataError(f"{path}: no column {name!r}; expected id and image, and for labelled cases label.")
    if any(name.startswith("label") for name in header) and any(name.startswith(MASK) for name in header):
        raise DataError(f"{path}: columns label and {MASK}<class>; expected either of them. Remove one kind.")


def _id_problems(rows: Sequence[TableRow]) -> list[str]:
    problems: list[str] = []
    first_with: dict[str, TableRow] = {}
    for row in rows:
        if "id" not in row.cells or "image" not in row.cells:
            missing = "id" if "id" not in row.cells else "image"
            problems.append(f"line {row.line}, column {missing}: empty; expected one in every line")
            continue
        reason = invalid_id_reason(row.id)
        first = first_with.setdefault(comparable_id(row.id), row)
        if reason:
            problems.append(f"line {row.line}, column id: {row.id!r} {reason}")
        elif first is not row:
            same = "again" if first.id == row.id else f"differs from {first.id!r} in upper and lower case only"
            problems.append(f"line {row.line}, column id: {row.id!r} {same} (line {first.line}); expected another id")
    return problems


def _path_problems(rows: Sequence[TableRow]) -> list[str]:
    return [
        f"line {row.line}, column {column}: {row.cells[column]}: no such file or folder ({path})"
        for row in rows
        for column, path in row.paths.items()
        if not path.exists()
    ]


def _error(path: Path, problems: Sequence[str]) -> DataError:
    shown = "\n  ".join(problems[:LISTED])
    more = f"\n  and {len(problems) - LISTED} more" if len(problems) > LISTED else ""
    return DataError(f"{path}: {len(problems)} problem(s):\n  {shown}{more}\nCorrect the table and run again.")


def table_error(path: Path, row: TableRow, column: str, text: str) -> DataError:
    """The error of one cell."""
    return _error(path, [f"line {row.line}, column {column}: {text}"])
