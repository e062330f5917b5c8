"""Applies a predictor to many files: names, earlier results, and failures that do not stop the other files."""

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from util.csv_files import read_table
from util.errors import DataError, UserError
from util.files import write_text
from util.ids import IMAGE_WORDS, LABEL_WORDS
from util.inventory import summary
from util.items import Failures, catching
from util.progress import ProgressBar
from util.results.pictures import literal
from util.results.scores import csv_text

TABLE_EVERY_S = 10.0  # the table is written at most this often while files are processed
RESULT = "result of an earlier segmentation"
LABEL_MAP = "label map of another file, by its name (to segment it, name the file itself)"

Record = dict[str, Any]
TRUST = ("confidence", "review")  # columns of every table, last
_YES_NO = ("no", "yes")


def trust(confidence: float | None, limit: float | None) -> Record:
    """What tells whether to look at a mask.

    Args:
        confidence: how firm its outline is; None: nothing was found.
        limit: below which a mask is to be looked at; None: not known, and `review` is empty.
    """
    shown = "" if confidence is None else round(confidence, 3)
    return {"confidence": shown, "review": "" if limit is None or confidence is None else _YES_NO[confidence < limit]}


@dataclass
class Inventory:
    """Which of the files at the given places are used.

    Attributes:
        n_used: number of files that are; a DICOM series has many.
        left_out: path -> reason, of all others.
    """

    n_used: int = 0
    left_out: dict[Path, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """The counts, and names by reason."""
        root = Path(os.path.commonpath([path.absolute().parent for path in self.left_out] or [Path.cwd()]))
        return summary(self.n_used + len(self.left_out), {p.absolute(): r for p, r in self.left_out.items()}, root)


def name_files(paths: Iterable[Path], stem: Callable[[Path], str]) -> dict[str, Path]:
    """A name for each path, listed once: its stem, with the folders above it where names repeat.

    Raises:
        DataError: two files have the same name but for their suffix, so that one result would replace the other.
    """
    unique = list(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))  # noqa: PTH100 - links keep their names
    parts = [(*path.parts[1:-1], stem(path)) for path in unique]
    for length in range(1, max(map(len, parts), default=0) + 1):
        named = {"_".join(part[-length:]): path for part, path in zip(parts, unique, strict=True)}
        if len(named) == len(unique):
            return named
    first, second = [path for path, part in zip(unique, parts, strict=True) if parts.count(part) > 1][:2]
    raise DataError(
        f"{first}, {second}: the same name but for the suffix; their results would replace each other. Move one of "
        "them elsewhere, or name the files to segment one by one."
    )


def without_label_maps(
    files: Sequence[Path], folder: Path, stem: Callable[[Path], str], left_out: dict[Path, str]
) -> list[Path]:
    """The files below a folder without label maps of others among them, which are added to `left_out`.

    A file is a label map if its name or its folders below `folder` contain a word such as "mask" or "seg", and its
    other words begin with those of another file: `case1_liver_seg` next to `case1`, `masks/a` next to `images/a`.
    """
    images: set[tuple[str, ...]] = set()
    marked: dict[Path, tuple[str, ...]] = {}
    for file in files:
        text = "/".join((*file.relative_to(folder).parts[:-1], stem(file))).lower()
        words = re.findall(r"[^\W\d_]+|\d+", text)
        core = tuple(word for word in words if word not in LABEL_WORDS | IMAGE_WORDS)
        if LABEL_WORDS.isdisjoint(words):
            images.add(core)
        else:
            marked[file] = core
    labels = {file for file, core in marked.items() if any(core[: n + 1] in images for n in range(len(core)))}
    left_out |= dict.fromkeys(sorted(labels), LABEL_MAP)
    return [file for file in files if file not in labels]


def find_all(
    paths: Iterable[Path], find: Callable[[Path, Inventory], list[Path]], failures: Failures
) -> tuple[list[Path], Inventory]:
    """Searches several places; one in which nothing is found is a failure.

    Args:
        paths: files and folders.
        find: what to segment at a path, see `find_scans` and `find_images`.
        failures: path -> reason.

    Raises:
        DataError: there is nothing to segment at all.
    """
    found: list[Path] = []
    inventory = Inventory()
    for path in paths:
        with catching(failures, str(path), path):
            found += find(path, inventory)
    if not found:
        more = f" {inventory}." if inventory.left_out else ""
        raise DataError(" ".join(failures.values()) + more)
    return found, inventory


