"""A prepared set of single images on disk: images, masks per structure, noisy masks, superpixels.

<data root>/ISIC2017/prepared_128px/
dataset.json5                          the description of the set, so that the folder can be used alone
dataset.json                           how it was prepared: size, structures, split rule, versions
manifest.csv                           one line per image: id, split, files, original size, hash; own data: origin
images/<id>.png                        8 or 16 bit, RGB or grey, size x size
masks/<structure>/<id>.png             8 bit, 0 or 255
fields/<id>.png                        the same, pixels within the field of view; fundus photographs only
noisy/<structure>/a0.7_b0.7/<id>.png   the same, simulated noise; training images only
noise.csv  per image: type, angle, shift, achieved strength, Dice to clean
noise.json parameters and statistics
superpixels/rgb_100_10/<id>.png        16 bit, ids from 0
superpixels.json  parameters and quality
"""

import re
import shlex
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from dataloaders.catalog import is_built_in
from dataloaders.description import FILE_NAME, DatasetSpec, read_description
from dataloaders.samples import Origin
from util.csv_files import read_csv
from util.errors import ConfigError, DataError
from util.files import read_json_object
from util.schema import check_bounds, option

MANIFEST, DESCRIPTION = "manifest.csv", "dataset.json"
FAILED = "failed"  # key of the description: image id -> why the image could not be prepared
SPLITS = ("train", "validation", "test", "unused")  # validation: neither trained on nor tested
NOISE_TYPES = ("dilate", "erode", "affine")


@dataclass(frozen=True)
class NoiseConfig:
    """Simulated annotation noise of the training masks.

    Source: released code of superpixel-guided learning and of T-Loss; identical in both.
    """

    alpha: float = 0.0  # fraction of training images with a noisy mask, 0 to 1; 0: masks as supplied
    beta: float = 0.0  # strength: changed pixels per object pixel, above 0 and below 1
    types: tuple[str, ...] = NOISE_TYPES  # drawn uniformly
    direction: Literal["reference", "uniform8"] = "reference"  # of affine shifts; reference: down, right or both
    variant: Literal["reference", "per_image"] = "reference"  # per_image: seeds from the id, order does not matter
    seed: int = option(0, ge=0, le=2**32 - 1)

    def __post_init__(self) -> None:
        check_bounds(self, "noise.")
        if not 0 <= self.alpha <= 1:
            raise ConfigError(f"noise.alpha={self.alpha}: expected a fraction of the images, 0 to 1.")
        if self.alpha and not 0 < self.beta < 1:
            raise ConfigError(f"noise.beta={self.beta}: expected a strength above 0 and below 1.")
        unknown = sorted(set(self.types) - set(NOISE_TYPES))
        if unknown or not self.types or len(set(self.types)) < len(self.types):
            raise ConfigError(f"noise.types={list(self.types)}: expected different ones of {', '.join(NOISE_TYPES)}.")

    @property
    def name(self) -> str:
        """The folder of this noise, such as a0.7_b0.7; deviations from the reference are appended."""
        name = f"a{self.alpha:g}_b{self.beta:g}"
        if self.types != NOISE_TYPES:
            name += "_" + "+".join(self.types)
        further = [self.direction, self.variant, f"seed{self.seed}"]
        return "_".join([name, *(word for word in further if word not in ("reference", "seed0"))])


@dataclass(frozen=True)
class SuperpixelConfig:
    """SLIC superpixels of the training images. Source: superpixel-guided learning, released code."""

    source: Literal["rgb", "gray", "gray+prob"] | None = None  # None: rgb for colour images, else gray
    n_segments: int | None = None  # per image; None: the structure's
    compactness: float | None = None  # None: 10 for rgb; 10/255 for images scaled to [0, 1]
    equalised: bool = False  # local contrast equalisation (CLAHE) first

    def __post_init__(self) -> None:
        if self.n_segments is not None and not 2 <= self.n_segments <= 65_535:
            raise ConfigError(f"superpixel.n_segments={self.n_segments}: expected 2 to 65535.")
        if self.compactness is not None and not self.compactness > 0:
            raise ConfigError(f"superpixel.compactness={self.compactness}: expected a number above 0.")

    def resolved(self, spec: DatasetSpec, structure: str) -> "SuperpixelConfig":
        """The same with unset values replaced by those of the data set.

        Raises:
            ConfigError: the source needs colour, or lacks it.
        """
        source = self.source or ("rgb" if spec.channels == 3 else "gray")
        if (source == "rgb") != (spec.channels == 3):
            raise ConfigError(f"superpixel.source={source!r}: {spec.name} has images of {spec.channels} channel(s).")
        compactness = self.compactness or (10.0 if source == "rgb" else 10 / 255)
        n_segments = self.n_segments or spec.structure(structure).n_segments
        return SuperpixelConfig(source, n_segments, compactness, self.equalised)

    def folder_name(self, structure: str) -> str:
        """The folder of resolved superpixels; those of a structure's probabilities have a folder of their own."""
        name = f"{self.source}_{self.n_segments}_{self.compactness:.3g}" + "_clahe" * self.equalised
        return f"{name}_{structure}" if self.source == "gray+prob" else name


