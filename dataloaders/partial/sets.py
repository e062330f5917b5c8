"""One of several data sets: which classes it is annotated for, its training images, and what is scored of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dataloaders.description import DatasetSpec
from dataloaders.images.folder import ImageFolder
from dataloaders.images.framing import Framing
from dataloaders.images.labels import image_tensor
from dataloaders.io.geometry import Grid
from dataloaders.io.png import read_image, read_mask
from dataloaders.partial.pseudo import read_pseudo_label
from dataloaders.partial.store import ArrayStore, SliceMasks, Store, pack_images, pack_masks, to_unit
from dataloaders.samples import ImageCase, Origin, StoredGeometry, Volume
from dataloaders.scans.folder import PreparedFolder
from dataloaders.sources.frames import SliceRule
from dataloaders.sources.store import SliceStore, pack
from util.errors import DataError
from util.records import hash_files
from util.schema import build


@dataclass(frozen=True)
class ScoredCase:
    """A test image, or a test scan of D slices, with the expert's masks on the prepared grid.

    Attributes:
        id: of the image or scan.
        case: its images, 0 to 1; the classes are all K of the network, numbered from 1.
        truth: masks of the channels that the data set is annotated for, in their order.
        inside: pixels within the field of view; None: all.
    """

    id: str
    case: ImageCase
    truth: Bool[np.ndarray, "N D H W"]
    inside: Bool[np.ndarray, "D H W"] | None = None


@dataclass(frozen=True)
class PartialSet(ABC):
    """A prepared data set.

    Attributes:
        spec: its description.
        known: channels that it is annotated for, ascending.
        names: class of every channel.
        side_px: rows and columns of its images.
    """

    spec: DatasetSpec
    known: tuple[int, ...]
    names: tuple[str, ...]
    side_px: int

    @property
    def name(self) -> str:
        """Name of the data set."""
        return self.spec.name

    @property
    @abstractmethod
    def place(self) -> Path:
        """The prepared folder."""

    @abstractmethod
    def ids(self, split: str) -> tuple[str, ...]:
        """Images or scans of a split: train, validation or test."""

    @abstractmethod
    def origin(self, case_id: str) -> Origin:
        """Where an image or scan comes from."""

    @abstractmethod
    def rows(self, split: str) -> list[dict[str, str]]:
        """What tells the same picture under another name: id, image_sha256, fingerprint where known."""

    @abstractmethod
    def training_images(self) -> dict[str, str]:
        """Training images or slices, in the order of their positions -> SHA-256 of their file."""

    @abstractmethod
    def training_image(self, name: str) -> Float[Tensor, "1 C S S"]:
        """One of `training_images`, 0 to 1."""

    @abstractmethod
    def store(self, pseudo: Mapping[int, Callable[[str], Path]] | None = None) -> Store:
        """The training images with the expert's masks, or with those of pseudo-labels.

        Args:
            pseudo: channel -> the file of a training image; None: the expert's masks. Empty: none.
        """

    @abstractmethod
    def picture(self, case_id: str, z: int = 0) -> Float[np.ndarray, "C S S"]:
        """A prepared image, or a slice of a prepared scan, for people: 0 to 255."""

    @abstractmethod
    def contents(self) -> dict[str, str]:
        """File -> hash of all training images and masks."""

    @abstractmethod
    def cases(self, split: str, within_field: bool = True) -> Iterator[Callable[[], ScoredCase]]:
        """For each image or scan of a split, in the order of `ids`, a function that reads it.

        Args:
            split: validation or test.
            within_field: whether fields of view are read.
        """

    @property
    def classes(self) -> tuple[int, ...]:
        """Numbers of all classes of the network, from 1."""
        return tuple(range(1, len(self.names) + 1))

    def pack_pseudo(
        self, images: Sequence[str], files: Mapping[int, Callable[[str], Path]]
    ) -> dict[int, UInt8[np.ndarray, "N S S"]]:
        """Channel -> codes of the pseudo-labels of all training images, in their order."""
        return {
            k: pack_masks(self.place, [path(name) for name in images], f"pseudo_{self.names[k]}", read_pseudo_label)
            for k, path in files.items()
        }


@dataclass(frozen=True)
class ImageSet(PartialSet):
    """A prepared set of single images."""

    folder: ImageFolder

    @property
    def place(self) -> Path:
        """The prepared folder."""
        return self.folder.folder

    def ids(self, split: str) -> tuple[str, ...]:
        """Images of a split."""
        return self.folder.ids(split)

    def origin(self, case_id: str) -> Origin:
        """Where an image comes from."""
        return self.folder.origin(case_id)

    def rows(self, split: str) -> list[dict[str, str]]:
        """Lines of the manifest."""
        return [row for row in self.folder.rows if row["split"] == split]

    def training_images(self) -> dict[str, str]:
        """Training image -> SHA-256 of its file, as the manifest has it."""
        return {row["id"]: row.get("image_sha256", "") for row in self.rows("train")}

    def training_image(self, name: str) -> Float[Tensor, "1 C S S"]:
        """A training image, 0 to 1."""
        return self._image(name)

    def store(self, pseudo: Mapping[int, Callable[[str], Path]] | None = None) -> Store:
        """The training images, memory-mapped."""
        ids = self.ids("train")
        if pseudo is None:
            masks = {
                k: pack_masks(self.place, self._mask_files(k, ids), f"partial_{self.names[k]}") for k in self.known
            }
        else:
            masks = self.pack_pseudo(ids, pseudo)
        return ArrayStore(pack_images(self.folder, ids, self.side_px, "train"), masks)

    def _mask_files(self, channel: int, ids: tuple[str, ...]) -> list[Path]:
        return [self.folder.mask_path(image_id, self.names[channel]) for image_id in ids]

    def contents(self) -> dict[str, str]:
        """File -> hash of all training images and masks."""
        ids = self.ids("train")
        files = [self.folder.image_path(image_id) for image_id in ids]
        files += [file for channel in self.known for file in self._mask_files(channel, ids)]
        return hash_files(files, self.place)

    def cases(self, split: str, within_field: bool = True) -> Iterator[Callable[[], ScoredCase]]:
        """For each image of a split a function that reads it."""
        for image_id in self.ids(split):
            yield lambda image_id=image_id: self._read(image_id, within_field)

    def _read(self, image_id: str, within_field: bool) -> ScoredCase:
        case = ImageCase((image_id,), self.classes, self._image(image_id), (self.origin(image_id),))
        truth = np.stack([read_mask(file) for k in self.known for file in self._mask_files(k, (image_id,))])[:, None]
        field = self.folder.field_path(image_id)
        return ScoredCase(image_id, case, truth, read_mask(field)[None] if within_field and field.exists() else None)

    def _image(self, image_id: str) -> Float[Tensor, "1 C S S"]:
        path, side = self.folder.image_path(image_id), self.side_px
        image = read_image(path)
        if image.shape[:2] != (side, side):
            raise DataError(
                f"{path}: {image.shape[0]} x {image.shape[1]} px; expected {side} x {side}. Set size_px to what was "
                "prepared, or prepare the images again."
            )
        return to_unit(image_tensor(image.reshape(1, side, side, -1)))

    def picture(self, case_id: str, z: int = 0) -> Float[np.ndarray, "C S S"]:
        """A prepared image in its own colours, 0 to 255."""
        return 255 * self._image(case_id)[0].numpy()

    def to_original(self, image_id: str, shares: Float[np.ndarray, "K S S"]) -> Float[np.ndarray, "K H W"]:
        """Takes probability maps to the grid of the original picture; 0 outside what was cut out."""
        return Framing.from_row(self.folder.row(image_id), shares.shape[-1]).to_picture(shares)


@dataclass(frozen=True)
class ScanSet(PartialSet):
    """A prepared set of scans, whose slices are the images; patients are divided by the rule of the description."""

    folder: PreparedFolder
    rule: SliceRule

    @property
    def place(self) -> Path:
        """The prepared folder."""
        return self.folder.folder

    @cached_property
    def _splits(self) -> dict[str, str]:
        """Labelled scan -> split."""
        labelled = [scan for scan in self.folder.scan_ids if self.folder.records[scan].is_labelled]
        moving = [scan for scan in labelled if self.folder.manifest.scans.get(scan, {}).get("frames", 1) != 1]
        if moving:
            raise DataError(f"{self.place}: scan {moving[0]} has several frames; expected one in each. Extract them.")
        return self.spec.split.divide({scan: self.folder.origin(scan).patient for scan in labelled})

    def ids(self, split: str) -> tuple[str, ...]:
        """Labelled scans of a split."""
        return tuple(scan for scan, own in self._splits.items() if own == split)

    def origin(self, case_id: str) -> Origin:
        """Where a scan comes from."""
        return self.folder.origin(case_id)

    def rows(self, split: str) -> list[dict[str, str]]:
        """Scans and their hashes."""
        hashes = hash_files([self.folder.path("image", scan) for scan in self.ids(split)], self.place)
        return [{"id": scan, "image_sha256": hashes[self.folder.path("image", scan).name]} for scan in self.ids(split)]

    def training_images(self) -> dict[str, str]:
        """Training slice -> SHA-256 of the file of its scan."""
        return {
            f"{row['id']}_z{z:03d}": row["image_sha256"]
            for row in self.rows("train")
            for z in range(self.folder.shape(row["id"])[0])
        }

    def training_image(self, name: str) -> Float[Tensor, "1 1 S S"]:
        """A training slice, 0 to 1."""
        return self._packed.images(np.array([self._position[name]]))[:, None]

    @cached_property
    def _position(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.training_images())}

    @cached_property
    def _packed(self) -> SliceStore:
        scans = self.ids("train")
        packed = pack(self.folder, scans, scans, self.rule.percentiles)
        if packed.side_px != self.side_px:
            raise DataError(
                f"{self.place}: slices of {packed.side_px} px; expected {self.side_px}. Set size_px to what was "
                "prepared, or prepare the scans again."
            )
        return packed

    def store(self, pseudo: Mapping[int, Callable[[str], Path]] | None = None) -> Store:
        """The slices of all training scans, memory-mapped."""
        values = {k: self.spec.class_names.index(self.names[k]) for k in self.known}
        if pseudo is None:
            return SliceMasks(self._packed, values)
        return SliceMasks(self._packed, {}, self.pack_pseudo(list(self.training_images()), pseudo))

    def contents(self) -> dict[str, str]:
        """File -> hash of all training scans and labels."""
        files = [self.folder.path(kind, scan) for scan in self.ids("train") for kind in ("image", "label")]
        return hash_files(files, self.place)

    def cases(self, split: str, within_field: bool = True) -> Iterator[Callable[[], ScoredCase]]:
        """For each scan of a split a function that reads it."""
        for scan in self.ids(split):
            yield lambda scan=scan: self._read(scan)

    def _read(self, scan: str) -> ScoredCase:
        image, label = self.folder.image(scan), self.folder.label(scan).array
        if image.array.shape != label.shape or image.array.shape[1:] != (self.side_px, self.side_px):
            raise DataError(
                f"{self.folder.path('image', scan)}: {image.array.shape} voxels (D, H, W), label {label.shape}; "
                f"expected slices of {self.side_px} px in both. Set size_px to what was prepared, or prepare the scans "
                "again."
            )
        ids = tuple(f"{scan} {z}" for z in range(len(label)))
        case = ImageCase(ids, self.classes, self.rule.apply(image.array), (self.origin(scan),) * len(label))
        values = [self.spec.class_names.index(self.names[k]) for k in self.known]
        return ScoredCase(scan, case, np.stack([label == value for value in values]))

    def picture(self, case_id: str, z: int = 0) -> Float[np.ndarray, "1 S S"]:
        """A slice as the network sees it, 0 to 255."""
        return 255 * self.rule.apply(self.folder.image(case_id).array[z : z + 1])[0].numpy()

    def prepared(self, scan: str) -> Volume:
        """The prepared scan."""
        return self.folder.image(scan)

    def original_grid(self, scan: str) -> tuple[Grid | None, StoredGeometry | None]:
        """The grid of a scan before preparation, and the geometry in its header; None: unknown."""
        entry = self.folder.manifest.scans.get(scan, {})
        stored = build(StoredGeometry, entry["stored_geometry"]) if "stored_geometry" in entry else None
        return Grid.from_json(entry["original"]) if "original" in entry else None, stored
