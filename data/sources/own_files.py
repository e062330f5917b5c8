"""Accounts for the files next to those of a user's table: which are used, and which are not in the table."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data.sources.own_table import TableRow, read_table
from dataloaders.description import DatasetSpec
from dataloaders.io.dicom.files import DICOM_SUFFIXES
from dataloaders.io.nifti_names import HEADER_SUFFIXES, SINGLE_SUFFIXES, VOXEL_SUFFIXES, pair_of
from dataloaders.io.pictures import SUFFIXES
from util.inventory import ARCHIVE, is_archive, list_files, summary

NOT_LISTED, UNUSED, NO_CASE = "not in the table", "of cases that are not used (column split)", "neither scan nor image"
CASE_SUFFIXES = (*SINGLE_SUFFIXES, *HEADER_SUFFIXES, *VOXEL_SUFFIXES, *DICOM_SUFFIXES, *SUFFIXES)


@dataclass(frozen=True)
class Account:
    """The files in the folder of the cases; as text one line, which counts them and names those that are left out.

    Attributes:
        table: of the cases.
        root: the folder, or the first one of several.
        n_found: number of all files.
        left_out: path -> reason.
    """

    table: Path
    root: Path
    n_found: int
    left_out: dict[Path, str]

    def __str__(self) -> str:
        """The line."""
        return f"{self.table}: {summary(self.n_found, self.left_out, self.root)}"


def account_for_table(table: Path, spec: DatasetSpec, description: Path, out: Path) -> Account:
    """Counts the files in the folder of the cases, and finds out why some are left out.

    That folder is the lowest one with all files of the table. Where this lies above the table's own folder, as with
    files on several disks, each folder that holds a file of the table is searched by itself.

    Args:
        table: of the files.
        spec: the data set.
        description: its file; neither this nor the table, or the draft's report, is counted.
        out: data root, whose results for this set are not counted.

    Raises:
        DataError: see `read_table`.
    """
    rows = read_table(table, spec)
    used = _files(row for row in rows if row.cells.get("split") != "unused")
    unused = _files(rows) - used
    results = (out / Path(spec.prepared_folder()).parts[0]).absolute()
    own = {each.absolute() for each in (table, description, table.with_suffix(".report.txt"))}
    found: set[Path] = set()
    left_out: dict[Path, str] = {}
    roots = _roots(table.absolute().parent, used | unused)
    for root in roots:
        files, hidden = list_files(root, "")
        skipped = {path for path in (*files, *hidden) if results in (path, *path.parents) or path in own}
        found |= {*files, *hidden} - skipped
        left_out |= {path: reason for path, reason in hidden.items() if path not in skipped}
    for path in found - left_out.keys():
        if not _is_among(path, used):
            left_out[path] = UNUSED if _is_among(path, unused) else _why_unused(path)
    return Account(table, roots[0], len(found), left_out)


def _files(rows: Iterable[TableRow]) -> set[Path]:
    """The files and folders that the lines name, with the voxels of pairs."""
    named = {Path(os.path.abspath(path)) for row in rows for path in row.paths.values()}  # noqa: PTH100 - keeps links
    return named | {half for path in named for half in pair_of(path) or ()}


def _roots(own: Path, files: set[Path]) -> Sequence[Path]:
    parents = {path.parent for path in files}
    common = Path(os.path.commonpath(parents))
    return [common] if common == own or common not in own.parents else sorted(parents)


def _is_among(path: Path, files: set[Path]) -> bool:
    return not files.isdisjoint((path, *path.parents))


def _why_unused(path: Path) -> str:
    if is_archive(path.name):
        return ARCHIVE
    return NOT_LISTED if path.name.lower().endswith(CASE_SUFFIXES) or not path.suffix else NO_CASE