@dataclass
class Outcome:
    """What became of a run: number of images or scans found and segmented, and the reasons of the others.

    Attributes:
        failures: name -> reason of what could not be segmented.
        pictures: name -> reason of what could not be drawn.
        dicom_seg: name -> reason of DICOM segmentations that could not be written.
        inventory: of the files.
        removed: names of files of an earlier run that belonged to results which this one has replaced.
        records: lines of the table.
        method: name of the method.
    """

    failures: Failures = field(default_factory=dict)
    pictures: Failures = field(default_factory=dict)
    dicom_seg: Failures = field(default_factory=dict)
    inventory: Inventory = field(default_factory=Inventory)
    removed: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    method: str = ""
    n_found: int = 0
    n_done: int = 0

    def to_json(self) -> dict[str, Any]:
        """As printed by `--json`: the lines of the table by structure, and failed items with reasons."""
        return {
            "found": self.n_found,
            "segmented": self.n_done,
            "results": [{key: None if value == "" else value for key, value in each.items()} for each in self.records],
            "failed": self.failures,
            "not_drawn": self.pictures,
            "without_dicom_seg": self.dicom_seg,
            "left_out": {str(path): reason for path, reason in self.inventory.left_out.items()},
            "removed": self.removed,
        }


class Table:
    """The table of all results in a folder: that of an earlier run, and the records of this one.

    Args:
        path: the CSV file.
        columns: the first one holds the name of the item.

    Raises:
        UserError: the file exists, but cannot be read or has other columns; or it cannot be written.
    """

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self.path, self.columns = path, columns
        self.records: dict[str, list[Record]] = {}
        for record in _read_records(path, columns):
            self.records.setdefault(record[columns[0]], []).append(record)
        self.write()  # fails now if the folder cannot be written to

    def put(self, name: str, records: Sequence[Record]) -> None:
        """Replaces the records of an item; written after some seconds if that is possible, or by `write`."""
        self.records[literal(name)] = [record | {self.columns[0]: literal(name)} for record in records]
        if time.monotonic() - self._written_s > TABLE_EVERY_S:
            with suppress(UserError):  # such as a full disk: `write` will tell
                self.write()

    def write(self) -> None:
        """Writes the table."""
        write_text(self.path, csv_text(self.columns, [each for records in self.records.values() for each in records]))
        self._written_s = time.monotonic()


def _read_records(path: Path, columns: Sequence[str]) -> list[Record]:
    if not path.exists():
        return []
    remedy = "Move it away, or choose another --out."
    table = read_table(path, remedy)
    if table.columns != tuple(columns) or any(len(line.cells) != len(columns) for line in table.lines):
        raise DataError(
            f"{path}: not a table of an earlier segmentation; expected the columns {', '.join(columns)} in every line. "
            f"{remedy}"
        )
    return [dict(zip(columns, line.cells, strict=True)) for line in table.lines]


def refuse_existing(out: Path, names: Iterable[str]) -> None:
    """Checks that no result would be replaced.

    Raises:
        UserError: some exist.
    """
    existing = [path for path in (out / name for name in names) if path.exists()]
    if existing:
        raise UserError(
            f"{existing[0]}: exists already ({len(existing)} such results). Name another folder with --out, or replace "
            "them with --overwrite."
        )


def remove_files(folder: Path, names: Iterable[str]) -> list[str]:
    """Removes the files of these names that exist; returns their names."""
    found = [name for name in names if (folder / name).is_file()]
    for name in found:
        (folder / name).unlink()
    return found


def process_each(
    items: Mapping[str, Path],
    work: Callable[[str, Path], list[Record]],
    table: Path,
    columns: Sequence[str],
    what: str,
    failures: Failures,
    found: list[Record] | None = None,
) -> int:
    """Processes item after item; an item that fails for any reason does not stop the others.

    Args:
        items: name -> file.
        work: (name, file) -> records of the item for the table.
        table: CSV file of all records. It is written during the run, too; records of other items stay in it, and those
            of an item that fails.
        columns: of the table, the name of the item first.
        what: of the items, for the progress bar.
        failures: name -> reason, which contains the path; the table is among them if it cannot be written at the end.
        found: receives the records of this run; None: not needed.

    Returns:
        The number of items that succeeded.

    Raises:
        UserError: the table cannot be written at the beginning, or is another one's.
    """
    results = Table(table, columns)
    n_done = 0
    try:
        for name, path in ProgressBar(items.items(), desc=what):
            with catching(failures, name, path):
                records = work(name, path)
                results.put(name, records)
                n_done += 1
                if found is not None:
                    found += records
    finally:
        with catching(failures, table.name, table):
            results.write()
    return n_done
