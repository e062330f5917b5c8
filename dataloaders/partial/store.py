"""The training images of one data set with the codes of their masks, on disk or on a device."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from dataloaders.images.folder import ImageFolder
from dataloaders.images.labels import image_tensor
from dataloaders.io.packed import packed
from dataloaders.io.png import read_image, read_mask
from dataloaders.sources.store import PACKED, SliceStore
from util.errors import DataError

PER_PLANE = 12  # classes of two bits each in a whole number that single precision holds
MARKED, UNKNOWN = 1, 2  # codes of a pixel; else 0
CHUNK = 16  # images copied to a device together


class Store(ABC):
    """N images of one data set, and for some of the K channels what each pixel is.

    Attributes:
        channels: those with masks, in the order of the codes.
    """

    channels: tuple[int, ...]

    @abstractmethod
    def __len__(self) -> int:
        """Number of images."""

    @property
    @abstractmethod
    def image_nbytes(self) -> int:
        """Memory of the images on a device."""

    @property
    @abstractmethod
    def code_nbytes(self) -> int:
        """Memory of the codes on a device."""

    @abstractmethod
    def on(self, device: torch.device, twin: "Store | None" = None) -> "Store":
        """The same, kept on a device.

        Args:
            device: where to.
            twin: a store of the same images that is there already; they are shared. None: there is none.
        """

    @abstractmethod
    def images(self, positions: np.ndarray) -> Float[Tensor, "B C S S"]:
        """Images, 0 to 1."""

    @abstractmethod
    def planes(self, positions: np.ndarray) -> Int[Tensor, "B P S S"]:
        """Codes of all channels in planes, see `unpack`."""

    def mean_columns(self, channel: int) -> Float[np.ndarray, " N"]:
        """The mean column of the marked pixels of a channel in each image, as a share of its side; NaN where none is.

        Args:
            channel: one of `channels`.
        """
        found = []
        for chunk in np.array_split(np.arange(len(self)), max(1, len(self) // CHUNK)):
            planes = self.planes(chunk)
            per_column = self.unpack(planes, max(self.channels) + 1)[0][:, channel].sum(1).double()  # (B, S)
            centre = (torch.arange(planes.shape[-1], device=planes.device) + 0.5) / planes.shape[-1]
            found.append((per_column @ centre.double()) / per_column.sum(1))
        return torch.cat(found).cpu().numpy()

    @property
    def n_planes(self) -> int:
        """Number of planes that hold the codes."""
        return -(-len(self.channels) // PER_PLANE)

    def unpack(
        self, planes: Int[Tensor, "B P h w"], n_channels: int
    ) -> tuple[Bool[Tensor, "B K h w"], Bool[Tensor, "B K h w"]]:
        """Marked and unknown pixels of all K channels; False in those without masks."""
        size = (len(planes), n_channels, *planes.shape[2:])
        marked, unknown = (torch.zeros(size, dtype=torch.bool, device=planes.device) for _ in range(2))
        for place, channel in enumerate(self.channels):
            code = planes[:, place // PER_PLANE] >> 2 * (place % PER_PLANE)
            marked[:, channel], unknown[:, channel] = (code & MARKED) > 0, (code & UNKNOWN) > 0
        return marked, unknown


class ArrayStore(Store):
    """Images and masks in arrays, which may be memory-mapped; only what is asked for is read.

    Args:
        image: (N, S, S, C) uint8 or uint16.
        masks: channel -> (N, S, S) uint8 of 0, `MARKED` or `UNKNOWN`.
    """

    def __init__(self, image: np.ndarray, masks: Mapping[int, np.ndarray]) -> None:
        self.image, self.masks, self.channels = image, masks, tuple(masks)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def image_nbytes(self) -> int:
        """Memory of the images on a device, where 16 bits take 32."""
        return self.image.nbytes * (2 if self.image.dtype == np.uint16 else 1)

    @property
    def code_nbytes(self) -> int:
        """Memory of the codes on a device."""
        return 4 * self.n_planes * int(np.prod(self.image.shape[:3]))

    def on(self, device: torch.device, twin: Store | None = None) -> Store:
        """Copies the codes to a device, and the images unless a twin has them."""
        chunks = np.array_split(np.arange(len(self)), max(1, len(self) // CHUNK))
        if isinstance(twin, PlacedStore):
            image = twin.image
        else:
            image = torch.cat([image_tensor(self.image[part]).to(device) for part in chunks])
        planes = torch.cat([self.planes(part).to(device) for part in chunks])
        return PlacedStore(image, planes, self.channels)

    def images(self, positions: np.ndarray) -> Float[Tensor, "B C S S"]:
        """Images, 0 to 1."""
        return to_unit(image_tensor(self.image[positions]))

    def planes(self, positions: np.ndarray) -> Int[Tensor, "B P S S"]:
        """Codes of all channels in planes."""
        planes = np.zeros((len(positions), self.n_planes, *self.image.shape[1:3]), np.int32)
        for place, mask in enumerate(self.masks.values()):
            planes[:, place // PER_PLANE] |= mask[positions].astype(np.int32) << 2 * (place % PER_PLANE)
        return torch.from_numpy(planes)


class PlacedStore(Store):
    """Images (N, S, S, C) and planes of codes (N, P, S, S) on a device."""

    def __init__(self, image: Tensor, codes: Tensor, channels: tuple[int, ...]) -> None:
        self.image, self.codes, self.channels = image, codes, channels

    def __len__(self) -> int:
        return len(self.image)

    @property
    def image_nbytes(self) -> int:
        """Memory of the images."""
        return self.image.nbytes

    @property
    def code_nbytes(self) -> int:
        """Memory of the codes."""
        return self.codes.nbytes

    def on(self, device: torch.device, twin: Store | None = None) -> Store:
        """Itself: it is where it is to be."""
        return self

    def images(self, positions: np.ndarray) -> Float[Tensor, "B C S S"]:
        """Images, 0 to 1."""
        return to_unit(self.image[torch.from_numpy(positions).to(self.image.device, non_blocking=True)])

    def planes(self, positions: np.ndarray) -> Int[Tensor, "B P S S"]:
        """Codes of all channels in planes."""
        return self.codes[torch.from_numpy(positions).to(self.codes.device, non_blocking=True)]


class SliceMasks(Store):
    """Slices of scans with masks from their label maps, or from arrays.

    Args:
        slices: the images, 0 to 1, and class values.
        values: channel -> class value.
        masks: further channels -> (N, S, S) uint8 of 0, `MARKED` or `UNKNOWN`.
    """

    def __init__(
        self,
        slices: SliceStore,
        values: Mapping[int, int],
        masks: Mapping[int, np.ndarray | Tensor] = MappingProxyType({}),
    ) -> None:
        self.slices, self.values, self.masks = slices, values, masks
        self.channels = (*values, *masks)

    def __len__(self) -> int:
        return len(self.slices)

    @property
    def image_nbytes(self) -> int:
        """Memory of slices and their class values on a device: three bytes a pixel."""
        return 3 * len(self) * self.slices.side_px**2

    @property
    def code_nbytes(self) -> int:
        """Memory of the masks on a device."""
        return sum(int(np.prod(mask.shape)) for mask in self.masks.values())

    def on(self, device: torch.device, twin: Store | None = None) -> Store:
        """Copies the masks to a device, and slices and class values unless a twin has them."""
        slices = twin.slices if isinstance(twin, SliceMasks) else self.slices.on(device)
        masks = {k: torch.from_numpy(np.array(mask)).to(device) for k, mask in self.masks.items()}
        return SliceMasks(slices, self.values, masks)

    def images(self, positions: np.ndarray) -> Float[Tensor, "B 1 S S"]:
        """Slices, 0 to 1."""
        return self.slices.images(positions)[:, None]

    def planes(self, positions: np.ndarray) -> Int[Tensor, "B P S S"]:
        """Codes of all channels in planes."""
        label = self.slices.labels(positions) if self.values else None
        size = (len(positions), self.n_planes, self.slices.side_px, self.slices.side_px)
        planes = torch.zeros(size, dtype=torch.int32, device=self.slices.device)
        for place, channel in enumerate(self.channels):
            if label is not None and channel in self.values:
                code = (label == self.values[channel]).int() * MARKED
            else:
                code = self._code(channel, positions).int()
            planes[:, place // PER_PLANE] |= code << 2 * (place % PER_PLANE)
        return planes

    def _code(self, channel: int, positions: np.ndarray) -> Tensor:
        mask = self.masks[channel]
        if isinstance(mask, Tensor):
            return mask[torch.from_numpy(positions).to(mask.device, non_blocking=True)]
        return torch.from_numpy(mask[positions])


def to_unit(image: Shaped[Tensor, "B H W C"]) -> Float[Tensor, "B C H W"]:
    """Stored images, uint8 or 16 bits as int32, to 0 to 1."""
    return image.permute(0, 3, 1, 2).float() / (255 if image.dtype == torch.uint8 else 65_535)


def pack_images(folder: ImageFolder, ids: Sequence[str], side_px: int, split: str) -> np.ndarray:
    """(N, S, S, C) images of a prepared folder, see `dataloaders.io.packed`.

    Raises:
        DataError: images of another size.
    """
    files = [folder.image_path(image_id) for image_id in ids]
    images = packed(files, _read_channels, folder.folder / PACKED / f"image_{split}", folder.folder)
    expected = (side_px, side_px, folder.spec.channels)
    if images.shape[1:] != expected:
        raise DataError(
            f"{folder.folder / 'images'}: images of shape (rows, columns, channels) {images.shape[1:]}; expected "
            f"{expected}. Set size_px to what was prepared, or prepare them again."
        )
    return images


def pack_masks(
    folder: Path, files: Sequence[Path], name: str, read: Callable[[Path], np.ndarray] | None = None
) -> np.ndarray:
    """(N, S, S) uint8 codes of some files; by default of masks, whose pixels are marked or not.

    Args:
        folder: the prepared folder, in which the array is kept.
        files: in the order of the images.
        name: of the array.
        read: file -> codes.
    """
    return packed(files, read or _read_codes, folder / PACKED / name, folder)


def _read_channels(path: Path) -> np.ndarray:
    image = read_image(path)
    return image if image.ndim == 3 else image[..., None]


def _read_codes(path: Path) -> np.ndarray:
    return read_mask(path).astype(np.uint8) * np.uint8(MARKED)
