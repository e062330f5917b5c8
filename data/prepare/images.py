"""From the raw download of a set of images to the folder that training reads: one size, 8 bits, a manifest.

    python -m data.prepare isic2017 --raw DOWNLOAD --out data [--size-px 256] [--split random:0.25] [--jobs 4]

Images are resized straight to a square, bilinearly (every raw pixel counts); masks are made binary first and then take
the nearest pixel. Images whose raw files have not changed are not made again; a stopped run goes on where it was.
"""

import hashlib
import logging
import platform
import subprocess
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.prepare.splits import SEED, split_images
from data.sources import isic, jsrt, shenzhen
from data.sources.raw_images import RawImage, read_raw_mask
from dataloaders.description import DatasetSpec
from dataloaders.images.folder import DESCRIPTION, MANIFEST, read_csv
from dataloaders.io.png import write_png
from util.cli import parallel_map
from util.errors import ConfigError, DataError
from util.files import ensure_writable, file_sha256, write_json, write_text
from util.results.scores import csv_text

SOURCES = {"ISIC2017": isic.SOURCE, "JSRT": jsrt.SOURCE, "SHENZHEN": shenzhen.SOURCE}
UNFINISHED = "manifest.unfinished.csv"  # of the run in progress, or of one that was stopped
NOTE_EVERY = 50  # images
RECIPE = "1"  # raise it when the same raw files would give other pixels: then all images are made again

log = logging.getLogger(__name__)
Row = dict[str, str]


@dataclass(frozen=True)
class Task:
    """One image on its way, and its line of an earlier manifest; empty where there is none."""

    raw: RawImage
    earlier: Row


def prepare_images(
    spec: DatasetSpec, raw: Path, root: Path, size_px: int | None = None, split: str | None = None, jobs: int = 1
) -> Path:
    """Writes images, masks, `manifest.csv` and `dataset.json` of a set below the data root; returns the folder.

    Args:
        spec: the set.
        raw: folder of the download.
        root: data root.
        size_px: rows and columns of the prepared images; None: those of the set.
        split: a rule of the set, `random:SHARE` or a CSV file; None: the set's first rule.
        jobs: processes.

    Raises:
        ConfigError: a size or a split rule that does not exist.
        DataError: raw files are missing, damaged or do not fit each other; the message names the file.
    """
    size = size_px or spec.grid.size_px
    if size < 16:
        raise ConfigError(f"--size-px {size}: expected 16 or more.")
    images = SOURCES[spec.name].find(raw)
    rule, splits = split_images(images, split, SOURCES[spec.name].split_rules, spec.name)
    folder = ensure_writable(root / spec.prepared_folder(size))
    earlier = _earlier_rows(folder)
    tasks = [Task(image, earlier.get(image.id, {})) for image in images]
    rows: list[Row] = []
    n_made = 0
    work = partial(_prepare, spec=spec, folder=folder, size_px=size)
    for task, made in zip(tasks, parallel_map(work, tasks, jobs, "prepare"), strict=True):
        rows.append({"id": task.raw.id, "split": splits[task.raw.id], **(made or task.earlier)})
        n_made += made is not None
        if made and not n_made % NOTE_EVERY:
            _write_manifest(folder / UNFINISHED, rows)
    _write_manifest(folder / MANIFEST, rows)
    (folder / UNFINISHED).unlink(missing_ok=True)
    write_json(folder / DESCRIPTION, _description(spec, size, rule, rows))
    _report(spec, folder, rows, n_made)
    return folder


def _earlier_rows(folder: Path) -> dict[str, Row]:
    """Id -> line without the split, of earlier runs; those of a stopped run are the newer ones."""
    files = [file for file in (folder / MANIFEST, folder / UNFINISHED) if file.exists()]
    rows = [row for file in files for row in read_csv(file, ("id",))]
    return {row["id"]: {key: cell for key, cell in row.items() if key != "split"} for row in rows}


def _prepare(task: Task, spec: DatasetSpec, folder: Path, size_px: int) -> Row | None:
    """Writes one image with its masks and returns its line, without the split; None if all was done before."""
    raw, name = task.raw, f"{task.raw.id}.png"
    inputs = _hash_of(raw.files)
    outputs = {"image": f"images/{name}"} | {f"mask_{key}": f"masks/{key}/{name}" for key in raw.masks}
    if task.earlier.get("inputs_sha256") == inputs and all((folder / file).exists() for file in outputs.values()):
        return None
    source = SOURCES[spec.name]
    original = source.read(raw.image)
    image = resize_image(original, size_px)
    read = {structure: _union(raw, files, original.shape[:2]) for structure, files in raw.masks.items()}
    masks = {structure: resize_mask(mask, size_px) for structure, (mask, _) in read.items()}
    image, further = source.adjust(raw, image, masks) if source.adjust else (image, {})
    for structure, mask in masks.items():
        write_png(folder / outputs[f"mask_{structure}"], mask)
    write_png(folder / outputs["image"], image)
    return {
        "id": raw.id,
        **outputs,
        "original_height_px": str(original.shape[0]),
        "original_width_px": str(original.shape[1]),
        "image_sha256": file_sha256(folder / outputs["image"]),
        "inputs_sha256": inputs,
        **{f"n_not_binary_px_{structure}": str(count) for structure, (_, count) in read.items()},
        **{f"n_object_px_{structure}": str(np.count_nonzero(mask)) for structure, mask in masks.items()},
        **further,
    }


