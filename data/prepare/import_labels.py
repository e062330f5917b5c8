"""Takes over labels that were made with the released code of superpixel-guided learning or T-Loss: JSON to PNG.

    python -m data.prepare.import_labels NOISY_JSON --dataset isic2017 --as noise:a0.7_b0.7 --out data
    python -m data.prepare.import_labels SUPERPIXEL_JSON --dataset isic2017 --as superpixels:rgb_100_10 --out data

A label file is `<id>.json`: {class name: H lists of W numbers, each 0 or 1}. A superpixel file holds the H lists alone.
The images must have been prepared before, at the same size. A folder that exists is never overwritten.
"""

import argparse
import logging
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.catalog import dataset
from dataloaders.description import DatasetSpec
from dataloaders.images.folder import MANIFEST, ImageFolder
from dataloaders.io.png import read_image, read_mask, write_png
from util.cli import run_main
from util.errors import ConfigError, DataError
from util.files import ensure_writable, read_json, write_json, write_text
from util.results.metrics import overlap_counts, overlap_scores
from util.results.scores import csv_text

TABLE_COLUMNS = ("id", "type", "dice_to_clean")
GREATEST_ID = np.iinfo(np.uint16).max

log = logging.getLogger(__name__)


def import_noise(source: Path, folder: ImageFolder, structure: str, name: str, class_name: str | None = None) -> Path:
    """Imports noisy masks of the training images as `noisy/<structure>/<name>`; returns that folder.

    `noise.csv` calls a mask that equals the expert's "clean", all others "imported".

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
    masks = _read_all(source, folder, target, partial(_mask_of, class_name=class_name or structure))
    table = []
    for image_id, mask in masks.items():
        clean = read_mask(folder.mask_path(image_id, structure))
        dice = overlap_scores(overlap_counts(mask, clean)).dice if mask.any() or clean.any() else 1.0
        table.append({"id": image_id, "type": "clean" if dice == 1 else "imported", "dice_to_clean": dice})
    return _write_all(target, masks, source, "noise", csv_text(TABLE_COLUMNS, table))


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
    return _write_all(target, _read_all(source, folder, target, _ids_of), source, "superpixels")


def _read_all(
    source: Path, folder: ImageFolder, target: Path, interpret: Callable[[Path, Any], np.ndarray]
) -> dict[str, np.ndarray]:
    """Id -> array of every training image, checked; nothing is written before all are sound."""
    if target.exists():
        raise DataError(f"{target}: exists already; imported labels overwrite nothing. Move it away, or name another.")
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
            f"{source}: no {missing[0]}.json ({len(missing)} of {len(wanted)} training images lack theirs). Prepare "
            "the images with the split that the labels were made for: `python -m data.prepare ... --split FILE.csv`."
        )
    if len(files) > len(wanted):
        log.warning("%s: %d files of images not for training are passed over", source, len(files) - len(wanted))
    return {image_id: _read_one(files[image_id], folder.image_path(image_id), interpret) for image_id in wanted}


def _read_one(path: Path, image: Path, interpret: Callable[[Path, Any], np.ndarray]) -> np.ndarray:
    array = interpret(path, read_json(path))
    expected = read_image(image).shape[:2]
    if array.shape != expected:
        raise DataError(
            f"{path}: shape {array.shape}; expected {expected} (rows, columns) as {image.name}. Prepare the images at "
            "the labels' size: `python -m data.prepare ... --size-px N`, and name it here too."
        )
    return array


def _mask_of(path: Path, content: Any, class_name: str) -> np.ndarray:
    if not isinstance(content, dict) or class_name not in content:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise DataError(f"{path}: {found}; expected the class {class_name!r}. Name the class with --class-name.")
    values = _numbers(path, content[class_name])
    if not np.isin(values, (0, 1)).all():
        raise DataError(f"{path}: values up to {values.max()}; expected only 0 and 1. Export the label again.")
    return values.astype(bool)


def _ids_of(path: Path, content: Any) -> np.ndarray:
    values = _numbers(path, content)
    if values.min() < 0 or values.max() > GREATEST_ID:
        raise DataError(
            f"{path}: ids from {values.min()} to {values.max()}; expected 0 to {GREATEST_ID}. Number them anew."
        )
    return values.astype(np.uint16)


def _numbers(path: Path, content: Any) -> np.ndarray:
    try:
        values = np.array(content)
    except ValueError:  # lines of unequal length
        values = np.array(None)
    if values.ndim != 2 or not values.size or values.dtype.kind not in "iuf" or (values % 1).any():
        raise DataError(
            f"{path}: not H lists of W whole numbers. Export the file again, or choose the right --as and --class-name."
        )
    return values


def _write_all(target: Path, arrays: dict[str, np.ndarray], source: Path, kind: str, table: str | None = None) -> Path:
    """Writes everything beside the target first: the folder is there whole, or not at all."""
    temporary = Path(tempfile.mkdtemp(dir=ensure_writable(target.parent), prefix=f".importing-{target.name}-"))
    try:
        for image_id, array in arrays.items():
            write_png(temporary / f"{image_id}.png", array)
        if table is not None:
            write_text(temporary / f"{kind}.csv", table)
        record = {"imported_from": source.name, "n_images": len(arrays), "versions": {"numpy": version("numpy")}}
        write_json(temporary / f"{kind}.json", record)
        temporary.chmod(0o755)
        temporary.rename(target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    log.info("%s: %d labels imported", target, len(arrays))
    return target


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and imports."""
    given = _parser().parse_args(arguments)
    spec = dataset(given.dataset, "images")
    kind, _, name = given.target.partition(":")
    if kind not in ("noise", "superpixels") or not re.fullmatch(r"\w[\w.+-]*", name):
        raise ConfigError(f"--as {given.target}: expected noise:NAME or superpixels:NAME, such as noise:a0.7_b0.7.")
    folder = ImageFolder(given.out / spec.prepared_folder(given.size_px), spec)
    if kind == "noise":
        import_noise(given.source, folder, _structure(spec, given.structure), name, given.class_name)
    else:
        import_superpixels(given.source, folder, name)


def _structure(spec: DatasetSpec, name: str | None) -> str:
    """The structure named; the only one of the set where none is."""
    if name is None and len(spec.classes) > 1:
        choices = ", ".join(structure.name for structure in spec.classes)
        raise ConfigError(f"--structure: missing; expected one of {choices}.")
    return name or next(structure.name for structure in spec.classes)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data.prepare.import_labels",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("source", type=Path, metavar="FOLDER", help="folder of <id>.json")
    add("--dataset", required=True, help="isic2017, jsrt or shenzhen")
    add("--as", dest="target", required=True, metavar="KIND:NAME", help="noise:NAME or superpixels:NAME")
    add("--structure", help="of noisy masks, such as lung (default: the only one of the set)")
    add("--class-name", help="key of the structure in the files (default: its name)")
    add("--out", type=Path, default=Path("data"), help="data root (default: data)")
    add("--size-px", type=int, help="side of the prepared images (default: the data set's)")
    return parser


if __name__ == "__main__":
    run_main(main)
