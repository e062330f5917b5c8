"""Finds the scans in folders, and says why other files are left out."""

import re
from collections.abc import Sequence
from pathlib import Path

from dataloaders.io.dicom.files import DICOM_SUFFIXES, is_dicom_file
from dataloaders.io.nifti import nifti_stem
from models.prediction.batch import RESULT, Inventory, without_label_maps
from models.prediction.label_tables import SLICER, SNAP
from util.errors import DataError
from util.inventory import ARCHIVE, EMPTY, HIDDEN, TWICE, is_archive, list_files
from util.results.report.prediction import FILE_NAME as PAGE

TABLE = "volumes.csv"
SEGMENTATION = "_segmentation.nii.gz"
OVERLAY = "_overlay.png"
DICOM_SEG = "_segmentation.dcm"
PROBABILITY = "_probability.nii.gz"  # after the name of a structure
RESULTS = (OVERLAY, DICOM_SEG)
NIFTI = r"\.(nii|hdr|img)(\.gz)?$"
DICOM_NAMES = r"(\.ima|\.\d+)?"  # suffixes that scanners give, where they do not give ".dcm"
NO_SCAN = "neither NIfTI nor DICOM"
HALF_PAIR = "header or voxels of a NIfTI pair without the other"


def find_scans(path: Path, inventory: Inventory | None = None) -> list[Path]:
    """The scans at a path, in the order of their names: NIfTI files, and folders that hold a DICOM series.

    Below a folder, these are the scans: NIfTI files, pairs of `.hdr` and `.img` by their header, and every folder with
    a DICOM series: it holds `*.dcm` or files that begin as DICOM does; or no folder and no NIfTI file, but files named
    as scanners do. Segmentations made here and label maps of other files are left out. What is named as a scan but
    cannot be read counts as a scan, so that it is reported as failed.

    Args:
        path: a file or a folder.
        inventory: counts the files, and receives all that are left out, with reasons; None: not needed.

    Raises:
        DataError: no such path, or there are none.
    """
    inventory = Inventory() if inventory is None else inventory
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Check the path.")
    if path.is_file():
        inventory.n_used += 1
        return [path]
    files, left_out = list_files(path, "")
    lost = [entry for entry, reason in left_out.items() if reason not in (HIDDEN, EMPTY, TWICE) and _may_be_scan(entry)]
    in_folder: dict[Path, list[Path]] = {}
    for file in sorted([*files, *lost]):
        in_folder.setdefault(file.parent, []).append(file)
    parents = {parent for folder in in_folder for parent in folder.parents}
    n_files: dict[Path, int] = {}
    for folder in sorted(in_folder):
        n_files |= _scans_in(folder, in_folder[folder], folder in parents, left_out)
    scans = without_label_maps(list(n_files), path, nifti_stem, left_out)
    inventory.n_used += sum(n_files[scan] for scan in scans)
    inventory.left_out |= left_out
    if not scans:
        raise DataError(
            f"{path}: no scan found; looked for NIfTI files (.nii, .nii.gz, .hdr with .img) and for folders of DICOM "
            "files, in all subfolders."
        )
    return scans


def _scans_in(folder: Path, entries: Sequence[Path], has_folders: bool, left_out: dict[Path, str]) -> dict[Path, int]:
    """Scan -> number of files, of one folder without those below it; the other files are left out."""
    volumes = [entry for entry in entries if _is_volume(entry)]
    scans = _whole_volumes(volumes, left_out)
    others = [entry for entry in entries if entry not in volumes]
    for entry in [*others]:
        if entry in left_out:  # cannot be read, and may be a scan
            del left_out[entry]
            scans[entry] = 1
        elif entry.name in (TABLE, PAGE, SNAP, SLICER) or entry.name.endswith(RESULTS):
            left_out[entry] = RESULT
        elif is_archive(entry.name):
            left_out[entry] = ARCHIVE
        else:
            continue
        others.remove(entry)
    slices = [file for file in others if file.name != "DICOMDIR" and _is_slice(file)]
    if not slices and not scans and not has_folders:
        slices = [file for file in others if re.fullmatch(DICOM_NAMES, file.suffix.lower())]
    left_out |= {file: NO_SCAN for file in others if file not in slices}
    return ({folder: len(slices)} if slices else {}) | {scan: scans[scan] for scan in sorted(scans)}


def _is_slice(file: Path) -> bool:
    return file.suffix.lower() in DICOM_SUFFIXES or is_dicom_file(file)


def _may_be_scan(entry: Path) -> bool:
    """Whether the name of a file or folder that cannot be read is that of a scan."""
    return not entry.suffix or entry.is_dir() or _is_volume(entry)


def _is_volume(entry: Path) -> bool:
    return re.search(NIFTI, entry.name, re.IGNORECASE) is not None and not entry.is_dir()


def _whole_volumes(files: Sequence[Path], left_out: dict[Path, str]) -> dict[Path, int]:
    """Scan -> number of files, of NIfTI files, and of pairs by their header."""
    halves: dict[str, dict[str, Path]] = {}  # stem -> "hdr" or "img" -> file
    scans: dict[Path, int] = {}
    for file in files:
        kind = re.search(NIFTI, file.name, re.IGNORECASE)[1].lower()  # type: ignore[index]
        if kind != "nii":
            halves.setdefault(nifti_stem(file), {})[kind] = file
        elif file.name.endswith((SEGMENTATION, PROBABILITY)):
            left_out[file] = RESULT
        else:
            left_out.pop(file, None)  # a link to nothing
            scans[file] = 1
    for pair in halves.values():
        if len(pair) == 2:
            scans[pair["hdr"]] = 2
        else:
            left_out |= dict.fromkeys(pair.values(), HALF_PAIR)
    return scans