def _hash_of(files: Sequence[Path]) -> str:
    """One hash over the recipe and all files' content, in their order.

    Raises:
        DataError: a file cannot be read.
    """
    try:
        return hashlib.sha256(" ".join([RECIPE, *map(file_sha256, files)]).encode()).hexdigest()
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}). Unpack the download again.") from error


def _union(raw: RawImage, files: Sequence[Path], shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """What any of the files marks, (H, W) bool, and their number of pixels that were not binary.

    Raises:
        DataError: a mask does not lie on the grid of its image.
    """
    parts = [read_raw_mask(file) for file in files]
    for file, (mask, _) in zip(files, parts, strict=True):
        fits = any(tuple(scale * length for length in mask.shape) == tuple(shape) for scale in raw.mask_scales)
        if not fits or mask.shape != parts[0][0].shape:
            ratio = " or ".join("the same" if scale == 1 else f"1/{scale} of that" for scale in raw.mask_scales)
            raise DataError(
                f"{file}: {mask.shape[0]} x {mask.shape[1]} pixels (rows x columns), but {raw.image.name} has "
                f"{shape[0]} x {shape[1]}; expected {ratio}. Unpack both files again."
            )
    return np.any([mask for mask, _ in parts], axis=0), sum(count for _, count in parts)


def resize_image(image: np.ndarray, size_px: int) -> np.ndarray:
    """(H, W) or (H, W, 3), values 0 to 255, to a square uint8 image, whatever the aspect.

    Source: superpixel-guided learning and T-Loss, released code. Note: shrinking averages over all pixels (pillow's
        bilinear filter); it does not pick four of them.
    """
    resized = Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR)
    return np.clip(np.rint(np.asarray(resized)), 0, 255).astype(np.uint8)


def resize_mask(mask: np.ndarray, size_px: int) -> np.ndarray:
    """(H, W) bool to a square, by the nearest pixel."""
    grey = Image.fromarray(mask.astype(np.uint8)).resize((size_px, size_px), Image.Resampling.NEAREST)
    return np.asarray(grey) > 0


def _write_manifest(path: Path, rows: Sequence[Row]) -> None:
    write_text(path, csv_text(tuple(rows[0]), rows))


def _description(spec: DatasetSpec, size_px: int, rule: str, rows: Sequence[Row]) -> dict[str, Any]:
    names = [structure.name for structure in spec.classes]
    return {
        "dataset": spec.name,
        "size_px": size_px,
        "channels": spec.channels,
        "structures": names,
        "split": {"rule": rule, "seed": SEED, **{f"n_{key}": n for key, n in sorted(_count(rows).items())}},
        "n_empty": {name: len(_empty(rows, name)) for name in names},
        "n_not_binary": {name: len(_not_binary(rows, name)) for name in names},
        **({"n_inverted": sum(row["is_inverted"] == "1" for row in rows)} if "is_inverted" in rows[0] else {}),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in ("numpy", "pillow")},
        "revision": _revision(),
    }


def _revision() -> str | None:
    """The commit of the code that runs; None outside a checkout."""
    command = ["git", "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return None
    return done.stdout.strip() or None


def _report(spec: DatasetSpec, folder: Path, rows: Sequence[Row], n_made: int) -> None:
    """Says what was done, and what the user should know about it."""
    counts = _count(rows)
    log.info("%s: %d images prepared, %d were ready: %s", spec.name, n_made, len(rows) - n_made, folder)
    if {key: counts[key] for key in spec.published} != spec.published:
        found, published = (", ".join(f"{n[key]} {key}" for key in spec.published) for n in (counts, spec.published))
        log.warning("%s: %s images; published: %s", spec.name, found, published)
    for name in (structure.name for structure in spec.classes):
        grey, empty = _not_binary(rows, name), _empty(rows, name)
        if grey:
            text = "%s %s: %d masks held greys, %d pixels in all; above 127 they are object now: %s"
            log.warning(text, spec.name, name, len(grey), sum(grey.values()), _some(list(grey)))
        if empty:
            log.warning("%s %s: %d empty masks, kept: %s", spec.name, name, len(empty), _some(empty))
    polarities = Counter(row.get("is_inverted") for row in rows)
    if len(polarities) > 1:
        rare = min(polarities, key=lambda key: polarities[key])
        odd = [row["id"] for row in rows if row.get("is_inverted") == rare]
        log.warning("%s: %d images had another polarity than the rest: %s", spec.name, len(odd), _some(odd))


def _count(rows: Sequence[Row]) -> Counter[str]:
    return Counter(row["split"] for row in rows)


def _not_binary(rows: Sequence[Row], structure: str) -> dict[str, int]:
    """Id -> number of grey pixels, of the masks that were not binary."""
    counts = {row["id"]: int(row[f"n_not_binary_px_{structure}"]) for row in rows}
    return {id_: count for id_, count in counts.items() if count}


def _empty(rows: Sequence[Row], structure: str) -> list[str]:
    return [row["id"] for row in rows if row[f"n_object_px_{structure}"] == "0"]


def _some(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (" ..." if len(ids) > 5 else "")
