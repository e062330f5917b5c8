"""The round field of view of fundus photographs: found, cut out as a square, and maps pasted back to the picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
from jaxtyping import Bool, Shaped

from util.errors import DataError

FieldRule = Literal["largest", "legacy"]

THRESHOLD = 20  # grey value of 255 above which a pixel is not black surroundings; source: PSSNet, released code
DILATION_PX = 5  # diameter of the ellipse that joins dark vessels at the rim to the field; same source
LEAST_SHARE = 0.1  # of the picture's height and width that a field covers; less is a speck. Not published


@dataclass(frozen=True)
class SquareCrop:
    """A box of a picture, centred on a square of its longer side; the rest of the square is padding.

    An odd difference of the sides puts the extra pixel at the bottom or right.

    Attributes:
        original_height_px, original_width_px: of the picture.
        crop_top_px, crop_left_px: first row and column of the box in the picture.
        crop_height_px, crop_width_px: of the box.
    """

    original_height_px: int
    original_width_px: int
    crop_top_px: int
    crop_left_px: int
    crop_height_px: int
    crop_width_px: int

    def __post_init__(self) -> None:
        """Checks the box.

        Raises:
            DataError: it is empty or extends beyond the picture.
        """
        rows = 0 <= self.crop_top_px < self.crop_top_px + self.crop_height_px <= self.original_height_px
        columns = 0 <= self.crop_left_px < self.crop_left_px + self.crop_width_px <= self.original_width_px
        if not (rows and columns):
            raise DataError(
                f"{self}: expected a box of at least one pixel within the picture. Prepare the image again."
            )

    @classmethod
    def whole(cls, height_px: int, width_px: int) -> "SquareCrop":
        """The whole picture, which is only padded."""
        return cls(height_px, width_px, 0, 0, height_px, width_px)

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> "SquareCrop":
        """As a line of the manifest records it; the whole picture where it records no box."""
        if not row.get("crop_height_px"):
            return cls.whole(int(row["original_height_px"]), int(row["original_width_px"]))
        return cls(**{each.name: int(row[each.name]) for each in fields(cls)})

    def to_row(self) -> dict[str, str]:
        """Cells of the manifest."""
        return {each.name: str(getattr(self, each.name)) for each in fields(self)}

    @property
    def side_px(self) -> int:
        """Side of the square."""
        return max(self.crop_height_px, self.crop_width_px)

    @property
    def pad_top_px(self) -> int:
        """Rows of padding above the box."""
        return (self.side_px - self.crop_height_px) // 2

    @property
    def pad_left_px(self) -> int:
        """Columns of padding to the left of the box."""
        return (self.side_px - self.crop_width_px) // 2

    @property
    def in_picture(self) -> tuple[slice, slice]:
        """Rows and columns of the box in the picture."""
        bottom, right = self.crop_top_px + self.crop_height_px, self.crop_left_px + self.crop_width_px
        return slice(self.crop_top_px, bottom), slice(self.crop_left_px, right)

    @property
    def in_square(self) -> tuple[slice, slice]:
        """Rows and columns of the box in the square."""
        bottom, right = self.pad_top_px + self.crop_height_px, self.pad_left_px + self.crop_width_px
        return slice(self.pad_top_px, bottom), slice(self.pad_left_px, right)

    def to_square(self, picture: Shaped[np.ndarray, "H W *C"], fill: int = 0) -> Shaped[np.ndarray, "S S *C"]:
        """Cuts the box out of an image or a map of class values and pads it to the square.

        Args:
            picture: on the grid of the picture, any type. Maps hold their final class values: with raw values, in
                which 0 may be a structure, the padding would become that structure.
            fill: value of the padding.

        Raises:
            DataError: the picture has another size.
        """
        _require_size(picture, (self.original_height_px, self.original_width_px), "a picture")
        square = np.full((self.side_px, self.side_px, *picture.shape[2:]), fill, picture.dtype)
        square[self.in_square] = picture[self.in_picture]
        return square

    def to_picture(self, square: Shaped[np.ndarray, "S S *C"], fill: int = 0) -> Shaped[np.ndarray, "H W *C"]:
        """Pastes a mask, map or probabilities on the square back to the grid of the picture, without resampling.

        Args:
            square: side `side_px`, any type.
            fill: value of the picture outside the box.

        Raises:
            DataError: the square has another side.
        """
        _require_size(square, (self.side_px, self.side_px), "a map on the square")
        shape = (self.original_height_px, self.original_width_px, *square.shape[2:])
        picture = np.full(shape, fill, square.dtype)
        picture[self.in_picture] = square[self.in_square]
        return picture


def crop_field(image: Shaped[np.ndarray, "H W *C"], rule: FieldRule = "largest") -> SquareCrop:
    """Finds the box of a fundus photograph's field of view.

    Grey values above `THRESHOLD` are dilated once by an ellipse of `DILATION_PX`, so the box extends up to 2 px beyond
    the field.

    Args:
        image: (H, W) or (H, W, 3) RGB, uint8 or uint16.
        rule: largest: bounding box of the outer contour with the largest area. legacy: of the last contour whose
            box is wider or taller than the box kept before, in the order of OpenCV.

    Raises:
        DataError: another shape or type, or no field of view: no pixel is bright enough, or only a speck.

    Source: PSSNet, released code (`legacy`).
    Note: with `legacy` the result depends on the order of the contours: a long bright strip may replace the field.
    """
    import cv2  # slow to import

    contours, brightest = _bright_regions(image)
    height, width = image.shape[:2]
    expected = f"expected a bright field in black surroundings, grey above {THRESHOLD} of 255"
    remedy = "Remove the image from the set, or prepare the set without cropping."
    if not contours:
        raise DataError(f"no field of view: the brightest grey value is {brightest} of 255; {expected}. {remedy}")
    if rule == "largest":
        left, top, box_width, box_height = cv2.boundingRect(max(contours, key=cv2.contourArea))
    else:
        left, top, box_width, box_height = _legacy_box([cv2.boundingRect(each) for each in contours])
    if box_height < LEAST_SHARE * height or box_width < LEAST_SHARE * width:
        raise DataError(
            f"no field of view: the bright region is {box_height} x {box_width} px in a picture of {height} x {width}; "
            f"{expected}, at least {LEAST_SHARE:.0%} of each side. {remedy}"
        )
    return SquareCrop(height, width, top, left, box_height, box_width)


def field_mask(image: Shaped[np.ndarray, "H W *C"]) -> Bool[np.ndarray, "H W"]:
    """The pixels within the field of view, dark ones included: the largest bright region without its holes.

    Args:
        image: as in `crop_field`.

    Raises:
        DataError: as in `crop_field`.
    """
    import cv2

    crop_field(image)  # refuses images without a field
    contours, _ = _bright_regions(image)
    filled = np.zeros(image.shape[:2], np.uint8)
    cv2.drawContours(filled, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    return cv2.erode(filled, _ellipse()) > 0  # undoes the dilation


def _bright_regions(image: np.ndarray) -> tuple[list[np.ndarray], int]:
    """Outer contours of the dilated bright pixels, and the brightest grey value of 255."""
    import cv2

    if image.dtype not in (np.uint8, np.uint16) or image.shape[2:] not in ((), (3,)):
        raise DataError(
            f"an image of shape {image.shape} and type {image.dtype}; expected (H, W) or (H, W, 3) of 8 or 16 bits."
        )
    shallow = np.ascontiguousarray(image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8))
    grey = shallow if shallow.ndim == 2 else cv2.cvtColor(shallow, cv2.COLOR_RGB2GRAY)
    bright = cv2.dilate((grey > THRESHOLD).astype(np.uint8), _ellipse())
    contours, _ = cv2.findContours(bright, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return list(contours), int(grey.max(initial=0))


def _ellipse() -> np.ndarray:
    import cv2

    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (DILATION_PX, DILATION_PX))


def _legacy_box(boxes: Sequence[Sequence[int]]) -> Sequence[int]:
    """The last (x, y, width, height) that is wider or taller than the one kept before it."""
    kept: Sequence[int] = (0, 0, 0, 0)
    for box in boxes:
        if box[2] > kept[2] or box[3] > kept[3]:
            kept = box
    return kept


def _require_size(array: np.ndarray, expected: tuple[int, int], what: str) -> None:
    if array.shape[:2] != expected:
        raise DataError(f"{what} of {array.shape[0]} x {array.shape[1]} px; expected {expected[0]} x {expected[1]}.")
