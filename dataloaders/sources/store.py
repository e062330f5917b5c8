"""Normalised slices of prepared scans, packed once per scan, so that a step reads memory instead of files."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dataloaders.io.packed import packed
from dataloaders.scans.folder import PreparedFolder
from dataloaders.transforms.histogram import N_QUANTILES, quantile_table
from util.errors import DataError
from util.files import short_digest
from util.records import hash_files

PACKED = ".packed"  # folder of the packed arrays, in the prepared folder


def normalise_slices(array: Float[np.ndarray, "D H W"], percentiles: tuple[float, float]) -> Float[np.ndarray, "D H W"]:
    """Maps two percentiles of each slice to 0 and 1 and clips there; float32.

    Padding around the scan, which has its least value in all slices, does not count and becomes 0. A slice without
    contrast becomes 0.

    Source: CACPS (AAAI 2022), released code: percentiles 0.5 and 99.5, then minimum and maximum.
    """
    rows, columns = _inside(array)
    found = np.zeros(array.shape, np.float32)
    found[:, rows, columns] = _scaled(array[:, rows, columns], percentiles)
    return found


def slice_quantiles(array: Float[np.ndarray, "D H W"], percentiles: tuple[float, float]) -> Float[np.ndarray, "D Q"]:
    """The table of quantiles of each normalised slice, without its padding; see `normalise_slices`."""
    rows, columns = _inside(array)
    return np.stack([quantile_table(each) for each in _scaled(array[:, rows, columns], percentiles)])


def _scaled(part: Float[np.ndarray, "D H W"], percentiles: tuple[float, float]) -> Float[np.ndarray, "D H W"]:
    part = part.astype(np.float32)
    low, high = np.percentile(part, percentiles, axis=(1, 2), keepdims=True)
    extent = high - low
    return np.clip(np.divide(part - low, extent, out=np.zeros_like(part), where=extent > 0), 0, 1)


def _inside(array: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns within which some slice is above the least value of the scan."""
    shown = (array > array.min()).any(0)
    if not shown.any():
        return slice(None), slice(None)
    row, column = (np.flatnonzero(shown.any(axis)) for axis in (1, 0))
    return slice(row[0], row[-1] + 1), slice(column[0], column[-1] + 1)


@dataclass(frozen=True)
class SliceStore:
    """Slices of scans, by position: the scans in their order, the slices of each in theirs.

    Attributes:
        image: per scan (D, H, W) float16, 0 to 1, memory-mapped; one tensor (N, H, W) on a device.
        quantiles: (N, Q) float32, of each slice; (0, Q): they were not asked for.
        label: per labelled scan (D, H, W) uint8 class values; one tensor (N, H, W) on a device.
        scan: (N,) id of each slice's scan.
        start: scan -> position of its first slice.
        device: where the slices are; None: on disk.
    """

    image: Sequence[np.ndarray] | Tensor
    quantiles: Float[Tensor, "M Q"]
    label: dict[str, np.ndarray] | Tensor
    scan: np.ndarray
    start: dict[str, int]
    device: torch.device | None = None

    def __len__(self) -> int:
        return len(self.scan)

    @property
    def side_px(self) -> int:
        """Rows and columns of the slices."""
        return self.image[0].shape[-1]

    def images(self, positions: np.ndarray) -> Float[Tensor, "B H W"]:
        """float32 slices."""
        if isinstance(self.image, Tensor):
            return self.image[self._on_device(positions)].float()
        numbers = np.searchsorted(list(self.start.values()), positions, side="right") - 1
        first = np.array(list(self.start.values()))[numbers]
        rows = [self.image[n][p] for n, p in zip(numbers, positions - first, strict=True)]
        return torch.from_numpy(np.stack(rows)).float()

    def labels(self, positions: np.ndarray) -> UInt8[Tensor, "B H W"]:
        """uint8 class values of slices of labelled scans."""
        if isinstance(self.label, Tensor):
            return self.label[self._on_device(positions)]
        scans = self.scan[positions]
        return torch.from_numpy(
            np.stack([self.label[s][p - self.start[s]] for s, p in zip(scans, positions, strict=True)])
        )

    def tables(self, positions: np.ndarray) -> Float[Tensor, "B Q"]:
        """Quantiles of slices."""
        return self.quantiles[torch.from_numpy(positions).to(self.quantiles.device, non_blocking=True)]

    def on(self, device: torch.device) -> "SliceStore":
        """The same, kept on a device."""
        if isinstance(self.image, Tensor) or isinstance(self.label, Tensor):
            return self
        shape = (len(self), *self.image[0].shape[1:])
        image = torch.empty(shape, dtype=torch.float16, device=device)
        label = torch.zeros(shape, dtype=torch.uint8, device=device)
        for start, slices in zip(self.start.values(), self.image, strict=True):
            image[start : start + len(slices)] = torch.from_numpy(np.array(slices)).to(device)
        for scan, values in self.label.items():
            label[self.start[scan] : self.start[scan] + len(values)] = torch.from_numpy(np.array(values)).to(device)
        return SliceStore(image, self.quantiles.to(device), label, self.scan, self.start, device)

    def _on_device(self, positions: np.ndarray) -> Tensor:
        return torch.from_numpy(positions).to(self.device, non_blocking=True)


