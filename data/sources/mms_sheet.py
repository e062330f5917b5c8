"""The information sheet of M&Ms: vendor, centre and annotated frames of each patient, from CSV or XLSX.

Two forms are known: 345 lines with External code, VendorName, Vendor, Centre, ED, ES and further columns, and an older
one of 175 lines with five columns, where Vendor holds letters or names. Columns are found by their headings.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from openpyxl import load_workbook

from util.csv_files import read_table
from util.errors import DataError
from util.ids import comparable_id
from util.inventory import first_names
from util.items import naming

SUFFIXES = (".csv", ".xlsx")
DOMAINS = {"siemens": "A", "philips": "B", "ge": "C", "generalelectric": "C", "canon": "D"}  # vendor -> letter
HEADINGS = {  # column -> how it is spelt, lower case, letters and digits only
    "code": ("externalcode", "code", "patient", "patientid", "subject", "subjectid", "externalid"),
    "vendor": ("vendor", "vendorletter", "vendorcode", "vendorid"),
    "vendor name": ("vendorname", "manufacturer", "scannervendor"),
    "centre": ("centre", "center", "centreid", "centerid", "hospital"),
    "ED": ("ed", "edframe", "enddiastole", "enddiastolic"),
    "ES": ("es", "esframe", "endsystole", "endsystolic"),
}
EXPECTED = "External code, Vendor (or VendorName), Centre, ED and ES"
REMEDY = "Download the information sheet of M&Ms again (see data/MMS/README.md)."


@dataclass(frozen=True)
class PatientLine:
    """What the sheet says of a patient, as text; empty: nothing."""

    vendors: tuple[str, ...]  # a letter, a name, or both
    centre: str
    frames: Mapping[str, str]  # "ED", "ES" -> number of the frame from 0

    @property
    def domain(self) -> str:
        """The letter of the vendor, A to D.

        Raises:
            DataError: an unknown vendor, or two.
        """
        letters = {_letter(vendor) for vendor in self.vendors if vendor}
        if len(letters) != 1 or "" in letters:
            found = " and ".join(map(repr, self.vendors))
            raise DataError(f"vendor {found} in the information sheet; expected A, B, C or D, or its name.")
        return letters.pop()

    def labelled_frames(self) -> dict[int, str]:
        """Number of the frame -> phase.

        Raises:
            DataError: no whole numbers, or both phases on one frame.
        """
        frames = {_whole(text, phase): phase for phase, text in self.frames.items()}
        if len(frames) < len(self.frames):
            raise DataError(f"ED and ES are both frame {next(iter(frames))} in the information sheet. Correct it.")
        return dict(sorted(frames.items()))


def _letter(vendor: str) -> str:
    """A to D of a letter or name; empty: unknown."""
    text = re.sub(r"[^a-z]", "", vendor.lower().removeprefix("vendor"))
    names = [letter for name, letter in DOMAINS.items() if text.startswith(name) or (len(name) > 2 and name in text)]
    return text.upper() if text.upper() in DOMAINS.values() else next(iter(names), "")


def _whole(text: str, phase: str) -> int:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if number < 0 or number != int(number):
        raise DataError(f"{phase}={text!r} in the information sheet; expected the number of a frame, from 0.")
    return int(number)


def find_sheet(files: Iterable[Path]) -> Path:
    """The information sheet among the files of the download.

    Raises:
        DataError: none with the columns that are needed, or several; the message lists those found.
    """
    tables = [path for path in files if path.suffix.lower() in SUFFIXES]
    named = [path for path in tables if "information" in path.name.lower()] or tables
    found = {path: _read_lines(path)[0] for path in named}
    fitting = [path for path, columns in found.items() if not _missing(columns)]
    if len(fitting) > 1:
        raise DataError(f"{fitting[0]}, {fitting[1]}: two information sheets; expected one. Remove one of them.")
    if not fitting:
        seen = "; ".join(f"{path} has {', '.join(filter(None, columns)) or 'none'}" for path, columns in found.items())
        raise DataError(
            f"MMS: no information sheet; expected a CSV or XLSX file with the columns {EXPECTED}; found "
            f"{seen or 'no such file'}. {REMEDY}"
        )
    return fitting[0]


def read_sheet(path: Path) -> dict[str, list[PatientLine]]:
    """Patient, see `comparable_id` -> the different lines on him or her; more than one contradict each other.

    Raises:
        DataError: unreadable, or columns are missing; the message lists those found and expected.
    """
    columns, lines = _read_lines(path)
    if missing := _missing(columns):
        found = first_names([name for name in columns if name]) or "none"
        raise DataError(f"{path}: no column {', '.join(missing)}; expected {EXPECTED}, found {found}. {REMEDY}")
    places = _places(columns)
    patients: dict[str, list[PatientLine]] = defaultdict(list)
    for cells in lines:
        row = {name: cells[place].strip() if place < len(cells) else "" for name, place in places.items()}
        vendors = tuple(row[name] for name in ("vendor", "vendor name") if row.get(name))
        line = PatientLine(vendors, _number(row["centre"]), {phase: row[phase] for phase in ("ED", "ES")})
        known = patients[comparable_id(row["code"])]
        if line not in known:
            known.append(line)
    patients.pop("", None)
    return dict(patients)


def _number(text: str) -> str:
    """Spreadsheets write whole numbers with a decimal point."""
    return text.removesuffix(".0")


def _places(columns: Sequence[str]) -> dict[str, int]:
    """Column of `HEADINGS` -> its place in the sheet."""
    plain = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in columns]
    found = {name: [plain.index(each) for each in spellings if each in plain] for name, spellings in HEADINGS.items()}
    return {name: places[0] for name, places in found.items() if places}


def _missing(columns: Sequence[str]) -> list[str]:
    places = _places(columns)
    missing = [name for name in ("code", "centre", "ED", "ES") if name not in places]
    return missing if {"vendor", "vendor name"} & set(places) else [*missing, "vendor"]


def _read_lines(path: Path) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Headings and lines, as text."""
    if path.suffix.lower() == ".csv":
        table = read_table(path, REMEDY)
        return table.columns, [line.cells for line in table.lines]
    with naming(path):
        book = load_workbook(path, read_only=True, data_only=True)
        try:
            rows = book.worksheets[0].iter_rows(values_only=True)
            lines = [["" if cell is None else str(cell) for cell in row] for row in rows]
        finally:
            book.close()
    lines = [line for line in lines if any(line)]
    return ([cell.strip() for cell in lines[0]], list(lines[1:])) if lines else ([], [])
