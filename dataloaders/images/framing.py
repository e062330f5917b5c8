"""From a picture to the square grid of prepared images and back: what is cut out of it, and where it is placed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from dataloaders.images.field_of_view import SquareCrop, crop_field
from dataloaders.images.geometry import Placement, place_image, resize_nearest
from dataloaders.rules import GridRule


@dataclass(frozen=True)
class Framing:
    """The way of one picture to its prepared square.

    Attributes:
        height_px, width_px: of the picture.
        placement: of the whole picture, or of the square that is cut out, on the prepared grid.
        crop: the square that is cut out; None: nothing is.
    """

    height_px: int
    width_px: int
    placement: Placement
    crop: SquareCrop | None = None

    @classmethod
    def of(cls, picture: Shaped[np.ndarray, "H W *C"], grid: GridRule, size_px: int) -> "Framing":
        """The framing of a picture by the rule of its data set.

        Args:
            picture: (H, W) or (H, W, 3); where the field of view is cut out, uint8 or uint16.
            grid: whether the field of view is cut out, and what becomes of pictures that are not square.
            size_px: side of the prepared image.

        Raises:
            DataError: no field of view where it is to be cut out.
        """
        height, width = picture.shape[:2]
        if grid.field == "none":
            return cls(height, width, Placement.fit(height, width, size_px, grid.aspect))
        return cls(height, width, Placement(size_px, size_px, size_px), crop_field(picture, grid.field))

    @classmethod
    def from_row(cls, row: Mapping[str, str], size_px: int) -> "Framing":
        """As a line of the manifest records it."""
        crop = SquareCrop.from_row(row) if row.get("crop_height_px") else None
        height, width = int(row["original_height_px"]), int(row["original_width_px"])
        return cls(height, width, Placement.from_row(row, size_px), crop)

    def to_row(self, grid: GridRule) -> dict[str, str]:
        """Cells of the manifest."""
        size = {"original_height_px": str(self.height_px), "original_width_px": str(self.width_px)}
        if self.crop is not None:
            return size | self.crop.to_row()
        return size | (self.placement.to_row() if grid.aspect == "pad" else {})

    def image_to_square(self, picture: Shaped[np.ndarray, "H W *C"]) -> Shaped[np.ndarray, "S S *C"]:
        """The prepared image; see `dataloaders.images.geometry.place_image`."""
        return place_image(picture if self.crop is None else self.crop.to_square(picture), self.placement)

    def mask_to_square(self, mask: Shaped[np.ndarray, "H W"]) -> Shaped[np.ndarray, "S S"]:
        """The prepared mask or label map of final class values, each pixel from the nearest one."""
        part = mask if self.crop is None else self.crop.to_square(mask)
        return self.placement.pad(resize_nearest(part, self.placement.height_px, self.placement.width_px))

    def to_picture(self, shares: Float[np.ndarray, "K S S"]) -> Float[np.ndarray, "K H W"]:
        """Interpolates probability maps, float32, on the prepared grid at the pixels of the picture; 0 elsewhere.

        Masks are made of them afterwards: made before, their outlines would be steps as coarse as the prepared grid.
        """
        return np.stack([self._one_to_picture(share) for share in shares])

    def _one_to_picture(self, share: Float[np.ndarray, "S S"]) -> Float[np.ndarray, "H W"]:
        if self.crop is None:
            return self.placement.to_picture(share, self.height_px, self.width_px)
        return self.crop.to_picture(self.placement.to_picture(share, self.crop.side_px, self.crop.side_px))