def pack(
    folder: PreparedFolder,
    scans: Sequence[str],
    labelled: Sequence[str],
    percentiles: tuple[float, float],
    with_quantiles: bool = False,
) -> SliceStore:
    """Packs scans, each at its first use; later uses read memory only.

    Args:
        folder: prepared folder.
        scans: to pack; no other is opened.
        labelled: those of them whose labels are packed, too.
        percentiles: see `normalise_slices`.
        with_quantiles: whether tables of quantiles are made and kept, for histogram matching.

    Raises:
        DataError: a scan is missing or damaged, or has another size than the first.
    """
    files = [folder.path("image", scan) for scan in scans] + [folder.path("label", scan) for scan in labelled]
    hash_files(files, folder.folder)  # all at once
    rule = short_digest({"percentiles": list(percentiles)})
    read_image, read_tables = (partial(each, folder, percentiles) for each in (_image, _tables))
    image = [_packed(folder, scan, "image", f"slices-{rule}", partial(read_image, scan)) for scan in scans]
    asked = scans if with_quantiles else ()
    tables = [_packed(folder, scan, "image", f"quantiles-{rule}", partial(read_tables, scan)) for scan in asked]
    label = {scan: _packed(folder, scan, "label", "label-u8", partial(_label, folder, scan)) for scan in labelled}
    lengths = [len(each) for each in image]
    for scan, one in zip(scans, image, strict=True):
        other = label.get(scan, one)
        if one.shape[1:] != image[0].shape[1:] or one.shape[1] != one.shape[2] or other.shape != one.shape:
            raise DataError(
                f"{folder.path('image', scan)}: slices of shape {one.shape}, label {other.shape}; expected both alike, "
                f"square, and as in {scans[0]} ({image[0].shape[1:]}). Prepare the data set again."
            )
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(int)
    return SliceStore(
        image,
        torch.from_numpy(np.concatenate(tables)) if tables else torch.zeros(0, N_QUANTILES),
        label,
        np.repeat(np.array(scans), lengths),
        dict(zip(scans, starts.tolist(), strict=False)),
    )


def _packed(folder: PreparedFolder, scan: str, kind: str, name: str, read: Callable[[Path], np.ndarray]) -> np.ndarray:
    file = folder.path(kind, scan)
    return packed([file], read, folder.folder / PACKED / f"{name}_{scan}", folder.folder)[0]


def _image(folder: PreparedFolder, percentiles: tuple[float, float], scan: str, _: Path) -> np.ndarray:
    return normalise_slices(folder.image(scan).array, percentiles).astype(np.float16)


def _tables(folder: PreparedFolder, percentiles: tuple[float, float], scan: str, _: Path) -> np.ndarray:
    return slice_quantiles(folder.image(scan).array, percentiles)


def _label(folder: PreparedFolder, scan: str, _: Path) -> np.ndarray:
    return folder.label(scan).array
