"""Facts about each file that the check needs: read once, then cached until the file changes."""

import json
import logging
import os
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from data.prepare.class_index import class_pixels
from data.superpixels.regions import SCALES, Supervoxels
from dataloaders.description import DatasetSpec
from dataloaders.io.geometry import Grid
from dataloaders.io.nifti import read_nifti, voxel_hash
from dataloaders.samples import Volume
from dataloaders.scans.labels import whole_values
from util.errors import DataError, UserError
from util.files import read_json_object, write_text
from util.items import Failures, catching
from util.records import hash_files

CACHE_NAME = ".check-cache.json"
CACHE_FORMAT = 2  # increase when the facts change their meaning

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read, and the reason."""

    reason: str


@dataclass(frozen=True)
class Readable:
    """A volume's shape (D, H, W) and the rows of its affine."""

    shape: list[int]
    affine: list[list[float]]

    @property
    def grid(self) -> Grid:
        """The grid of the voxels."""
        return Grid.from_json({"shape": self.shape, "affine": self.affine})

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along (z, y, x)."""
        return self.grid.spacing_mm


@dataclass(frozen=True)
class ImageFacts(Readable):
    """An image's range, flaws and identity."""

    minimum: float
    maximum: float
    n_not_finite: int
    sha256: str  # of the voxels


@dataclass(frozen=True)
class LabelFacts(Readable):
    """A label map's pixels per class and slice (K, D), and up to five values that are no class."""

    pixels: list[list[int]]
    unknown: list[float]


@dataclass(frozen=True)
class SuperpixelFacts(Readable):
    """A superpixel map's ids: how many, whether whole and not negative, whether 1..K without gaps."""

    n_ids: int
    is_integer: bool
    is_consecutive: bool


Facts = ImageFacts | LabelFacts | SuperpixelFacts | Unreadable
KINDS = {kind.__name__: kind for kind in (ImageFacts, LabelFacts, SuperpixelFacts, Unreadable)}


def read_facts(paths: Collection[Path], folder: Path, spec: DatasetSpec, jobs: int) -> dict[str, Facts]:
    """Reads the files that are new or changed, `jobs` at a time; those of the others come from the cache.

    The cache is `.check-cache.json` in the folder, by the files' content (see `util.records.hash_files`); of a folder
    that cannot be written to, all files are read each time.

    Args:
        paths: files named image_*, label_* or superpix-*, all in `folder`.
        folder: prepared folder.
        spec: the data set.
        jobs: threads (reading and hashing release the interpreter's lock).
    """
    unreadable = {path.name: reason for path in paths if (reason := _why_unreadable(path))}
    hashes = hash_files([path for path in paths if path.name not in unreadable], folder, jobs)
    cached = _load_cache(folder / CACHE_NAME, spec)
    due = [name for name, content in hashes.items() if cached.get(name, {}).get("sha256") != content]
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        found = pool.map(lambda name: _read(folder / name, spec), due)
        for name, facts in zip(due, found, strict=True):
            cached[name] = {"sha256": hashes[name], "kind": type(facts).__name__, "facts": asdict(facts)}
    if due:
        _save_cache(folder / CACHE_NAME, spec, cached)
    facts = {name: KINDS[cached[name]["kind"]](**cached[name]["facts"]) for name in hashes}
    return facts | {name: Unreadable(reason) for name, reason in unreadable.items()}


def _why_unreadable(path: Path) -> str:
    if not path.is_file():
        return "no regular file, or a link to nothing. Copy the file there."
    return "" if os.access(path, os.R_OK) else "cannot be read (permission denied). Make it readable."


def _load_cache(path: Path, spec: DatasetSpec) -> dict[str, dict]:
    try:
        cache = read_json_object(path) if path.exists() else {}
    except DataError:
        return {}
    files = cache.get("files", {})
    is_ours = [cache.get("format"), cache.get("dataset")] == [CACHE_FORMAT, spec.name] and isinstance(files, dict)
    return {name: entry for name, entry in files.items() if _is_entry(entry)} if is_ours else {}


def _is_entry(entry: Any) -> bool:
    """Whether an entry of the cache has the keys that `read_facts` writes."""
    if not isinstance(entry, dict) or not isinstance(entry.get("facts"), dict) or str(entry.get("kind")) not in KINDS:
        return False
    return set(entry["facts"]) == {each.name for each in fields(KINDS[entry["kind"]])}


def _save_cache(path: Path, spec: DatasetSpec, files: dict[str, dict]) -> None:
    try:
        write_text(path, json.dumps({"format": CACHE_FORMAT, "dataset": spec.name, "files": files}))
    except UserError as error:
        log.debug("the next check will read everything again: %s", error)


def _read(path: Path, spec: DatasetSpec) -> Facts:
    failures: Failures = {}
    with catching(failures, path.name, path):
        return _facts_of(path, spec)
    return Unreadable(failures[path.name].removeprefix(f"{path}: "))


def _facts_of(path: Path, spec: DatasetSpec) -> Facts:
    volume, kind = read_nifti(path), path.name.partition("_")[0]
    if kind == "image":
        return _image_facts(volume)
    if kind == "label":
        return _label_facts(volume, len(spec.class_names))
    return _superpixel_facts(volume, isinstance(SCALES.get(kind.removeprefix("superpix-")), Supervoxels))


def _image_facts(volume: Volume) -> ImageFacts:
    array = volume.array
    low, high = float(array.min()), float(array.max())
    n_not_finite = 0 if np.isfinite([low, high]).all() else int(np.count_nonzero(~np.isfinite(array)))
    return ImageFacts(
        **Grid.of(volume).to_json(),
        minimum=low,
        maximum=high,
        n_not_finite=n_not_finite,
        sha256=voxel_hash(array),
    )


def _label_facts(volume: Volume, n_classes: int) -> LabelFacts:
    try:
        array = whole_values(volume.array)
    except DataError:
        array = volume.array
    pixels = class_pixels(array, n_classes)
    is_complete = pixels.sum() == array.size
    unknown = [] if is_complete else np.setdiff1d(array, np.arange(n_classes))[:5].astype(float).tolist()
    return LabelFacts(**Grid.of(volume).to_json(), pixels=pixels.tolist(), unknown=unknown)


def _superpixel_facts(volume: Volume, is_volumetric: bool) -> SuperpixelFacts:
    array = volume.array
    grid = Grid.of(volume).to_json()
    if not (np.isfinite(array).all() and (array == np.rint(array)).all() and array.min() >= 0):
        return SuperpixelFacts(**grid, n_ids=0, is_integer=False, is_consecutive=False)
    groups = array.reshape(1 if is_volumetric else len(array), -1).astype(np.int64)
    present = [_ids_in(group) for group in groups]
    is_consecutive = all(len(ids) == 0 or ids[-1] == len(ids) for ids in present)
    return SuperpixelFacts(**grid, n_ids=sum(map(len, present)), is_integer=True, is_consecutive=is_consecutive)


def _ids_in(group: np.ndarray) -> np.ndarray:
    """The ids above 0, ascending; by counting, unless an id is too high for that."""
    is_plausible = group.max() <= group.size
    present = np.flatnonzero(np.bincount(group)) if is_plausible else np.unique(group)
    return present[present > 0]
