"""The training images of one data set in memory-mapped arrays, with the codes of their masks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from dataloaders.images.folder import ImageFolder
from dataloaders.images.labels import image_tensor
from dataloaders.io.packed import packed
from dataloaders.io.png import read_image, read_mask
from dataloaders.partial.config import to_unit
from util.errors import DataError

PER_PLANE = 12  # classes of two bits each in a whole number that single precision holds
MARKED, UNKNOWN = 1, 2  # codes of a pixel; else 0


@dataclass
class PartialStore:
    """N images of one data set, and for some of the K channels what each pixel is.

    Attributes:
        image: (N, S, S, C) uint8 or uint16.
        masks: channel -> (N, S, S) uint8 of 0, `MARKED` or `UNKNOWN`.
    """

    image: np.ndarray
    masks: Mapping[int, np.ndarray]
    _device: torch.device | None = field(default=None, init=False, repr=False)
    _placed: tuple[Tensor, Tensor] | None = field(default=None, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def channels(self) -> tuple[int, ...]:
        """The channels with masks, in the order of the codes."""
        return tuple(self.masks)

    @property
    def n_planes(self) -> int:
        """Number of planes that hold the codes; at least one."""
        return max(1, -(-len(self.masks) // PER_PLANE))

    @property
    def nbytes(self) -> int:
        """Memory of images and codes on a device."""
        is_deep = self.image.dtype == np.uint16
        return self.image.nbytes * (2 if is_deep else 1) + 4 * self.n_planes * int(np.prod(self.image.shape[:3]))

    def on(self, device: torch.device) -> "PartialStore":
        """Copies images and codes to a device, from which `read` then takes them."""
        everything = np.arange(len(self))
        chunks = np.array_split(everything, max(1, len(self) // 16))
        image = torch.cat([image_tensor(self.image[part]).to(device) for part in chunks])
        planes = torch.cat([torch.from_numpy(self._planes(part)).to(device) for part in chunks])
        self._device, self._placed = device, (image, planes)
        return self

    def read(self, positions: np.ndarray) -> tuple[Float[Tensor, "B C S S"], Int[Tensor, "B P S S"]]:
        """Images, 0 to 1, and codes of all channels in planes, see `unpack`."""
        if self._placed is not None and self._device is not None:
            where = torch.from_numpy(positions).to(self._device, non_blocking=True)
            image, planes = self._placed
            return to_unit(image[where]), planes[where]
        return to_unit(image_tensor(self.image[positions])), torch.from_numpy(self._planes(positions))

    def _planes(self, positions: np.ndarray) -> np.ndarray:
        planes = np.zeros((len(positions), self.n_planes, *self.image.shape[1:3]), np.int32)
        for place, mask in enumerate(self.masks.values()):
            planes[:, place // PER_PLANE] |= mask[positions].astype(np.int32) << 2 * (place % PER_PLANE)
        return planes

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


def pack_images(folder: ImageFolder, ids: Sequence[str], side_px: int, split: str) -> np.ndarray:
    """(N, S, S, C) images of a prepared folder, see `dataloaders.io.packed`.

    Raises:
        DataError: images of another size.
    """
    files = [folder.image_path(image_id) for image_id in ids]
    images = packed(files, _read_channels, folder.folder / ".packed" / f"image_{split}", folder.folder)
    expected = (side_px, side_px, folder.spec.channels)
    if images.shape[1:] != expected:
        raise DataError(
            f"{folder.folder / 'images'}: images of shape (rows, columns, channels) {images.shape[1:]}; expected "
            f"{expected}. Set size_px to what was prepared, or prepare them again."
        )
    return images


def pack_masks(
    folder: ImageFolder, files: Sequence[Path], name: str, read: Callable[[Path], np.ndarray] | None = None
) -> np.ndarray:
    """(N, S, S) uint8 codes of some files; by default of masks, whose pixels are marked or not."""
    return packed(files, read or _read_codes, folder.folder / ".packed" / name, folder.folder)


def _read_channels(path: Path) -> np.ndarray:
    image = read_image(path)
    return image if image.ndim == 3 else image[..., None]


def _read_codes(path: Path) -> np.ndarray:
    return read_mask(path).astype(np.uint8) * np.uint8(MARKED)
