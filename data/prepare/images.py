"""Prepares a set of images for training: one size, 8 or 16 bits, a manifest; see `frugalseg prepare --help`.

Images are resized to a square, squeezed or padded (key `aspect` of the description), those of fundus cameras after
their field of view has been cut out (key `field`); masks are made binary first and then follow their image, each pixel
from the nearest one. Images are prepared again only when their raw files or the description change; an
interrupted run resumes.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from data.prepare.image_report import Row, describe_set, report_set
from data.prepare.splits import split_images
from data.sources import isic, jsrt, shenzhen
from data.sources.fundus import FUNDUS_SOURCES
from data.sources.mask_files import require_size, unite_masks
from data.sources.own_images import own_source
from data.sources.raw_images import ImageSource, RawImage, read_raw_mask
from dataloaders.description import DatasetSpec, write_description
from dataloaders.images.field_of_view import field_mask
from dataloaders.images.fingerprint import fingerprint
from dataloaders.images.folder import DESCRIPTION, FAILED, MANIFEST
from dataloaders.images.framing import Framing
from dataloaders.images.preprocess import to_depth
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
RECIPE = "2"  # to be raised when the same raw files give other pixels; then all images are prepared again


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
    rule, splits = split_images(images, split, source.split_rules, spec.name, needs_both=not spec.tasks)
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
    write_json(folder / DESCRIPTION, describe_set(spec, size, rule, rows, images[0].bits) | failed)
    report_set(spec, folder, rows, n_made, images[0].bits)
    raise_failures(failures, len(tasks), f"{spec.name}, {folder}")
    return folder


def source_for(spec: DatasetSpec) -> ImageSource:
    """How the images of a set are found and read.

    Raises:
        ConfigError: the set is not built in, and its description names no table of files.
    """
    if spec.files:
        return own_source(spec)
    if spec.name in FUNDUS_SOURCES:
        return FUNDUS_SOURCES[spec.name](spec)
    if spec.name not in IMAGE_SOURCES:
        raise ConfigError(
            f"{spec.name}: files: missing in the description; expected the name of the table of files (CSV). Write a "
            "draft with `frugalseg describe FOLDER`."
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
    raw, is_cut = task.raw, spec.grid.field != "none"
    inputs = _hash_inputs(raw.files, source.settings + (f"{raw.bits}" if source.settings else ""))
    outputs = _outputs(raw, is_cut)
    if task.earlier.get("inputs_sha256") == inputs and all((folder / file).exists() for file in outputs.values()):
        return None
    original = source.read(raw.image)
    framing = Framing.of(original, spec.grid, size_px)
    image = to_depth(framing.image_to_square(original), raw.bits)
    read = (source.read_masks or unite_masks)(raw, original.shape[:2])
    masks = {structure: framing.mask_to_square(mask) for structure, (mask, _) in read.items()}
    image, further = source.adjust(raw, image, masks) if source.adjust else (image, {})
    if spec.files:
        further = further | {"n_annotators": str(raw.n_annotators), "largest_value": str(image.max())}
    if is_cut:
        write_png(folder / outputs["field"], framing.mask_to_square(_field(raw, original)))
        further = further | {"fingerprint": _fingerprint(original, framing)}
    for structure, mask in masks.items():
        write_png(folder / outputs[f"mask_{structure}"], mask)
    write_png(folder / outputs["image"], image)
    return {
        "id": raw.id,
        **outputs,
        **framing.to_row(spec.grid),
        "image_sha256": file_sha256(folder / outputs["image"]),
        "inputs_sha256": inputs,
        **{f"n_not_binary_px_{structure}": str(count) for structure, (_, count) in read.items()},
        **{f"n_object_px_{structure}": str(np.count_nonzero(mask)) for structure, mask in masks.items()},
        **further,
    }


def _outputs(raw: RawImage, has_field: bool) -> dict[str, str]:
    """Column of the manifest -> file, relative to the prepared folder."""
    name = f"{raw.id}.png"
    masks = {f"mask_{structure}": f"masks/{structure}/{name}" for structure in raw.masks}
    return {"image": f"images/{name}", **masks, **({"field": f"fields/{name}"} if has_field else {})}


def _field(raw: RawImage, original: np.ndarray) -> np.ndarray:
    """(H, W) bool: the pixels within the field of view, of the data set's own mask where it has one."""
    if raw.field is None:
        return field_mask(original)
    mask, _ = read_raw_mask(raw.field)
    require_size(raw, raw.field, mask, original.shape[:2])
    return mask


def _fingerprint(original: np.ndarray, framing: Framing) -> str:
    """Of the box around the field of view, so that it is the same for a copy that was squeezed or padded."""
    return fingerprint(original if framing.crop is None else original[framing.crop.in_picture])


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


def _write_manifest(path: Path, rows: Sequence[Row]) -> None:
    write_text(path, csv_text(tuple(rows[0]), rows))
