"""Masks of raw images from files of one mask each: united per structure, on the grid of the upright image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data.sources.raw_images import Masks, RawImage, read_raw_mask
from dataloaders.io import pictures
from util.errors import DataError


def unite_masks(raw: RawImage, shape: tuple[int, int]) -> Masks:
    """Reads the binary masks of an image; a structure without any file is absent.

    Args:
        raw: the image.
        shape: rows and columns of the upright image.

    Raises:
        DataError: a mask has another size than its image, is damaged, or is no mask.
    """
    return {structure: _unite(raw, files, shape) for structure, files in raw.masks.items()}


def _unite(raw: RawImage, files: Sequence[Path], shape: tuple[int, int]) -> tuple[np.ndarray, int]:
    """The union of the masks, (H, W) bool, and their number of pixels that were not binary."""
    if not files:
        return np.zeros(shape, bool), 0
    read = [read_raw_mask(file) for file in files]
    parts = [(_turn_as(raw, mask, shape), count) for mask, count in read]
    for file, (mask, _) in zip(files, parts, strict=True):
        require_size(raw, file, mask, shape)
        if mask.shape != parts[0][0].shape:
            raise _another_size(raw, file, mask, shape)
    return np.any([mask for mask, _ in parts], axis=0), sum(count for _, count in parts)


def require_size(raw: RawImage, file: Path, mask: np.ndarray, shape: tuple[int, int]) -> None:
    """Checks that a mask or label map has the size of its image, or one of the allowed fractions of it.

    Raises:
        DataError: it has not.
    """
    if not any(tuple(scale * length for length in mask.shape) == tuple(shape) for scale in raw.mask_scales):
        raise _another_size(raw, file, mask, shape)


def _another_size(raw: RawImage, file: Path, mask: np.ndarray, shape: tuple[int, int]) -> DataError:
    ratio = " or ".join("the same" if scale == 1 else f"1/{scale} of that" for scale in raw.mask_scales)
    return DataError(
        f"{file}: {mask.shape[0]} x {mask.shape[1]} pixels (rows x columns), but {raw.image.name} has "
        f"{shape[0]} x {shape[1]}{pictures.turned_note(raw.image)}; expected {ratio}. Unpack both files again."
    )


def _turn_as(raw: RawImage, mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The mask on the grid of the upright image where it was drawn on the image as stored."""
    scaled = [tuple(length // scale for length in shape) for scale in raw.mask_scales]
    return pictures.fit_to_picture(mask, next((each for each in scaled if each == mask.shape[::-1]), shape), raw.image)
