"""Imports labels of the released code of superpixel-guided learning or T-Loss: JSON to PNG.

    frugalseg noise isic2017 --import-json FOLDER --name a0.7_b0.7
    frugalseg superpixels isic2017 --import-json FOLDER --name rgb_100_10

A label file is `<id>.json`: {class name: H lists of W numbers, each 0 or 1}. A superpixel file holds the H lists alone.
The images must have been prepared at the same size. An existing folder is never overwritten.
"""

import logging
import re
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.images.derived import IMPORTED
from dataloaders.images.folder import MANIFEST, ImageFolder
from dataloaders.io.png import read_image, read_mask, write_png
from util.errors import ConfigError, DataError
from util.files import ensure_writable, read_json, write_json, write_text
from util.records import Record, hash_files
from util.results.metrics import overlap_counts, overlap_scores
from util.results.scores import csv_text

TABLE_COLUMNS = ("id", "type", "dice_to_clean")
GREATEST_ID = np.iinfo(np.uint16).max

log = logging.getLogger(__name__)


def import_noise(source: Path, folder: ImageFolder, structure: str, name: str, class_name: str | None = None) -> Path:
    """Imports noisy masks of the training images as `noisy/<structure>/<name>`; returns that folder.

    In `noise.csv`, masks equal to the expert's are "clean", all others "imported".

    Args:
        source: folder of `<id>.json`.
        folder: the prepared images.
        structure: whose masks.
        name: as `NoiseConfig.name` has it, such as a0.7_b0.7.
        class_name: key in the files; None: the structure's name.

    Raises:
        ConfigError: no such structure.
        DataError: the folder exists, an id is unknown or missing, or a file has another size or other values.
    """
    target = folder.folder / "noisy" / folder.spec.structure(structure).name / name
    masks = _read_all(source, folder, target, partial(_parse_mask, class_name=class_name or structure))
    table = []
    for image_id, mask in masks.items():
        clean = read_mask(folder.mask_path(image_id, structure))
        dice = overlap_scores(overlap_counts(mask, clean)).dice if mask.any() or clean.any() else 1.0
        table.append({"id": image_id, "type": "clean" if dice == 1 else "imported", "dice_to_clean": dice})
    inputs = [folder.mask_path(image_id, structure) for image_id in masks]
    return _write_all(target, masks, source, "noise", hash_files(inputs, folder.folder), csv_text(TABLE_COLUMNS, table))


def import_superpixels(source: Path, folder: ImageFolder, name: str) -> Path:
    """Imports superpixels of the training images as `superpixels/<name>`; returns that folder.

    Args:
        source: folder of `<id>.json`.
        folder: the prepared images.
        name: as `SuperpixelConfig.folder_name` has it, such as rgb_100_10.

    Raises:
        DataError: as `import_noise`.
    """
    target = folder.folder / "superpixels" / name
    ids = _read_all(source, folder, target, _parse_ids)
    inputs = [folder.image_path(image_id) for image_id in ids]
    return _write_all(target, ids, source, "superpixels", hash_files(inputs, folder.folder))


def _read_all(
    source: Path, folder: ImageFolder, target: Path, interpret: Callable[[Path, Any], np.ndarray]
) -> dict[str, np.ndarray]:
    """Id -> array of every training image; all are checked before anything is written."""
    if target.exists():
        raise DataError(
            f"{target}: exists already; imported labels never overwrite. Move it away, or choose another --name."
        )
    files = {path.stem: path for path in sorted(source.glob("*.json"))}
    known, wanted = {row["id"] for row in folder.rows}, folder.ids("train")
    unknown, missing = sorted(set(files) - known), sorted(set(wanted) - set(files))
    if unknown:
        raise DataError(
            f"{files[unknown[0]]}: {folder.folder / MANIFEST} has no image {unknown[0]} ({len(unknown)} such files). "
            "Name the data set that the files belong to, and prepare all of its images."
        )
    if missing:
        raise DataError(
            f"{source}: no {missing[0]}.json (missing for {len(missing)} of {len(wanted)} training images). Prepare "
            "the images with the split that the labels were made for: `frugalseg prepare ... --split FILE.csv`."
        )
    if len(files) > len(wanted):
        log.warning("%s: %d files of images that are not for training are skipped", source, len(files) - len(wanted))
    return {image_id: _read_one(files[image_id], folder.image_path(image_id), interpret) for image_id in wanted}


def _read_one(path: Path, image: Path, interpret: Callable[[Path, Any], np.ndarray]) -> np.ndarray:
    array = interpret(path, read_json(path))
    expected = read_image(image).shape[:2]
    if array.shape != expected:
        raise DataError(
            f"{path}: shape {array.shape}; expected {expected} (rows, columns) as {image.name}. Prepare the images at "
            "the labels' size: `frugalseg prepare ... --size-px N`, and repeat --size-px here."
        )
    return array


def _parse_mask(path: Path, content: Any, class_name: str) -> np.ndarray:
    if not isinstance(content, dict) or class_name not in content:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise DataError(f"{path}: {found}; expected the class {class_name!r}. Name the class with --class-name.")
    values = _parse_numbers(path, content[class_name])
    if not np.isin(values, (0, 1)).all():
        raise DataError(f"{path}: values up to {values.max()}; expected only 0 and 1. Export the label again.")
    return values.astype(bool)


def _parse_ids(path: Path, content: Any) -> np.ndarray:
    values = _parse_numbers(path, content)
    if values.min() < 0 or values.max() > GREATEST_ID:
        raise DataError(
            f"{path}: ids from {values.min()} to {values.max()}; expected 0 to {GREATEST_ID}. Renumber them."
        )
    return values.astype(np.uint16)


def _parse_numbers(path: Path, content: Any) -> np.ndarray:
    try:
        values = np.array(content)
    except ValueError:  # lines of unequal length
        values = np.array(None)
    if values.ndim != 2 or not values.size or values.dtype.kind not in "iuf" or (values % 1).any():
        raise DataError(f"{path}: not H lists of W whole numbers. Export the file again, or correct --class-name.")
    return values


def _write_all(
    target: Path,
    arrays: dict[str, np.ndarray],
    source: Path,
    kind: str,
    made_from: dict[str, str],
    table: str | None = None,
) -> Path:
    """Writes to a temporary folder next to the target and renames it: the import is atomic."""
    temporary = Path(tempfile.mkdtemp(dir=ensure_writable(target.parent), prefix=f".importing-{target.name}-"))
    try:
        for image_id, array in arrays.items():
            write_png(temporary / f"{image_id}.png", array)
        if table is not None:
            write_text(temporary / f"{kind}.csv", table)
        facts = {"n_images": len(arrays), "versions": {"numpy": version("numpy")}}
        record = Record({IMPORTED: source.name}, made_from, facts=facts)
        write_json(temporary / f"{kind}.json", record.to_json())
        temporary.chmod(0o755)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    log.info("%s: %d labels imported", target, len(arrays))
    return target


def require_name(name: str | None, example: str) -> str:
    """Checks the folder name of imported labels.

    Raises:
        ConfigError: missing, or not the name of a folder.
    """
    if name is None or not re.fullmatch(r"\w[\w.+-]*", name):
        raise ConfigError(f"--name {name}: expected the folder name of the imported labels, such as {example}.")
    return name
