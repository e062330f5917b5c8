"""Prepares a set of images for training: one size, 8 or 16 bits, a manifest; see `python -m data.prepare --help`.

Images are resized to a square, squeezed or padded (key `aspect` of the description); masks are made binary first and
then resized to the nearest pixel. Images are prepared again only when their raw files or the description change; an
interrupted run resumes.
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

from data.prepare.splits import SEED, split_images
from data.sources import isic, jsrt, shenzhen
from data.sources.own_images import own_source
from data.sources.raw_images import ImageSource, Masks, RawImage, read_raw_mask
from dataloaders.description import DatasetSpec, write_description
from dataloaders.images.folder import DESCRIPTION, FAILED, MANIFEST
from dataloaders.images.geometry import Placement, place_image, resize_nearest
from dataloaders.images.preprocess import to_depth
from dataloaders.io import pictures
from dataloaders.io.png import write_png
from dataloaders.samples import ORIGIN
from util.csv_files import read_csv
from util.errors import ConfigError, DataError
from util.files import ensure_writable, file_sha256, write_json, write_text
from util.items import Failures, attempt_each, raise_failures
from util.records import hash_files
from util.results.scores import csv_text

IMAGE_SOURCES = {"ISIC2017": isic.SOURCE, "JSRT": jsrt.SOURCE, "SHENZHEN": shenzhen.SOURCE}
UNFINISHED = "manifest.unfinished.csv"  # of the run in progress, or of one that was stopped
NOTE_EVERY = 50  # images; the manifest of the unfinished run is then written
WARN_BELOW = 2**14  # largest value of images of 16 bits
RECIPE = "2"  # to be raised when the same raw files give other pixels; then all images are prepared again

log = logging.getLogger(__name__)
Row = dict[str, str]


@dataclass(frozen=True)
class ImageJob:
    """One image, and its line of an earlier manifest; empty where there is none."""

    raw: RawImage
    earlier: Row


def prepare_images(
    spec: DatasetSpec, raw: Path, root: Path, size_px: int | None = None, split: str | None = None, jobs: int = 1
) -> Path:
    """Writes images, masks, manifest and descriptions of a set below the data root; returns the folder.

    Args:
        spec: the set.
        raw: folder of the download; of own data, the table of files.
        root: data root.
        size_px: rows and columns of the prepared images; None: those of the set.
        split: a rule of the set, `random:FRACTION` or a CSV file; None: the set's first rule, of own data the column
            `split` or, where it is empty, the rule of the description.
        jobs: processes.

    Raises:
        ConfigError: an unknown set, or a size or a split rule that does not exist.
        DataError: there are no raw files, or two of one image.
        FailedItemsError: raw files of some images are missing, damaged or do not fit each other; the message names
            them. All others are prepared. `dataset.json` names the failed ones, and the check refuses the folder.
    """
    size = spec.grid.size_px if size_px is None else size_px
    if size < 16:
        raise ConfigError(f"--size-px {size}: expected 16 or more.")
    source = source_for(spec)
    images = source.find(raw)
    if spec.files and split is None:
        split = "table" if any(image.part for image in images) else "fractions"
    rule, splits = split_images(images, split, source.split_rules, spec.name)
    folder = ensure_writable(root / spec.prepared_folder(size))
    earlier = _earlier_rows(folder)
    tasks = {image.id: ImageJob(image, earlier.get(image.id, {})) for image in images}
    assignments = _assignments(images, splits)
    failures: Failures = {}
    rows: list[Row] = []
    n_made = 0
    work = partial(_prepare, spec=spec, source=source, folder=folder, size_px=size)
    for image_id, made in attempt_each(work, tasks, jobs, "prepare", failures, lambda task: task.raw.image):
        rows.append(assignments[image_id] | (made or tasks[image_id].earlier))
        n_made += made is not None
        if made and not n_made % NOTE_EVERY:
            _write_manifest(folder / UNFINISHED, rows)
    if not rows:
        raise_failures(failures, len(tasks), f"{spec.name}, {folder}")
    _write_manifest(folder / MANIFEST, rows)
    (folder / UNFINISHED).unlink(missing_ok=True)
    write_description(folder, spec)
    failed = {FAILED: failures} if failures else {}
    write_json(folder / DESCRIPTION, _description(spec, size, rule, rows, images[0].bits) | failed)
    _report(spec, folder, rows, n_made, images[0].bits)
    raise_failures(failures, len(tasks), f"{spec.name}, {folder}")
    return folder


def source_for(spec: DatasetSpec) -> ImageSource:
    """How the images of a set are found and read.

    Raises:
        ConfigError: the set is not built in, and its description names no table of files.
    """
    if spec.files:
        return own_source(spec)
    if spec.name not in IMAGE_SOURCES:
        raise ConfigError(
            f"{spec.name}: files: missing in the description; expected the name of the table of files (CSV). Write a "
            "draft with `python -m data.describe FOLDER`."
        )
    return IMAGE_SOURCES[spec.name]


def _assignments(images: Sequence[RawImage], splits: dict[str, str]) -> dict[str, Row]:
    """Id -> the cells that change without preparing the image again."""
    known = [name for name in ORIGIN if any(getattr(raw.origin, name) for raw in images)]
    return {
        raw.id: {"id": raw.id, "split": splits[raw.id]} | {name: getattr(raw.origin, name) for name in known}
        for raw in images
    }


def _earlier_rows(folder: Path) -> dict[str, Row]:
    """Id -> line without split and origin, of earlier runs; lines of an interrupted run are newer.

    Those whose image has changed since are left out, so that it is prepared again.
    """
    files = [file for file in (folder / MANIFEST, folder / UNFINISHED) if file.exists()]
    rows = [row for file in files for row in read_csv(file, ("id",))]
    now = hash_files([folder / "images" / f"{row['id']}.png" for row in rows], folder)
    rows = [row for row in rows if row.get("image_sha256") == now.get(f"images/{row['id']}.png")]
    return {row["id"]: {key: cell for key, cell in row.items() if key not in ("split", *ORIGIN)} for row in rows}


def _prepare(task: ImageJob, spec: DatasetSpec, source: ImageSource, folder: Path, size_px: int) -> Row | None:
    """Writes one image with its masks; returns its line without split and origin, or None if it is up to date."""
    raw, name = task.raw, f"{task.raw.id}.png"
    inputs = _hash_inputs(raw.files, source.settings + (f"{raw.bits}" if source.settings else ""))
    outputs = {"image": f"images/{name}"} | {f"mask_{key}": f"masks/{key}/{name}" for key in raw.masks}
    if task.earlier.get("inputs_sha256") == inputs and all((folder / file).exists() for file in outputs.values()):
        return None
    original = source.read(raw.image)
    height, width = original.shape[:2]
    placement = Placement.fit(height, width, size_px, spec.grid.aspect)
    image = to_depth(place_image(original, placement), raw.bits)
    read = source.read_masks(raw, (height, width)) if source.read_masks else _unite_all(raw, (height, width))
    masks = {
        structure: placement.pad(resize_nearest(mask, placement.height_px, placement.width_px))
        for structure, (mask, _) in read.items()
    }
    image, further = source.adjust(raw, image, masks) if source.adjust else (image, {})
    if spec.files:
        further = further | {"n_annotators": str(raw.n_annotators), "largest_value": str(image.max())}
    for structure, mask in masks.items():
        write_png(folder / outputs[f"mask_{structure}"], mask)
    write_png(folder / outputs["image"], image)
    return {
        "id": raw.id,
        **outputs,
        "original_height_px": str(height),
        "original_width_px": str(width),
        **(placement.to_row() if spec.grid.aspect == "pad" else {}),
        "image_sha256": file_sha256(folder / outputs["image"]),
        "inputs_sha256": inputs,
        **{f"n_not_binary_px_{structure}": str(count) for structure, (_, count) in read.items()},
        **{f"n_object_px_{structure}": str(np.count_nonzero(mask)) for structure, mask in masks.items()},
        **further,
    }


def _hash_inputs(files: Sequence[Path], settings: str) -> str:
    """One hash over the recipe, the settings and all files' content, in their order.

    Raises:
        DataError: a file cannot be read.
    """
    try:
        parts = [RECIPE, *([settings] if settings else []), *map(file_sha256, files)]
        return hashlib.sha256(" ".join(parts).encode()).hexdigest()
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}). Unpack the download again.") from error


def _unite_all(raw: RawImage, shape: tuple[int, int]) -> Masks:
    return {structure: _unite(raw, files, shape) for structure, files in raw.masks.items()}


def _unite(raw: RawImage, files: Sequence[Path], shape: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """The union of the masks, (H, W) bool, and their number of pixels that were not binary.

    Raises:
        DataError: a mask has another size than its image.
    """
    read = [read_raw_mask(file) for file in files]
    parts = [(_turn_as(raw, mask, shape), count) for mask, count in read]
    for file, (mask, _) in zip(files, parts, strict=True):
        fits = any(tuple(scale * length for length in mask.shape) == tuple(shape) for scale in raw.mask_scales)
        if not fits or mask.shape != parts[0][0].shape:
            ratio = " or ".join("the same" if scale == 1 else f"1/{scale} of that" for scale in raw.mask_scales)
            raise DataError(
                f"{file}: {mask.shape[0]} x {mask.shape[1]} pixels (rows x columns), but {raw.image.name} has "
                f"{shape[0]} x {shape[1]}{pictures.turned_note(raw.image)}; expected {ratio}. Unpack both files again."
            )
    return np.any([mask for mask, _ in parts], axis=0), sum(count for _, count in parts)


def _turn_as(raw: RawImage, mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The mask on the grid of the upright image where it was drawn on the image as stored."""
    scaled = [tuple(length // scale for length in shape) for scale in raw.mask_scales]
    return pictures.fit_to_picture(mask, next((each for each in scaled if each == mask.shape[::-1]), shape), raw.image)


def _write_manifest(path: Path, rows: Sequence[Row]) -> None:
    write_text(path, csv_text(tuple(rows[0]), rows))


def _description(spec: DatasetSpec, size_px: int, rule: str, rows: Sequence[Row], bits: int) -> dict[str, Any]:
    names = [structure.name for structure in spec.classes]
    seed = spec.split.seed if rule == "fractions" else SEED
    packages = ("numpy", "pillow", *(("opencv-python",) if spec.files else ()))
    return {
        "dataset": spec.name,
        "size_px": size_px,
        "channels": spec.channels,
        "structures": names,
        **({"bits": bits, "aspect": spec.grid.aspect} if spec.files else {}),
        "split": {"rule": rule, "seed": seed, **{f"n_{key}": n for key, n in sorted(_count(rows).items())}},
        "n_empty": {name: len(_empty(rows, name)) for name in names},
        "n_not_binary": {name: len(_not_binary(rows, name)) for name in names},
        **({"n_inverted": sum(row["is_inverted"] == "1" for row in rows)} if "is_inverted" in rows[0] else {}),
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
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


def _report(spec: DatasetSpec, folder: Path, rows: Sequence[Row], n_made: int, bits: int) -> None:
    """Logs what was prepared, and what is unusual about it."""
    counts = _count(rows)
    log.info("%s: %d images prepared, %d already up to date: %s", spec.name, n_made, len(rows) - n_made, folder)
    if {key: counts[key] for key in spec.published} != spec.published:
        found, published = (", ".join(f"{n[key]} {key}" for key in spec.published) for n in (counts, spec.published))
        log.warning("%s: %s images; published: %s", spec.name, found, published)
    for name in (structure.name for structure in spec.classes):
        grey, empty = _not_binary(rows, name), _empty(rows, name)
        if grey:
            text = "%s %s: %d masks with grey pixels, %d in all; those above half of the range are object: %s"
            log.warning(text, spec.name, name, len(grey), sum(grey.values()), _first_ids(list(grey)))
        if empty:
            log.warning("%s %s: %d empty masks, kept: %s", spec.name, name, len(empty), _first_ids(empty))
    largest = max(int(row.get("largest_value", WARN_BELOW)) for row in rows)
    if bits == 16 and largest < WARN_BELOW:
        text = "%s: the largest value is %d of 65535. To use the whole range: intensity: {window: [0, %d]}"
        log.warning(text, spec.name, largest, largest)
    polarities = Counter(row.get("is_inverted") for row in rows)
    if len(polarities) > 1:
        rare = min(polarities, key=lambda key: polarities[key])
        odd = [row["id"] for row in rows if row.get("is_inverted") == rare]
        log.warning("%s: %d images had another polarity than the rest: %s", spec.name, len(odd), _first_ids(odd))


def _count(rows: Sequence[Row]) -> Counter[str]:
    return Counter(row["split"] for row in rows)


def _not_binary(rows: Sequence[Row], structure: str) -> dict[str, int]:
    """Id -> number of grey pixels, of the masks that were not binary."""
    counts = {row["id"]: int(row[f"n_not_binary_px_{structure}"]) for row in rows}
    return {id_: count for id_, count in counts.items() if count}


def _empty(rows: Sequence[Row], structure: str) -> list[str]:
    return [row["id"] for row in rows if row[f"n_object_px_{structure}"] == "0"]


def _first_ids(ids: Sequence[str]) -> str:
    return ", ".join(ids[:5]) + (" ..." if len(ids) > 5 else "")
