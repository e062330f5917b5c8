"""From pictures of any size to the square grid of prepared images, and probabilities back to the picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image

Aspect = Literal["squeeze", "pad"]


@dataclass(frozen=True)
class Placement:
    """The place of a resized picture on the square grid, in pixels; the rest is zero padding."""

    size_px: int
    height_px: int
    width_px: int
    top_px: int = 0
    left_px: int = 0

    @classmethod
    def fit(cls, height_px: int, width_px: int, size_px: int, aspect: Aspect) -> "Placement":
        """Squeezes a picture to the square, or keeps its aspect and centres it."""
        if aspect == "squeeze":
            return cls(size_px, size_px, size_px)
        longest = max(height_px, width_px)
        rows, columns = (max(1, round(size_px * length / longest)) for length in (height_px, width_px))
        return cls(size_px, rows, columns, (size_px - rows) // 2, (size_px - columns) // 2)

    @classmethod
    def from_row(cls, row: Mapping[str, str], size_px: int) -> "Placement":
        """As a line of the manifest records it; squeezed where it records none."""
        if not row.get("scaled_height_px"):
            return cls(size_px, size_px, size_px)
        keys = ("scaled_height_px", "scaled_width_px", "pad_top_px", "pad_left_px")
        return cls(size_px, *(int(row[key]) for key in keys))

    def to_row(self) -> dict[str, str]:
        """Cells of the manifest; none where nothing was padded by rule."""
        values = (self.height_px, self.width_px, self.top_px, self.left_px)
        keys = ("scaled_height_px", "scaled_width_px", "pad_top_px", "pad_left_px")
        return {key: str(value) for key, value in zip(keys, values, strict=True)}

    @property
    def window(self) -> tuple[slice, slice]:
        """Rows and columns of the picture on the square."""
        return slice(self.top_px, self.top_px + self.height_px), slice(self.left_px, self.left_px + self.width_px)

    def pad(self, resized: np.ndarray) -> np.ndarray:
        """Places a resized picture (height_px, width_px, ...) on the square."""
        if resized.shape[:2] == (self.size_px, self.size_px):
            return resized
        square = np.zeros((self.size_px, self.size_px, *resized.shape[2:]), resized.dtype)
        square[self.window] = resized
        return square

    def to_picture(self, share: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
        """Takes a (size_px, size_px) probability map, float32, to the grid of a picture by bilinear interpolation."""
        return _resize_smoothly(share[self.window], height_px, width_px)


def resize_image(image: np.ndarray, size_px: int) -> np.ndarray:
    """(H, W) or (H, W, 3), values 0 to 255, to a square uint8 image, whatever the aspect.

    Source: superpixel-guided learning and T-Loss, released code. Note: shrinking averages over all pixels (pillow's
        bilinear filter); it does not pick four of them.
    """
    resized = Image.fromarray(image).resize((size_px, size_px), Image.Resampling.BILINEAR)
    return np.clip(np.rint(np.asarray(resized)), 0, 255).astype(np.uint8)


def place_image(image: np.ndarray, placement: Placement) -> np.ndarray:
    """(H, W) or (H, W, 3) on the square of a placement; uint16 stays uint16, all else becomes uint8.

    Note: squeezed images of 8 bits are resized by pillow, as published; others by OpenCV, which averages over areas of
        any depth.
    """
    size = placement.size_px
    if image.dtype != np.uint16 and (placement.height_px, placement.width_px) == (size, size):
        return resize_image(image, size)
    return placement.pad(_resize_smoothly(image, placement.height_px, placement.width_px))


def _resize_smoothly(image: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8, uint16 or float32 to another size: means of areas where it shrinks, else bilinear."""
    import cv2  # slow to import, and only images that are not squeezed to 8 bits need it

    is_smaller = height_px * width_px < image.shape[0] * image.shape[1]
    return cv2.resize(image, (width_px, height_px), interpolation=cv2.INTER_AREA if is_smaller else cv2.INTER_LINEAR)


def resize_nearest(mask: np.ndarray, height_px: int, width_px: int) -> np.ndarray:
    """(H, W) bool, uint8 or uint16 to another size, by the nearest pixel."""
    # Not as 16 bits, of which pillow takes other pixels than of 8 and 32 bits in some sizes.
    picture = Image.fromarray(mask.astype(np.uint8 if mask.dtype in (bool, np.uint8) else np.int32))
    array = np.asarray(picture.resize((width_px, height_px), Image.Resampling.NEAREST))
    return array > 0 if mask.dtype == bool else array.astype(mask.dtype)
