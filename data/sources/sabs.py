"""Synapse multi-atlas abdomen ("Beyond the Cranial Vault"), CT: the challenge's NIfTI files, found and renumbered.

Layouts: `img/img0001.nii.gz` and `label/label0001.nii.gz`; `averaged-training-images/DET0000101_avg.nii.gz` and
`averaged-training-labels/DET0000101_avg_seg.nii.gz`; or all files of either kind in one folder.
Source: Landman et al., MICCAI 2015 multi-atlas labeling challenge, abdomen, training part.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data.sources.raw_scans import RawScan, ScanSource
from data.sources.raw_scans import account as account_for
from dataloaders.description import MOST_CLASSES, DatasetSpec
from dataloaders.io.geometry import Grid, corner_distance_mm, require_one_grid
from dataloaders.io.nifti import read_nifti
from dataloaders.io.volumes import read_volume
from dataloaders.samples import Volume
from dataloaders.scans.labels import whole_values
from util.errors import DataError

CONVERTED_FOLDER = "SABS/niis"  # below the data root
LAYOUTS = (("img", "label"), ("averaged-training-images", "averaged-training-labels"), (".", "."))
PLACES = (".", "Training", "RawData/Training", "Abdomen/RawData/Training")
PUBLISHED_NUMBERS = (*range(1, 11), *range(21, 41))  # of the 30 annotated scans; their positions are the scan ids


def find_scans(raw: Path, spec: DatasetSpec) -> list[RawScan]:
    """Finds the images and their labels, and numbers them.

    A scan's id is the position of its number among the 30 published ones, also where some scans are missing: then the
    folds stay those of the paper. Files with other numbers are counted from 0 in the order of their names.

    Args:
        raw: the folder that holds one of the layouts above, or `Training`, `RawData/Training` or
            `Abdomen/RawData/Training` with one.
        spec: not needed; the layout is fixed.

    Returns:
        The scans in natural order of their ids: an image file and a label file each.

    Raises:
        DataError: no images, none with a label, or two files of one scan. A single image without its label is found,
            but cannot be read.
    """
    images, labels = _image_and_label_files(raw)
    numbers = sorted(images)
    if not set(images) & set(labels):
        raise _no_label(images[numbers[0]], len(images))
    place = next(iter(labels.values())).parent
    labels = {number: labels.get(number, place / f"label{number:04d}.nii.gz") for number in numbers}
    is_published = set(numbers) <= set(PUBLISHED_NUMBERS)
    order = list(PUBLISHED_NUMBERS) if is_published else numbers
    return [RawScan.with_label(str(order.index(number)), images[number], labels[number]) for number in numbers]


def _no_label(image: Path, n_images: int = 1) -> DataError:
    return DataError(
        f"SABS: no label for {image} ({n_images} images lack theirs); expected a label file with its number. Download "
        "the training part again; the test part has no labels."
    )


def account(raw: Path, scans: Sequence[RawScan]) -> str:
    """One line that counts the files in the folders of the images and labels, and names those that are left out."""
    folders = {path.parent for path in scans[0].inputs}
    root = folders.pop() if len(folders) == 1 else scans[0].image.parents[1]

    def why_unused(file: Path) -> str:
        if not _is_named(file):
            return "not named as img0001.nii.gz, label0001.nii.gz or DET0000101_avg.nii.gz"
        return "label without image" if _is_label(file) else "in another folder than the images that are used"

    return account_for("SABS", root, scans, why_unused)


def _image_and_label_files(raw: Path) -> tuple[dict[int, Path], dict[int, Path]]:
    """The first layout found: number in the file name -> image, and -> label."""
    for place in PLACES:
        for image_folder, label_folder in LAYOUTS:
            images = _numbered(path for path in _nifti_files(raw / place / image_folder) if not _is_label(path))
            labels = _numbered(path for path in _nifti_files(raw / place / label_folder) if _is_label(path))
            if images:
                return images, labels
    raise DataError(
        f"SABS: no scans under {raw}; expected img/img0001.nii.gz and label/label0001.nii.gz. Download the training "
        "part of the Synapse abdomen challenge (see data/SABS/README.md), name its folder with --raw, or make a "
        "stand-in: `frugalseg phantom sabs --out DIR`."
    )


def _nifti_files(folder: Path) -> list[Path]:
    return sorted(filter(_is_named, folder.glob("*")))


def _is_named(path: Path) -> bool:
    return re.fullmatch(r"(img|label|DET)\d+.*\.nii(\.gz)?", path.name, re.IGNORECASE) is not None


def _is_label(path: Path) -> bool:
    return path.name.lower().startswith("label") or "_seg" in path.name


def _numbered(paths: Iterable[Path]) -> dict[int, Path]:
    """Scan number -> file; DET0002101 is the first acquisition of scan 21."""
    numbered: dict[int, Path] = {}
    for path in paths:
        number = int("".join(re.findall(r"\d+", path.name)[:1]))
        number = number // 100 if path.name.upper().startswith("DET") else number
        if number in numbered:
            raise DataError(
                f"{path}: the same scan number as {numbered[number].name}; expected every scan once. Remove "
                "one of them."
            )
        numbered[number] = path
    return numbered


def read_scan(scan: RawScan, spec: DatasetSpec) -> tuple[Volume, Volume]:
    """Reads an image (Hounsfield units) and its labels (uint8) on one grid.

    Raises:
        DataError: a file is damaged, the labels are not whole numbers, or the two have different grids.
    """
    image_file, label_file = scan.image, scan.label_file
    if not label_file.exists():
        raise _no_label(image_file)
    image, label = read_volume(image_file), read_nifti(label_file)
    try:
        require_one_grid(image, label, corner_distance_mm(Grid.of(image), Grid.of(label)), image_file.name)
        array = whole_values(label.array)
        if array.min() < 0 or array.max() > MOST_CLASSES:
            raise DataError(
                f"label values from {array.min()} to {array.max()}; expected 0 to {len(spec.class_names) - 1}. "
                "Download it again."
            )
    except DataError as error:
        raise DataError(f"{label_file}: {error}") from error
    return image, Volume(array.astype(np.uint8), image.affine, image.stored)


SOURCE = ScanSource(find_scans, read_scan, account, CONVERTED_FOLDER)
