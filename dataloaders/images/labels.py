"""The labels that dense methods train on: as given, possibly refined in training, and their known errors."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dataloaders.samples import DenseBatch
from util.errors import DataError
from util.files import atomic_write, file_sha256, read_json_object, write_json


@dataclass
class LabelStore:
    """All training images with their current labels, in a fixed order.

    The arrays may be memory-mapped; only the requested images are read.

    Attributes:
        image: (N, H, W, C) uint8 or uint16.
        label: (N, H, W) uint8 class values trained on; a method may `replace` them.
        clean: (N, H, W) uint8 class values of the expert; None: unknown, because the given masks are suspect.
        superpixel: (N, H, W) uint16 ids from 0; None: not read.
        noise_types: the noise of each image's mask: "clean", "dilate", "erode", "affine" or "imported"; "given" where
            it is unknown.
        n_classes: K, with the background.
        is_trusted: whether the given labels are taken to be right: neither suspect nor with simulated noise.
        n_replaced: number of replacements.
        given: the labels before the first replacement.
    """

    image: np.ndarray
    label: np.ndarray
    clean: np.ndarray | None
    superpixel: np.ndarray | None
    noise_types: tuple[str, ...]
    n_classes: int
    is_trusted: bool = False
    n_replaced: int = 0
    chunk_size: int = field(default=64, repr=False)
    _placed: dict[str, Tensor] = field(default_factory=dict, init=False, repr=False)
    given: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.given = self.label

    def __len__(self) -> int:
        return len(self.image)

    def batch(self, positions: np.ndarray | slice) -> DenseBatch:
        """Images, labels and superpixels at some positions, normalised but not augmented."""
        superpixel = None if self.superpixel is None else image_tensor(self.superpixel[positions]).long()
        label = image_tensor(self.label[positions]).long()
        return DenseBatch(normalise(image_tensor(self.image[positions])), label, superpixel)

    @property
    def nbytes(self) -> int:
        """Memory of images, labels and superpixels on a device; 16-bit values become 32-bit there."""
        large = (array for array in (self.image, self.superpixel) if array is not None)
        return self.label.nbytes + sum(array.nbytes * (2 if array.dtype == np.uint16 else 1) for array in large)

    def on(self, device: torch.device) -> "LabelsOnDevice":
        """The current state on a device: images and superpixels are copied once, labels each time."""
        large = {"image": self.image, "superpixel": self.superpixel}
        for name, array in large.items():
            if array is not None and name not in self._placed:
                self._placed[name] = torch.cat([image_tensor(array[part]).to(device) for part in self._parts()])
        label = torch.cat([image_tensor(self.label[part]).to(device) for part in self._parts()])
        return LabelsOnDevice(self._placed["image"], label, self._placed.get("superpixel"))

    def _parts(self) -> Iterator[slice]:
        return (slice(start, start + self.chunk_size) for start in range(0, len(self), self.chunk_size))

    def chunks(self, size: int) -> Iterator[tuple[slice, DenseBatch]]:
        """All images in order, `size` at a time."""
        for start in range(0, len(self), size):
            where = slice(start, min(start + size, len(self)))
            yield where, self.batch(where)

    def replace(self, label: np.ndarray) -> None:
        """Replaces the labels from the next round on.

        Raises:
            ValueError: another shape or type.
        """
        if label.shape != self.label.shape or label.dtype != np.uint8:
            raise ValueError(f"labels {label.dtype} {label.shape}; expected uint8 {self.label.shape}")
        self.label = label
        self.n_replaced += 1

    def clean_rates(self) -> Float[Tensor, " K"] | None:
        """Fraction of the pixels labelled k whose clean label is k, per class k; None where no clean labels are known.

        Absent classes count as clean. Source: superpixel-guided learning, released code ("remember
        rates", there copied by hand).
        """
        if self.clean is None:
            return None
        labelled, right = np.zeros(self.n_classes), np.zeros(self.n_classes)
        for start in range(0, len(self), self.chunk_size):
            label, clean = self.label[start : start + self.chunk_size], self.clean[start : start + self.chunk_size]
            labelled += np.bincount(label.ravel(), minlength=self.n_classes)
            right += np.bincount(label[label == clean], minlength=self.n_classes)
        return torch.from_numpy(np.where(labelled > 0, right / np.maximum(labelled, 1), 1.0)).float()

    def accuracy(self) -> float | None:
        """Fraction of all pixels whose current label is the clean one; None where no clean labels are known."""
        if self.clean is None:
            return None
        same = [
            np.count_nonzero(self.label[s : s + self.chunk_size] == self.clean[s : s + self.chunk_size])
            for s in range(0, len(self), self.chunk_size)
        ]
        return sum(same) / self.label.size


@dataclass(frozen=True)
class LabelsOnDevice:
    """The images of a `LabelStore` and their labels at one time, as tensors on a device."""

    image: Tensor  # (N, H, W, C) uint8; int32 for 16-bit images
    label: Tensor  # (N, H, W) uint8
    superpixel: Tensor | None  # (N, H, W) int32

    def __len__(self) -> int:
        return len(self.image)

    def batch(self, positions: np.ndarray) -> DenseBatch:
        """As `LabelStore.batch`, on the device."""
        where = torch.from_numpy(positions).to(self.image.device, non_blocking=True)
        superpixel = None if self.superpixel is None else self.superpixel[where].long()
        return DenseBatch(normalise(self.image[where]), self.label[where].long(), superpixel)


def image_tensor(array: np.ndarray) -> Tensor:
    """A copy as a tensor; uint16, which torch cannot index, becomes int32."""
    return torch.from_numpy(np.array(array, np.int32 if array.dtype == np.uint16 else array.dtype))


def normalise(image: Tensor) -> Float[Tensor, "B C H W"]:
    """Network input from stored images (B, H, W, C): colour to [-1, 1], grey to [0, 1].

    Args:
        image: uint8, or 16-bit values as int32; divided by the largest value of its depth.

    Source: superpixel-guided learning and T-Loss, released code.
    """
    scaled = image.permute(0, 3, 1, 2).float() / (255 if image.dtype == torch.uint8 else 65_535)
    return scaled * 2 - 1 if scaled.shape[1] == 3 else scaled


@dataclass(frozen=True)
class RefinedLabels:
    """Refined labels of one run on disk: `<folder>/<number>.npy`, and next to it the name of the run."""

    folder: Path
    experiment: str  # the run's name, which holds a hash of everything that affects its weights

    def save(self, labels: LabelStore) -> None:
        """Writes the current labels under their number; earlier ones are kept.

        Raises:
            UserError: the folder cannot be written to.
        """
        array, note = self._paths(labels.n_replaced)
        with atomic_write(array) as temporary:
            np.save(temporary, labels.label)
        write_json(note, {"experiment": self.experiment, "sha256": file_sha256(array)})

    def restore(self, labels: LabelStore, number: int) -> None:
        """Restores the labels with this number, memory-mapped; 0 are the given ones.

        Raises:
            DataError: absent, damaged, of another run, or for other images.
        """
        if number == 0:
            return
        array, note = self._paths(number)
        remedy = "Delete this run's folder and train again, or restore the file."
        if not array.exists() or not note.exists():
            raise DataError(f"{array}: the refined labels of this run are missing. {remedy}")
        written = read_json_object(note)
        if written.get("experiment") != self.experiment:
            raise DataError(
                f"{array}: refined by the run {written.get('experiment')!r}, not by {self.experiment!r}. {remedy}"
            )
        if written.get("sha256") != file_sha256(array):
            raise DataError(f"{array}: damaged: its content has changed since the run wrote it. {remedy}")
        refined = np.load(array, mmap_mode="r")
        if refined.shape != labels.label.shape:
            raise DataError(
                f"{array}: labels of shape {refined.shape}; expected {labels.label.shape}: the prepared images have "
                f"changed since. {remedy}"
            )
        labels.label, labels.n_replaced = refined, number

    def _paths(self, number: int) -> tuple[Path, Path]:
        return self.folder / f"{number}.npy", self.folder / f"{number}.json"
