"""Single images with a class value per pixel: training images with their labels and noise, and test cases."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from torch.utils.data import DataLoader, Dataset

from dataloaders.images.config import DenseConfig
from dataloaders.images.derived import Derived, noise_of, superpixels_of
from dataloaders.images.folder import MANIFEST, ImageFolder
from dataloaders.images.framing import Framing
from dataloaders.images.labels import LabelsOnDevice, LabelStore, image_tensor, normalise
from dataloaders.images.readable import find_readable
from dataloaders.io.packed import packed
from dataloaders.io.png import read_image, read_mask, read_superpixels
from dataloaders.ordering import LoaderOptions, Part, step_loader
from dataloaders.protocol import TrainingData
from dataloaders.samples import DenseBatch, ImageCase
from dataloaders.scans.normalise import Normalisation
from dataloaders.transforms import dense as augmentation
from util.csv_files import read_csv
from util.errors import ConfigError, DataError
from util.files import short_digest
from util.items import Failures
from util.records import hash_files


@dataclass(frozen=True)
class DenseData(TrainingData):
    """A prepared folder of images, packed into memory-mapped arrays on first use."""

    config: DenseConfig
    folder: ImageFolder
    trains_on_clean: bool = False
    needs_superpixels: bool = False
    preparation = None  # the checkpoint needs none: the images' side is a key

    @cached_property
    def labels(self) -> LabelStore:
        """All training images with the labels to learn.

        Raises:
            DataError: no training image, or masks or superpixels that were not prepared.
        """
        ids = self.ids("train")
        supplied = self._labels(ids, "mask", {name: self._mask_files(ids, name) for name in self.config.chosen})
        is_suspect = self.folder.spec.masks == "suspect"
        label, types = supplied, ("given" if is_suspect else "clean",) * len(ids)
        if self.is_noisy:
            noisy = {name: self._noise(name).require_current() for name in self.config.chosen}
            files = {name: [each.path(i) for i in ids] for name, each in noisy.items()}
            label = self._labels(ids, f"noisy_{self.config.noise.name}", files)
            types = types if is_suspect else self._noise_types(ids, noisy[self.config.chosen[0]].folder)
        return LabelStore(
            image=self._images(ids, "train"),
            label=label,
            clean=None if is_suspect else supplied,
            superpixel=self._superpixels(ids) if self.needs_superpixels else None,
            noise_types=types,
            n_classes=len(self.config.chosen) + 1,
            is_trusted=not (is_suspect or self.is_noisy),
        )

    @property
    def is_noisy(self) -> bool:
        """Whether masks with simulated noise are trained on."""
        return bool(self.config.noise.alpha) and not self.trains_on_clean

    def fit_normalisation(self) -> Normalisation:
        """The rule is fixed (see `labels.normalise`); nothing is measured."""
        return Normalisation()

    def loader(
        self, normalisation: Normalisation, seed: int, batch_size: int, steps: range, options: LoaderOptions
    ) -> DataLoader[DenseBatch]:
        """A loader whose k-th batch belongs to the k-th of `steps`; it reads the labels as they are now."""
        labels = self.labels if options.device is None else self.labels.on(options.device)
        dataset = DenseDataset(labels, self.config.augmentation, seed, batch_size, options)
        return step_loader(dataset, steps, options)

    def cases(self, failures: Failures | None = None) -> Iterator[tuple[ImageCase, Bool[np.ndarray, "K D H W"]]]:
        """The test images in batches, with the expert's mask of each class.

        Args:
            failures: receives id -> reason of each image that cannot be read, and the others come without it; None: one
                such image is an error.

        Raises:
            DataError: no test image, or one cannot be read or lacks a mask.
        """
        ids, size = self.ids("test"), self.config.test_batch
        try:
            images, masks = self._test_arrays(ids)
        except Exception:  # whatever a damaged file raises, as at the boundary of an item (`util.items.catching`)
            readable = () if failures is None else find_readable(self.folder, ids, self.config.chosen, failures)
            if not readable or readable == ids:
                raise
            ids = readable
            images, masks = self._test_arrays(ids)
        for start in range(0, len(ids), size):
            part = slice(start, start + size)
            image = normalise(image_tensor(images[part]))
            truth = np.stack([np.asarray(mask[part], bool) for mask in masks])
            origins = tuple(self.folder.origin(image_id) for image_id in ids[part])
            yield ImageCase(ids[part], tuple(range(1, len(masks) + 1)), image, origins), truth

    def _test_arrays(self, ids: tuple[str, ...]) -> tuple[np.ndarray, list[np.ndarray]]:
        masks = [self._masks("test", f"mask_{name}", self._mask_files(ids, name)) for name in self.config.chosen]
        return self._images(ids, "test"), masks

    def in_full(self, part: np.ndarray) -> np.ndarray:
        """Pads a (H, W) map of the window to the whole prepared image with 0; uint16."""
        return self.config.task.in_full(part.astype(np.uint16))

    def to_original(self, image_id: str, shares: Float[np.ndarray, "K h w"]) -> Float[np.ndarray, "K H W"]:
        """Takes probability maps of the window to the grid of the original picture; 0 outside the window.

        Raises:
            DataError: the manifest does not record the original size.
        """
        row = self.folder.row(image_id)
        if not self.has_original_size(image_id):
            raise DataError(
                f"{self.folder.folder / MANIFEST}: no original size of {image_id}. Run `frugalseg prepare` again."
            )
        return Framing.from_row(row, self.config.task.side_px).to_picture(self.config.task.in_full(shares))

    def has_original_size(self, image_id: str) -> bool:
        """Whether the manifest records the size of the original picture."""
        return bool(self.folder.row(image_id).get("original_height_px"))

    @property
    def nbytes(self) -> int:
        """Memory of the training images on a device."""
        return self.labels.nbytes

    def contents(self) -> dict[str, str]:
        """Images and masks of all splits in use, the training images' noise and superpixels, splits and patients."""
        folder, chosen = self.folder, self.config.chosen
        rows = [row for row in folder.rows if row["split"] != "unused"]
        files = [folder.image_path(row["id"]) for row in rows]
        files += [folder.mask_path(row["id"], name) for row in rows for name in chosen]
        derived = [self._noise(name) for name in chosen] if self.is_noisy else []
        derived += [superpixels_of(folder, self.config.superpixel, chosen[0])] if self.needs_superpixels else []
        files += [each.path(image_id) for each in derived for image_id in self.ids("train")]
        origins = {row["id"]: folder.origin(row["id"]) for row in rows}
        table = {
            f"line {row['id']} of {MANIFEST}": ", ".join([row["split"], *origins[row["id"]].known().values()])
            for row in rows
        }
        return hash_files(files, folder.folder) | table

    def trained_cases(self) -> dict[str, str]:
        """Image -> patient, of the training images."""
        return {image_id: self.folder.origin(image_id).patient for image_id in self.ids("train")}

    def tested_cases(self) -> dict[str, str]:
        """Image -> patient, of the test images."""
        return {image_id: self.folder.origin(image_id).patient for image_id in self.ids("test")}

    def describe(self) -> str:
        """The training data, for the log."""
        masks = "suspect masks" if self.folder.spec.masks == "suspect" else "clean masks"
        if self.is_noisy:
            masks = f"noise {self.config.noise.name}"
        return f"{len(self.ids('train'))} images of {'+'.join(self.config.chosen)}, {masks}"

    def ids(self, split: Literal["train", "test"]) -> tuple[str, ...]:
        """The images that are trained on or tested, ascending.

        With `test_domains`, all images of these domains are tested that are not for validation or unused, and those of
        the split `train` from other domains are trained on.

        Raises:
            DataError: there is none, or no image is of such a domain.
        """
        chosen = set(self.config.test_domains)
        domains = {row["id"]: row.get("domain", "") for row in self.folder.rows}
        absent = sorted(chosen - set(domains.values()))
        if absent:
            known = ", ".join(sorted(set(domains.values()) - {""})) or "none: the table of files has no column domain"
            raise DataError(f"{self.folder.folder / MANIFEST}: no image of the domain {absent[0]!r}; found {known}.")
        splits = ("train", "test") if chosen and split == "test" else (split,)
        found = sorted(image_id for each in splits for image_id in self.folder.ids(each))
        ids = tuple(i for i in found if not chosen or (domains[i] in chosen) == (split == "test"))
        if not ids:
            raise DataError(
                f"{self.folder.folder / MANIFEST}: no image in split {split!r}. Prepare the missing part of the data "
                "set, or another split (column split of the table of files, or "
                "`frugalseg prepare ... --split RULE`)."
            )
        return ids

    def _mask_files(self, ids: tuple[str, ...], structure: str) -> list[Path]:
        return [self.folder.mask_path(i, structure) for i in ids]

    def _noise(self, structure: str) -> Derived:
        return noise_of(self.folder, self.config.noise, structure)

    def _noise_types(self, ids: tuple[str, ...], folder: Path) -> tuple[str, ...]:
        types = {row["id"]: row["type"] for row in read_csv(folder / "noise.csv", ("id", "type"))}
        missing = [i for i in ids if i not in types]
        if missing:
            raise DataError(
                f"{folder / 'noise.csv'}: no line for training image {missing[0]} ({len(missing)} such); the "
                "images have changed since. Delete the folder and run `frugalseg noise` again."
            )
        return tuple(types[i] for i in ids)

    def _images(self, ids: tuple[str, ...], split: str) -> np.ndarray:
        images = self._packed([self.folder.image_path(i) for i in ids], _read_channels, f"image_{split}")
        side, channels = self.config.side_px, self.folder.spec.channels
        if images.shape[1:] != (side, side, channels):
            raise DataError(
                f"{self.folder.folder / 'images'}: images of shape (rows, columns, channels) {images.shape[1:]}; "
                f"expected ({side}, {side}, {channels}). Set size_px to what was prepared, or prepare them again."
            )
        return images[:, *self.config.window]

    def _masks(self, split: str, kind: str, files: list[Path]) -> np.ndarray:
        """(N, H, W) uint8 0 or 1, in the window."""
        return self._packed(files, _read_mask_bytes, f"{kind}_{split}")[:, *self.config.window]

    def _labels(self, ids: tuple[str, ...], kind: str, files: Mapping[str, list[Path]]) -> np.ndarray:
        masks = [self._masks("train", f"{kind}_{name}", each) for name, each in files.items()]
        if len(masks) == 1:
            return masks[0]
        label = np.zeros_like(masks[0])
        for value, mask in enumerate(masks, start=1):
            label[mask > 0] = value
        return label

    def _superpixels(self, ids: tuple[str, ...]) -> np.ndarray:
        made = superpixels_of(self.folder, self.config.superpixel, self.config.chosen[0]).require_current()
        files = [made.path(i) for i in ids]
        return self._packed(files, _read_ids, f"superpixel_{made.folder.name}")[:, *self.config.window]

    def _packed(self, files: list[Path], read: Callable[[Path], np.ndarray], name: str) -> np.ndarray:
        domains = sorted(self.config.test_domains)
        held_out = f"_without_{short_digest({'domains': domains})}" if domains else ""
        return packed(files, read, self.folder.folder / ".packed" / f"{name}{held_out}", self.folder.folder)


