"""Reads CSV files, those of this program and those that people write with spreadsheets."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from util.errors import DataError
from util.files import read_text
from util.ids import invalid_id_reason

DELIMITERS = ",;\t"
AGAIN = "Repeat the step that writes it."
SHOWN = 60  # characters of a cell in messages


@dataclass(frozen=True)
class CsvLine:
    """A line that is not empty: its number in the file, from 1, and its cells."""

    number: int
    cells: tuple[str, ...]


@dataclass(frozen=True)
class CsvTable:
    """The columns of a file, and its lines below them."""

    columns: tuple[str, ...]
    lines: tuple[CsvLine, ...]


def read_table(path: Path, remedy: str = AGAIN) -> CsvTable:
    """Reads a file in UTF-8 or UTF-16 whose first line separates columns by commas, semicolons or tabs.

    Lines may have more or fewer cells than there are columns.

    Args:
        path: the file.
        remedy: what to do where it cannot be read; the end of the message.

    Raises:
        DataError: absent, no text, wrong quotes, a cell of more than 131072 characters, or a column given twice.
    """
    text = read_text(path, remedy)
    delimiter = max(DELIMITERS, key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        lines = [CsvLine(reader.line_num, tuple(cells)) for cells in reader if any(cells)]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: damaged ({error}). {remedy}") from error
    columns = tuple(cell.strip() for cell in lines[0].cells) if lines else ()
    twice = next((name for name in columns if name and columns.count(name) > 1), "")
    if twice:
        raise DataError(f"{path}: column {twice[:SHOWN]!r} is given twice; expected it once. {remedy}")
    return CsvTable(columns, tuple(lines[1:]))


def read_csv(path: Path, columns: Sequence[str], remedy: str = AGAIN) -> list[dict[str, str]]:
    """The lines of a file as dictionaries, without white space at the ends of cells.

    Args:
        path: the file.
        columns: those that it must have; ids in a column `id` must be fit to be parts of paths.
        remedy: what to do where it cannot be read; the end of the message.

    Raises:
        DataError: see `read_table`; or a column is missing, a line has too many or too few cells, or an id is unfit.
    """
    table = read_table(path, remedy)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}. {remedy}")
    uneven = next((line for line in table.lines if len(line.cells) != len(table.columns)), None)
    if uneven:
        raise DataError(
            f"{path}, line {uneven.number}: a line with too many or too few cells ({len(uneven.cells)}); expected "
            f"{len(table.columns)}. {remedy}"
        )
    rows = [dict(zip(table.columns, map(str.strip, line.cells), strict=True)) for line in table.lines]
    for line, row in zip(table.lines, rows, strict=True):
        if reason := invalid_id_reason(row["id"]) if "id" in row else "":
            raise DataError(f"{path}, line {line.number}: the id {row['id'][:SHOWN]!r} {reason}. {remedy}")
    return rows
