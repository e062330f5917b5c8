"""Reading users' own pictures and masks: PNG, JPEG, TIFF and BMP of any depth and colour, upright."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from dataloaders.io.png import is_16_bit_colour, read_unchanged
from util.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
LOSSY_SUFFIXES, TIFF_SUFFIXES = (".jpg", ".jpeg"), (".tif", ".tiff")
GREATEST = 255  # value of 8-bit masks
GREY_WEIGHTS = (0.299, 0.587, 0.114)  # red, green, blue; ITU-R BT.601, as pillow's mode L


def is_deep(path: Path) -> bool:
    """Whether a picture has more than 8 bits per channel; reads the header alone.

    Raises:
        DataError: absent, no picture, or one of several pages.
    """
    try:
        with _opened(path) as image:
            return _is_deep(image)
    except UnidentifiedImageError:
        return read_unchanged(path).dtype != np.uint8


def read_picture(path: Path) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8, uint16 or float32, upright; transparency is dropped, palettes become colours.

    Raises:
        DataError: absent, damaged, or one of several pages.
    """
    array = _read(path)[0]
    return array if array.ndim == 2 else array[..., :3]


def read_binary_mask(path: Path) -> tuple[np.ndarray, int]:
    """A mask as (H, W) bool and the number of its grey pixels; see `threshold_mask`.

    Raises:
        DataError: absent, damaged, or a label map instead of a mask.
    """
    array, index = _read(path)
    array = _without_transparency(array)
    grey = array if array.ndim == 2 else array[..., :3].max(axis=-1)
    return threshold_mask(path, index if index is not None and not grey.any() else grey)


def threshold_mask(path: Path, grey: np.ndarray) -> tuple[np.ndarray, int]:
    """A mask as (H, W) bool, and the number of pixels that were neither background nor the object's one value.

    A mask of 0 and one other value is the object wherever it is not 0. Greys in between, left by interpolation or lossy
    compression, are thresholded at half of the largest value.

    Args:
        path: of the mask, for the message.
        grey: (H, W) uint8 or uint16.

    Raises:
        DataError: several values that are all in the lower half: a label map rather than greys.
    """
    greatest = GREATEST if grey.dtype == np.uint8 else np.iinfo(np.uint16).max
    values = np.unique(grey)
    values = values[values > 0]
    if len(values) <= 1:
        return grey > 0, 0
    if values[-1] <= greatest // 2:
        raise DataError(
            f"{path}: values {', '.join(map(str, values[:5]))} besides 0; expected a mask of 0 and one other value, or "
            f"greys up to {greatest}. Write the object as {greatest} and all else as 0."
        )
    return grey > greatest // 2, int(np.count_nonzero((grey > 0) & (grey < greatest)))


def read_grey_codes(path: Path) -> np.ndarray:
    """The codes of a label map as (H, W) integers; of a palette with colours, the indices.

    Raises:
        DataError: absent, damaged, with colours, or with fractions.
    """
    array, index = _read(path)
    array = _without_transparency(array)
    is_grey = array.ndim == 2 or (array[..., :1] == array[..., :3]).all()
    if index is not None and (not is_grey or not array.any()):
        return index
    if not is_grey:
        raise DataError(
            f"{path}: a picture with colours; expected grey codes. Give every class its colour in the description "
            "(classes: colour: [red, green, blue]), or export a label map."
        )
    grey = array if array.ndim == 2 else array[..., 0]
    if grey.dtype.kind == "f" and (grey % 1).any():
        raise DataError(f"{path}: values with fractions; expected whole numbers. Export the label map as integers.")
    return grey.astype(np.int64)


def read_colour_codes(path: Path) -> np.ndarray:
    """The colours of a colour-coded mask as (H, W, 3) uint8; transparent pixels are black.

    Raises:
        DataError: absent or damaged.
    """
    array = _without_transparency(_read(path)[0])
    array = np.repeat(array[..., None], 3, axis=-1) if array.ndim == 2 else array[..., :3]
    return array if array.dtype == np.uint8 else (array // 257).astype(np.uint8)


def orientation(path: Path) -> int:
    """The EXIF orientation of a picture, 1 to 8; 1 (upright) where none is stored."""
    try:
        with _opened(path) as image:
            return image.getexif().get(ExifTags.Base.Orientation, 1)
    except UnidentifiedImageError:
        return 1


def turn_upright(array: np.ndarray, exif_orientation: int) -> np.ndarray:
    """Turns and mirrors (H, W, ...) as an EXIF orientation asks for."""
    if exif_orientation >= 5:
        array = array.swapaxes(0, 1)
    if exif_orientation in (3, 4, 7, 8):
        array = array[::-1]
    if exif_orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def to_grey(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) to (H, W) of the same dtype."""
    if image.dtype == np.uint8:
        return np.asarray(Image.fromarray(image).convert("L"))
    grey = image @ np.array(GREY_WEIGHTS)
    return grey.astype(image.dtype) if image.dtype.kind == "f" else np.rint(grey).astype(image.dtype)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Opens a single picture; through a stream, because pillow 13 misreads turned TIFF files that it maps into memory.

    Raises:
        DataError: absent, damaged, or several pages.
        UnidentifiedImageError: not a picture, or of a depth that pillow does not know.
    """
    try:
        with path.open("rb") as stream, Image.open(stream) as image:
            n_pages = getattr(image, "n_frames", 1)
            if n_pages > 1:
                raise DataError(
                    f"{path}: {n_pages} pages; expected a single picture. Save each page as a file of its own, or "
                    "describe a volume as a scan (NIfTI)."
                )
            yield image
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Correct the path, or copy the file there.") from error
    except (DataError, UnidentifiedImageError):
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # pillow's, of damaged files
        raise DataError(f"{path}: cannot be read as an image ({error}). Copy or export the file again.") from error


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith(("I", "F")) or is_16_bit_colour(image)


def _read(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The upright pixels, (H, W) or (H, W, 3 or 4), and the indices (H, W) of a palette; None without one."""
    try:
        with _opened(path) as image:
            if not is_16_bit_colour(image):
                return _pixels(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        return read_unchanged(path), None
    turned = orientation(path)
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return turn_upright(read_unchanged(path), turned), None
    if turned >= 5:  # OpenCV turns TIFF files itself, but not these
        raise DataError(f"{path}: a turned TIFF (orientation {turned}) of 16-bit colours. Save it upright, or as PNG.")
    return read_unchanged(path), None


def _pixels(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    if image.mode in ("P", "PA"):
        return np.asarray(image.convert("RGB")), np.asarray(image.convert("P") if image.mode == "PA" else image)
    if image.mode.startswith("I"):
        array = np.asarray(image)
        fits = array.min() >= 0 and array.max() <= np.iinfo(np.uint16).max
        return array.astype(np.uint16 if fits else np.float32), None
    if image.mode == "F":
        return np.asarray(image), None
    mode = {"1": "L", "L": "L", "LA": "RGBA", "RGBA": "RGBA"}.get(image.mode, "RGB")
    return np.asarray(image.convert(mode)), None


def _without_transparency(array: np.ndarray) -> np.ndarray:
    """Sets transparent pixels to 0."""
    return np.where(array[..., 3:] > 0, array[..., :3], 0) if array.shape[2:] == (4,) else array