def open_dense(
    config: DenseConfig, data_dir: str, trains_on: str = "given", needs: frozenset[str] = frozenset()
) -> DenseData:
    """The prepared images that a configuration names.

    Args:
        config: names the data set, the structures and the noise.
        data_dir: the data root, or the prepared folder itself.
        trains_on: "given" masks, or "clean": the expert's, in spite of the noise.
        needs: "superpixels": read them, too.

    Raises:
        ConfigError: clean masks are needed, but the masks are suspect.
        DataError: nothing is prepared there.
    """
    folder = ImageFolder.locate(config.spec, Path(data_dir), config.size_px)
    if trains_on == "clean" and folder.spec.masks == "suspect":
        raise ConfigError(
            f"{folder.spec.name}: masks are 'suspect', so there are no clean masks to train on. Choose another method, "
            "or set masks: 'trusted' in the description."
        )
    return DenseData(config, folder, trains_on == "clean", "superpixels" in needs)


class DenseDataset(Dataset[DenseBatch]):
    """Item k is the augmented batch of training step k on this process."""

    def __init__(
        self,
        labels: LabelStore | LabelsOnDevice,
        ranges: augmentation.DenseAugmentConfig,
        seed: int,
        batch_size: int,
        options: LoaderOptions,
    ) -> None:
        self.labels, self.augmentation = labels, ranges
        self.part = Part(np.arange(len(labels)), batch_size, seed, options.plan)

    def __getitem__(self, step: int) -> DenseBatch:
        numbers = self.part.numbers(step)
        plain = self.labels.batch(np.array([self.part.item(number) for number in numbers]))
        generators = [self.part.generator("augmentation", number) for number in numbers]
        channels, rows, columns = plain.image.shape[1:]
        drawn = augmentation.draw(generators, self.augmentation, (channels, rows, columns))
        maps = (plain.label,) if plain.superpixel is None else (plain.label, plain.superpixel)
        drawn = drawn.to(plain.image.device)
        image, maps = augmentation.apply(plain.image, maps, drawn, self.augmentation)
        return DenseBatch(image, *maps)


def _read_channels(path: Path) -> np.ndarray:
    image = read_image(path)
    return image if image.ndim == 3 else image[..., None]


def _read_mask_bytes(path: Path) -> np.ndarray:
    return read_mask(path).astype(np.uint8)


def _read_ids(path: Path) -> np.ndarray:
    return read_superpixels(path).astype(np.uint16)
