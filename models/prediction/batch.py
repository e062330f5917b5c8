"""Applies a predictor to many files: names, earlier results, and failures that do not stop the other files."""

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from util.errors import DataError, UserError
from util.files import write_text
from util.ids import IMAGE_WORDS, LABEL_WORDS
from util.results.scores import csv_text

logger = logging.getLogger(__name__)

TABLE_EVERY_S = 10.0  # the table is written at most this often while files are processed

Record = dict[str, Any]


def name_files(paths: Iterable[Path], stem: Callable[[Path], str]) -> dict[str, Path]:
    """A name for each path, listed once: its stem, with the folders above it where names repeat.

    Raises:
        DataError: names cannot be told apart.
    """
    unique = list(dict.fromkeys(Path(os.path.abspath(path)) for path in paths))  # noqa: PTH100 - links keep their names
    parts = [(*path.parts[1:-1], stem(path)) for path in unique]
    for length in range(1, max(map(len, parts), default=0) + 1):
        named = {"_".join(part[-length:]): path for part, path in zip(parts, unique, strict=True)}
        if len(named) == len(unique):
            return named
    repeated = next(path for path, part in zip(unique, parts, strict=True) if parts.count(part) > 1)
    raise DataError(f"{repeated}: another file has the same name but for its suffix; move one of them elsewhere.")


def without_label_maps(files: Sequence[Path], folder: Path, stem: Callable[[Path], str]) -> list[Path]:
    """The files below a folder without label maps of others among them; logs those that are left out.

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
    for label in sorted(labels):
        logger.warning(
            "%s: left out as a label map, according to its name. To segment it, name the file itself.", label
        )
    return [file for file in files if file not in labels]


def refuse_existing(out: Path, names: Iterable[str]) -> None:
    """Checks that no result would be replaced.

    Raises:
        UserError: some exist.
    """
    existing = [path for path in (out / name for name in names) if path.exists()]
    if existing:
        raise UserError(
            f"{existing[0]}: exists already ({len(existing)} such results). Name another folder with --out, or "
            "replace them with --overwrite."
        )


def process_each(
    items: Mapping[str, Path],
    work: Callable[[str, Path], list[Record]],
    table: Path,
    columns: Sequence[str],
    what: str,
) -> dict[str, str]:
    """Processes item after item; an item that fails for any reason does not stop the others.

    Args:
        items: name -> file.
        work: (name, file) -> records of the item for the table.
        table: CSV file of all records; it is written during the run, too.
        columns: of the table.
        what: of the items, for the progress bar.

    Returns:
        Name -> message of the items that failed; it contains the path.

    Raises:
        UserError: the table cannot be written.
    """
    records: list[Record] = []
    failures: dict[str, str] = {}
    write_text(table, csv_text(columns, records))  # fails now if the folder cannot be written to
    written_s = time.monotonic()
    try:
        for name, path in tqdm(items.items(), desc=what, disable=None):
            try:
                records += work(name, path)
            except UserError as error:
                failures[name] = str(error) if str(path) in str(error) else f"{path}: {error}"
            except Exception as error:
                logger.warning("%s: unexpected error", path, exc_info=True)
                failures[name] = f"{path}: {type(error).__name__}: {error}"
            if time.monotonic() - written_s > TABLE_EVERY_S:
                write_text(table, csv_text(columns, records))
                written_s = time.monotonic()
    finally:
        write_text(table, csv_text(columns, records))
    return failures
