"""Three small prepared sets of images: lines labelled in one, blobs in the next, discs with cups in the third."""

from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from dataloaders.description import ClassSpec, DatasetSpec, GridRule, SplitRule, write_description
from dataloaders.images.fingerprint import fingerprint
from dataloaders.images.folder import MANIFEST, ImageFolder
from dataloaders.io.png import write_png
from dataloaders.partial.config import PartialDataConfig
from dataloaders.partial.data import PartialData, open_partial
from dataloaders.samples import Task
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


def draw(seed: int, cast: tuple[float, ...] = (0, 0, 0)) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """An image (SIDE, SIDE, 3) uint8 with all structures, and their masks."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:SIDE, :SIDE]
    masks = {}
    slope, start = rng.uniform(-0.5, 0.5), rng.uniform(6, SIDE - 6)
    masks["line"] = abs(row - start - slope * (column - SIDE / 2)) < 1.5
    for name in ("bright", "dark"):
        centres = rng.uniform(4, SIDE - 4, (3, 2))
        masks[name] = np.any([np.hypot(row - y, column - x) < 2.2 for y, x in centres], axis=0)
    masks["dark"] &= ~masks["bright"]
    y, x = rng.uniform(8, SIDE - 8, 2)
    masks["disc"], masks["cup"] = np.hypot(row - y, column - x) < 6, np.hypot(row - y, column - x) < 3
    image = np.full((SIDE, SIDE, 3), (0.5, 0.3, 0.2))
    for name, colour in {"disc": (0.75, 0.6, 0.35), "cup": (0.95, 0.9, 0.7), "line": (0.35, 0.1, 0.1),
                         "bright": (0.9, 0.9, 0.2), "dark": (0.2, 0.05, 0.05)}.items():  # fmt: skip
        image[masks[name]] = colour
    image = ndimage.gaussian_filter(image, (0.5, 0.5, 0)) + rng.normal(0, 0.02, image.shape) + np.array(cast)
    return (image.clip(0, 1) * 255).astype(np.uint8), masks


def write_set(root: Path, spec: DatasetSpec, n_train: int = 6, n_test: int = 3, first_seed: int = 0) -> ImageFolder:
    """Writes a prepared folder below the data root."""
    folder = root / spec.prepared_folder(SIDE)
    folder.mkdir(parents=True)
    write_description(folder, spec)
    rows = []
    for number in range(n_train + n_test):
        image_id = f"{spec.name.lower()}{number}"
        image, masks = draw(first_seed + 100 * list(CASTS).index(spec.name) + number, CASTS[spec.name])
        write_png(folder / "images" / f"{image_id}.png", image)
        for each in spec.classes:
            write_png(folder / "masks" / each.name / f"{image_id}.png", masks[each.name])
        rows.append({
            "id": image_id, "split": "train" if number < n_train else "test",
            "original_height_px": str(2 * SIDE), "original_width_px": str(2 * SIDE),
            "image_sha256": file_sha256(folder / "images" / f"{image_id}.png"), "fingerprint": fingerprint(image),
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