class ImageFolder:
    """Reads a prepared set of images; only the manifest is kept in memory.

    Args:
        folder: the prepared folder.
        spec: the data set; None: as `dataset.json5` in the folder describes it.

    Raises:
        DataError: no manifest, or neither `spec` nor `dataset.json5`.
    """

    def __init__(self, folder: Path, spec: DatasetSpec | None = None) -> None:
        if not (folder / MANIFEST).exists():
            name = f" of {spec.name}" if spec else ""
            others = sorted(path.parent.name for path in folder.parent.glob(f"*/{MANIFEST}"))
            existing = f"choose the size of {', '.join(others)} with size_px (--size-px), or " if others else ""
            command = prepare_command(spec, folder)
            raise DataError(
                f"{folder}: no {MANIFEST} found; expected prepared images{name}. Run `{command}`, "
                f"{existing or 'or '}set path.data_dir (--data-dir) to the data root or to the prepared folder."
            )
        if spec is None and not (folder / FILE_NAME).exists():
            raise DataError(f"{folder}: no {FILE_NAME} found. Name the data set with --dataset, or prepare it again.")
        self.folder, self.spec = folder, spec or read_description(folder / FILE_NAME)

    @classmethod
    def locate(cls, spec: DatasetSpec, data_dir: Path, size_px: int | None = None) -> "ImageFolder":
        """Opens the images of a size, given the data root or the prepared folder itself.

        Raises:
            DataError: nothing is prepared there.
        """
        root = data_dir.expanduser()
        if (root / MANIFEST).exists() and (root / FILE_NAME).exists():
            stored = read_description(root / FILE_NAME).name
            if stored != spec.name:
                raise DataError(f"{root}: holds {stored}, not {spec.name}; set path.data_dir to the data root.")
        return cls(root if (root / MANIFEST).exists() else root / spec.prepared_folder(size_px), spec)

    def command(self, verb: str, *options: str) -> str:
        """The command that runs `data.<verb>` on this folder, for messages."""
        name = () if (self.folder / FILE_NAME).exists() else ("--dataset", self.spec.name)
        return " ".join([f"frugalseg {verb}", shlex.quote(str(self.folder)), *name, *options])

    @cached_property
    def description(self) -> dict[str, Any]:
        """`dataset.json`: how the images were prepared."""
        return read_json_object(self.folder / DESCRIPTION)

    @cached_property
    def rows(self) -> list[dict[str, str]]:
        """The lines of the manifest, in the order of the ids.

        Raises:
            DataError: the manifest is damaged, an id cannot be a part of a path, or a split is unknown.
        """
        rows = read_csv(self.folder / MANIFEST, ("id", "split"))
        wrong = next((row for row in rows if row["split"] not in SPLITS), None)
        if wrong:
            raise DataError(
                f"{self.folder / MANIFEST}: image {wrong['id']} is in split {wrong['split']!r}; expected one of "
                f"{', '.join(SPLITS)}. Correct the line, or prepare again."
            )
        return sorted(rows, key=lambda row: row["id"])

    def row(self, image_id: str) -> dict[str, str]:
        """The line of an image in the manifest.

        Raises:
            DataError: no such image.
        """
        if image_id not in self._row_by_id:
            raise DataError(f"{self.folder / MANIFEST}: no image {image_id}. Name one of its ids.")
        return self._row_by_id[image_id]

    @cached_property
    def _row_by_id(self) -> dict[str, dict[str, str]]:
        return {row["id"]: row for row in self.rows}

    def origin(self, image_id: str) -> Origin:
        """The origin of an image; its id is the patient where the manifest names none."""
        origin = Origin.read(self.row(image_id))
        return origin if origin.patient else replace(origin, patient=image_id)

    def ids(self, split: str) -> tuple[str, ...]:
        """Ids of the images of a split, ascending."""
        return tuple(row["id"] for row in self.rows if row["split"] == split)

    def image_path(self, image_id: str) -> Path:
        """The image."""
        return self.folder / "images" / f"{image_id}.png"

    def mask_path(self, image_id: str, structure: str) -> Path:
        """The expert's mask of a structure."""
        return self.folder / "masks" / structure / f"{image_id}.png"

    def field_path(self, image_id: str) -> Path:
        """The pixels within the field of view; only of sets whose images are cut out by it."""
        return self.folder / "fields" / f"{image_id}.png"

    def noise_folder(self, noise: NoiseConfig, structure: str) -> Path:
        """Folder of the noisy masks of a structure, as `<id>.png`."""
        return self.folder / "noisy" / structure / noise.name

    def superpixel_folder(self, superpixel: SuperpixelConfig, structure: str) -> Path:
        """Folder of the superpixel ids, as `<id>.png`."""
        resolved = superpixel.resolved(self.spec, structure)
        return self.folder / "superpixels" / resolved.folder_name(structure)


def prepare_command(spec: DatasetSpec | None, folder: Path | None = None) -> str:
    """The command that prepares a set, for messages.

    Args:
        spec: the set; None: unknown.
        folder: the prepared folder; its name tells the size, if that is not the set's own.
    """
    if spec is None:
        return "frugalseg prepare DATASET --raw DIR --out DIR"
    size_px = re.fullmatch(r"prepared_(\d+)px", folder.name) if folder else None
    size = f" --size-px {size_px[1]}" if size_px and int(size_px[1]) != spec.grid.size_px else ""
    if is_built_in(spec):
        return f"frugalseg prepare {spec.name.lower()} --raw DIR --out DIR{size}"
    return f"frugalseg prepare {spec.name}.json5 --out DIR{size}"


def as_settings(config: NoiseConfig | SuperpixelConfig) -> dict[str, Any]:
    """A configuration as it is written to JSON."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(config).items()}


def command_options(settings: dict[str, Any]) -> list[str]:
    """Options of `frugalseg noise` or `data.superpixels` for settings that differ from the defaults."""
    options = ["--clahe"] if settings.get("equalised") else []
    for key, value in settings.items():
        if key != "equalised":
            text = " ".join(value) if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else value
            options.append(f"--{key.replace('_', '-')} {text}")
    return options
