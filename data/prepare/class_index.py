"""The class index, the slices that show each class: `frugalseg prepare TARGET --step index`."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int, Num

from dataloaders.description import DatasetSpec
from dataloaders.io.nifti import read_nifti
from dataloaders.scans.folder import prepare_command, scan_files
from dataloaders.scans.labels import in_full, whole_values
from dataloaders.scans.manifest import Manifest
from util.errors import ConfigError, DataError
from util.files import write_json
from util.items import Failures, attempt_each, raise_failures
from util.records import Record, hash_files

ClassIndex = dict[str, dict[str, list[int]]]  # class name -> scan id as text -> slices, ascending


def class_pixels(label: Num[np.ndarray, "D H W"], n_classes: int) -> Int[np.ndarray, "K D"]:
    """Counts the pixels of every class on every slice; values that are no class are not counted."""
    depth = len(label)
    is_class = np.isin(label, np.arange(n_classes))
    classes = np.where(is_class, label, n_classes).astype(np.int64)
    cells = classes.reshape(depth, -1) * depth + np.arange(depth)[:, None]
    return np.bincount(cells.ravel(), minlength=(n_classes + 1) * depth).reshape(-1, depth)[:n_classes]


def make_class_index(
    pixels: Mapping[str, Int[np.ndarray, "K D"]], spec: DatasetSpec, min_foreground_px: int = 1
) -> ClassIndex:
    """Lists, per class and scan, the slices on which the class has at least `min_foreground_px` pixels.

    Args:
        pixels: labelled scan id -> what `class_pixels` counted.
        spec: the data set, for the classes' names.
        min_foreground_px: the least number of pixels that counts as present.
    """
    return {
        name: {scan: np.flatnonzero(counts[value] >= min_foreground_px).tolist() for scan, counts in pixels.items()}
        for value, name in enumerate(spec.class_names)
    }


def write_class_index(folder: Path, spec: DatasetSpec, min_foreground_px: int = 1) -> None:
    """Writes `classmap_<min_foreground_px>.json` for the labels of a prepared folder; scans without a label are absent.

    The manifest records the labels that it was made from.

    Raises:
        ConfigError: `min_foreground_px` is below 1.
        DataError: the folder has no scan, or a published one has no label.
        FailedItemsError: a label file is damaged or holds values that are no class; the others are in the index.

    Source: SSL-ALPNet, released code (class/slice index).
    Note: each class is counted by its own pixels; the released CHAOST2 script compares the sum of the label values.
    """
    if min_foreground_px < 1:
        raise ConfigError(f"min_foreground_px={min_foreground_px}: expected at least 1 pixel.")
    paths = scan_files(folder, "label")
    if not paths and (spec.cases or not scan_files(folder, "image")):
        raise DataError(
            f"{folder}: no label_<scan id>.nii.gz found; expected the prepared labels of {spec.name}. Run "
            f"`{prepare_command(spec)}` first, or name another folder."
        )
    failures: Failures = {}
    pixels = dict(attempt_each(partial(_read_pixels, spec=spec), paths, 1, "index", failures))
    made_from = hash_files([paths[scan] for scan in pixels], folder)
    target = folder / f"classmap_{min_foreground_px}.json"
    write_json(target, make_class_index(pixels, spec, min_foreground_px))
    manifest = Manifest.load(folder, spec.name)
    settings = {"min_foreground_px": min_foreground_px, "class_names": list(spec.class_names)}
    manifest.records[target.stem] = Record(settings, made_from, hash_files([target], folder))
    manifest.save(folder)
    raise_failures(failures, len(paths), f"{spec.name}, step index")


def _read_pixels(path: Path, spec: DatasetSpec) -> Int[np.ndarray, "K D"]:
    try:
        label = whole_values(read_nifti(path).array)
    except DataError as error:
        raise DataError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
    pixels = class_pixels(label, len(spec.class_names))
    if pixels.sum() != label.size:
        unknown = np.setdiff1d(label, np.arange(len(spec.class_names)))
        raise DataError(
            f"{path}: label values {', '.join(map(in_full, unknown[:5]))} are no class of {spec.name}; "
            f"expected integers from 0 to {len(spec.class_names) - 1}. Correct the file, or name another data set."
        )
    return pixels
