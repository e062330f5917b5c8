"""CHAOS, abdominal MR (T2-SPIR): the challenge's DICOM and PNG files, read as scans with labels.

Layout: `MR/<id>/T2SPIR/DICOM_anon/*.dcm` and `MR/<id>/T2SPIR/Ground/IMG-xxxx-NNNNN.png`.
Source: Kavur et al., CHAOS challenge (Medical Image Analysis 2021), training part.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.sources.raw_scans import RawScan, ScanSource
from data.sources.raw_scans import account as account_for
from dataloaders.description import DatasetSpec
from dataloaders.io.dicom import DicomSeries, read_dicom_slices
from dataloaders.io.png import png_files, read_png_stack, trailing_number
from dataloaders.samples import Volume
from util.errors import DataError
from util.inventory import first_names

CONVERTED_FOLDER = "CHAOST2/niis/T2SPIR"  # below the data root
PNG_VALUES = (0, 63, 126, 189, 252)  # grey value of background, liver, right kidney, left kidney, spleen


def find_scans(raw: Path, spec: DatasetSpec) -> list[RawScan]:
    """Finds the patients' folders.

    Args:
        raw: the folder `MR` of the download, or one that contains it, directly or in `CHAOS_Train_Sets/Train_Sets`.
        spec: not needed; the layout is fixed.

    Returns:
        The scans in natural order of their ids: a DICOM folder and the folder of the ground truth each. One of them may
        be missing; then the scan cannot be read.

    Raises:
        DataError: no patients; several places with patients, or several folders of one patient.
    """
    folders = [*filter(_sequences_in, _places(raw))]
    if len(folders) > 1:
        raise DataError(f"CHAOST2: patients in {folders[0]} and in {folders[1]}. Name the right one with --raw.")
    patients: dict[str, Path] = {}
    for folder in [path for place in folders for path in _sequences_in(place) if _is_number(path.parent.name)]:
        other = patients.setdefault(str(int(folder.parent.name)), folder)
        if other != folder:
            raise DataError(f"{other.parent}, {folder.parent}: two folders of one patient. Remove one of them.")
    if not patients:
        others = [path.parent.name for place in folders for path in _sequences_in(place)]
        found = f"; found {first_names(others)}, which are no patient numbers" if others else ""
        raise DataError(
            f"CHAOST2: no scans under {raw}; expected MR/<id>/T2SPIR/DICOM_anon/*.dcm{found}. Download "
            "CHAOS_Train_Sets.zip (see data/CHAOST2/README.md), name its folder with --raw, or make a stand-in with "
            "`frugalseg phantom chaost2 --out DIR`."
        )
    scans = {scan: patients[scan] for scan in sorted(patients, key=int)}
    return [RawScan.with_label(scan, path / "DICOM_anon", path / "Ground") for scan, path in scans.items()]


def _places(raw: Path) -> list[Path]:
    """Where the patients may be; links and "." are followed, so that each place counts once."""
    places = [raw, *(raw / place / "MR" for place in (".", "Train_Sets", "CHAOS_Train_Sets/Train_Sets"))]
    return list({each.resolve(): each for each in reversed(places)}.values())[::-1]


def _sequences_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/T2SPIR"))


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdecimal()


def account(raw: Path, scans: Sequence[RawScan]) -> str:
    """One line that counts the files in the folder of the patients, and names those that are left out."""
    root = scans[0].image.parents[2]

    def why_unused(file: Path) -> str:
        patient, *inner = file.relative_to(root).parts
        if not inner:
            return "not in the folder of a patient"
        if not _is_number(patient):
            return f"in {patient}, which is no patient number: rename the folder to use it"
        return "not in T2SPIR" if inner[0] != "T2SPIR" else "neither in DICOM_anon nor in Ground"

    return account_for("CHAOST2", root, scans, why_unused)


def read_scan(scan: RawScan, spec: DatasetSpec) -> tuple[Volume, Volume]:
    """Reads a patient's image and labels (uint8, 0 to 4) on one grid.

    Raises:
        DataError: see `read_dicom_slices`, `read_png_stack` and `labels_from_png`; or one of the folders is missing, or
            the two do not belong together.
    """
    dicom_folder, ground_folder = scan.image, scan.label_file
    for folder, kind in ((dicom_folder, "DICOM files"), (ground_folder, "PNG ground truth")):
        if not folder.is_dir():
            raise DataError(
                f"CHAOST2: no {kind} under {folder.parent}; expected the folder {folder.name}. Unpack the training "
                "part of CHAOS again; its test part has no ground truth."
            )
    series = read_dicom_slices(dicom_folder)
    files, labels = png_files(ground_folder), labels_from_png(ground_folder)
    if labels.shape != series.volume.array.shape:
        raise DataError(
            f"{ground_folder}: PNG stack of shape {labels.shape}; expected {series.volume.array.shape} (D, H, W) as in "
            f"{dicom_folder}. Copy both folders again."
        )
    order = _png_order(series, {trailing_number(path) for path in files}, ground_folder)
    return series.volume, Volume(labels[order], series.volume.affine)


def labels_from_png(folder: Path) -> np.ndarray:
    """Reads the ground truth as uint8 (D, H, W), in the order of the file numbers.

    Rows stay as they are: a PNG file and a DICOM file both begin with the upper row.

    Raises:
        DataError: a pixel is none of CHAOS's grey values.

    Note: grey values are looked up in CHAOS's own table. The released code ranks the values present in a scan, which
        renames organs where one is absent.
    """
    stack = read_png_stack(folder)
    is_known = np.isin(stack, PNG_VALUES)
    if not is_known.all():
        worst = int(np.argmin(is_known.all(axis=(1, 2))))
        unknown = np.unique(stack[worst][~is_known[worst]])
        raise DataError(
            f"{png_files(folder)[worst]}: grey value {', '.join(map(str, unknown[:5]))}; expected only "
            f"{', '.join(map(str, PNG_VALUES))}. Copy the original file again: it was edited, or saved with loss."
        )
    return np.searchsorted(PNG_VALUES, stack).astype(np.uint8)


def _png_order(series: DicomSeries, png_numbers: set[int | None], ground_folder: Path) -> np.ndarray:
    """For each slice of the series, sorted along its normal, the place of its PNG file in the stack.

    CHAOS gives a slice's DICOM and PNG file the same number. Where an export has renamed the DICOM files, their
    InstanceNumber tells the same order.
    """
    by_name = [trailing_number(each.path) for each in series.slices]
    by_instance = [each.instance_number for each in series.slices]
    if set(by_name) == png_numbers:
        numbers = by_name
    elif None not in by_instance and len(set(by_instance)) == len(by_instance):
        numbers = by_instance
    else:
        raise DataError(
            f"{ground_folder}: cannot tell which PNG file belongs to which DICOM slice, e.g. "
            f"{series.slices[0].path.name}; expected the same numbers at the end of both names, or an InstanceNumber "
            "in every DICOM file. Copy both folders again, with their original names."
        )
    return np.argsort(np.argsort(np.array(numbers)))


SOURCE = ScanSource(find_scans, read_scan, account, CONVERTED_FOLDER)
