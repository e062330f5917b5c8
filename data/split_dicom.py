"""Copies a folder of DICOM files of several scans (echoes, phases, b-values) to one folder per scan.

    python -m data.split_dicom FOLDER --by EchoTime --out OUT

Two attributes may be given, for example --by EchoTime AcquisitionNumber. OUT receives one folder per value, such as
EchoTime_70; files that hold no slices are not copied. Reading a folder of several scans says which attributes differ.
"""

import argparse
import logging
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from data.describe.names import safe
from dataloaders.io.dicom.differences import DISTINCTIVE
from dataloaders.io.dicom.files import DicomFile, describe, read_files
from dataloaders.io.dicom.frame import Frame, quiet
from util.cli import run_main
from util.errors import DataError
from util.files import ensure_writable

log = logging.getLogger(__name__)


def split(folder: Path, keywords: Sequence[str], out: Path) -> dict[str, int]:
    """Copies the DICOM slices of a folder to one folder per value of some attributes.

    Args:
        folder: of the DICOM files; not changed.
        keywords: one or more of `DISTINCTIVE`.
        out: receives the folders; must not exist, or be empty.

    Returns:
        Name of each new folder -> number of files in it, in the order of the files' names.

    Raises:
        DataError: no slices in the folder, a multi-frame file, the same value everywhere, or `out` is not empty.
        UserError: `out` cannot be written to.
    """
    if out.is_dir() and any(out.iterdir()):
        raise DataError(f"{out}: not empty; expected a new folder for the copies. Name another one with --out.")
    groups: dict[tuple[str, ...], list[DicomFile]] = defaultdict(list)
    with quiet():
        files, skipped = read_files(folder)
        for file in files:
            groups[_values(file, keywords)].append(file)
    if len(groups) == 1:
        raise DataError(
            f"{folder}: {', '.join(keywords)} is the same in all {len(files)} files; expected an attribute that "
            "differs. Name another one with --by."
        )
    ensure_writable(out)
    named = _named(keywords, groups)
    for name, group in named.items():
        (out / name).mkdir()
        for file in group:
            shutil.copyfile(file.path, out / name / file.path.name)
    if skipped:
        log.info("%s: not copied: %s", folder, describe(skipped))
    return {name: len(group) for name, group in named.items()}


def _values(file: DicomFile, keywords: Sequence[str]) -> tuple[str, ...]:
    frame = Frame(file.path, file.header)
    if frame.whole("NumberOfFrames", 1) > 1:
        raise DataError(f"{file.path}: several frames in a file; expected one. Export each scan to a file of its own.")
    return tuple(frame.text(keyword) for keyword in keywords)


def _named(keywords: Sequence[str], groups: Mapping[tuple[str, ...], list[DicomFile]]) -> dict[str, list[DicomFile]]:
    """Groups by a name that is safe as a folder's; those of equal names are numbered."""
    named: dict[str, list[DicomFile]] = {}
    for values, group in groups.items():
        name = "_".join(f"{key}_{safe(value) or 'none'}" for key, value in zip(keywords, values, strict=True))
        named[f"{name}_{len(named) + 1}" if name in named else name] = group
    return named


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and copies."""
    parser = argparse.ArgumentParser(
        prog="data.split_dicom", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="DICOM files of several scans")
    parser.add_argument("--by", nargs="+", required=True, choices=DISTINCTIVE, metavar="ATTRIBUTE", help="what differs")
    parser.add_argument("--out", type=Path, required=True, help="new folder for the copies")
    given = parser.parse_args(arguments)
    for name, count in split(given.folder, given.by, given.out).items():
        log.info("%s: %d files", given.out / name, count)


if __name__ == "__main__":
    run_main(main)
