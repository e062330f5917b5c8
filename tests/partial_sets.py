"""Small prepared sets of images: lines labelled in one, blobs in the next, discs with cups in the third; and scans."""

from pathlib import Path
from typing import Any

import numpy as np

from data.phantom.simple import make_picture
from dataloaders.description import ClassSpec, DatasetSpec, GridRule, SplitRule, write_description
from dataloaders.images.fingerprint import fingerprint
from dataloaders.images.folder import MANIFEST, ImageFolder
from dataloaders.io.geometry import Grid
from dataloaders.io.nifti import write_nifti
from dataloaders.io.png import write_png
from dataloaders.partial.config import PartialDataConfig
from dataloaders.partial.data import PartialData, open_partial
from dataloaders.partial.sets import ImageSet, PartialSet
from dataloaders.samples import Task, Volume
from dataloaders.scans.manifest import Manifest
from util.files import file_sha256, write_text
from util.results.scores import csv_text

SIDE = 32
LINES = DatasetSpec(
    "LINES", "images", channels=3, classes=(ClassSpec("line"),), tasks=(Task("vessel", ("line",)),),
    grid=GridRule(size_px=SIDE), split=SplitRule(),
)  # fmt: skip
BLOBS = DatasetSpec(
    "BLOBS", "images", channels=3, classes=(ClassSpec("bright"), ClassSpec("dark")),
    tasks=(Task("lesion", ("bright", "dark"), "exclusive"),), grid=GridRule(size_px=SIDE),
)  # fmt: skip
DISCS = DatasetSpec(
    "DISCS", "images", channels=3, classes=(ClassSpec("disc"), ClassSpec("cup")),
    tasks=(Task("disc_cup", ("disc", "cup"), "nested"),), grid=GridRule(size_px=SIDE),
)  # fmt: skip
# Tested only: disc without cup, and the lesions.
MIXED = DatasetSpec(
    "MIXED", "images", channels=3, classes=(ClassSpec("bright"), ClassSpec("dark"), ClassSpec("disc")),
    tasks=(Task("lesion", ("bright", "dark"), "exclusive"), Task("disc_cup", ("disc",))), grid=GridRule(size_px=SIDE),
)  # fmt: skip
CASTS = {"LINES": (0.0, 0.0, 0.1), "BLOBS": (0.1, 0.0, 0.0), "DISCS": (0.0, 0.1, 0.0), "MIXED": (0.05, 0.05, 0.0)}


def write_set(root: Path, spec: DatasetSpec, n_train: int = 6, n_test: int = 3, first_seed: int = 0) -> ImageFolder:
    """Writes a prepared folder below the data root."""
    folder = root / spec.prepared_folder(SIDE)
    folder.mkdir(parents=True)
    write_description(folder, spec)
    rows = []
    for number in range(n_train + n_test):
        image_id = f"{spec.name.lower()}{number}"
        made = make_picture(first_seed + 100 * list(CASTS).index(spec.name) + number, SIDE, CASTS[spec.name])
        write_png(folder / "images" / f"{image_id}.png", made.image)
        for each in spec.classes:
            write_png(folder / "masks" / each.name / f"{image_id}.png", made.masks[each.name])
        rows.append({
            "id": image_id, "split": "train" if number < n_train else "test",
            "original_height_px": str(2 * SIDE), "original_width_px": str(2 * SIDE),
            "image_sha256": file_sha256(folder / "images" / f"{image_id}.png"), "fingerprint": fingerprint(made.image),
        })  # fmt: skip
    write_text(folder / MANIFEST, csv_text(tuple(rows[0]), rows))
    return ImageFolder(folder)


def write_sets(root: Path, n_train: int = 6, n_test: int = 3) -> Path:
    """All four sets below the data root; returns it."""
    for spec in (LINES, BLOBS, DISCS, MIXED):
        write_set(root, spec, n_train, n_test)
    return root


def open_sets(root: Path, needs: frozenset[str] = frozenset(), **settings) -> PartialData:
    """The three sets for training, opened from a data root that `write_sets` filled."""
    named: dict[str, Any] = {
        "datasets": [root / spec.prepared_folder(SIDE) for spec in (LINES, BLOBS, DISCS)]
    } | settings
    for key in ("datasets", "scored"):
        named[key] = tuple(map(str, named.get(key, ())))
    return open_partial(PartialDataConfig(**named), str(root), needs=needs)


def image_set(each: PartialSet) -> ImageSet:
    """The set, which holds images."""
    assert isinstance(each, ImageSet)
    return each


LIVER = DatasetSpec("LIVER", "scans", classes=(ClassSpec("liver"),), grid=GridRule(size_px=SIDE))
KIDNEYS = DatasetSpec(
    "KIDNEYS", "scans", classes=(ClassSpec("left", value=2), ClassSpec("right", value=3)), grid=GridRule(size_px=SIDE)
)
DEPTH = 4


def draw_scan(seed: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A scan (DEPTH, SIDE, SIDE) with all structures, and their masks."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:SIDE, :SIDE]
    body = np.hypot(row - 16, column - 16) < 14
    shift = rng.integers(-1, 2)
    masks = {
        "liver": np.hypot(row - 11, column - 11 - shift) < 5,
        "left": np.hypot(row - 22, column - 22 + shift) < 3,
        "right": np.hypot(row - 22, column - 10) < 3,
    }
    image = body * 100.0 + masks["liver"] * 60 + masks["left"] * 120 + masks["right"] * 120
    stack = np.stack([image + rng.normal(0, 5, image.shape) for _ in range(DEPTH)]).clip(0).astype(np.float32)
    return stack, {name: np.stack([mask] * DEPTH) for name, mask in masks.items()}


def write_scan_sets(root: Path, n_scans: int = 6) -> Path:
    """LIVER and KIDNEYS below the data root, each with labels of its own classes; returns the root."""
    affine = np.diag([-2.0, 2.0, 5.0, 1.0])
    for first, spec in ((0, LIVER), (50, KIDNEYS)):
        folder = root / spec.prepared_folder()
        folder.mkdir(parents=True)
        write_description(folder, spec)
        manifest = Manifest(spec.name)
        for number in range(n_scans):
            scan = f"{spec.name[0]}{number}"
            image, masks = draw_scan(first + number)
            label = np.zeros(image.shape, np.uint8)
            for value, each in enumerate(spec.classes, start=1):
                label[masks[each.name]] = value
            write_nifti(folder / f"image_{scan}.nii.gz", Volume(image, affine))
            write_nifti(folder / f"label_{scan}.nii.gz", Volume(label, affine))
            manifest.scans[scan] = {"original": Grid(image.shape, affine).to_json()}
        manifest.save(folder)
    return root


def open_scan_sets(root: Path, needs: frozenset[str] = frozenset(), **settings: Any) -> PartialData:
    """Both sets for training, opened from a data root that `write_scan_sets` filled."""
    datasets = tuple(str(root / spec.prepared_folder()) for spec in (LIVER, KIDNEYS))
    return open_partial(PartialDataConfig(datasets=datasets, **settings), str(root), needs=needs)
