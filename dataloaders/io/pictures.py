"""Reading users' own pictures and masks: PNG, JPEG, TIFF and BMP of any depth and colour, upright."""

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from dataloaders.io.decoding import UnsupportedTiffError, is_16_bit_colour, opened, read_unchanged
from dataloaders.io.mask_greys import threshold_mask
from util.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
LOSSY_SUFFIXES, TIFF_SUFFIXES = (".jpg", ".jpeg"), (".tif", ".tiff")
ORIENTATIONS, UPRIGHT = range(1, 9), 1  # of EXIF
FIRST_TRANSPOSED = 5  # and those above: rows are stored as columns
PHOTOMETRIC, BITS_PER_SAMPLE, WHITE_IS_ZERO = 262, 258, 0  # tags of TIFF; pillow inverts 8 bits by itself, not 16
GREY_WEIGHTS = (0.299, 0.587, 0.114)  # red, green, blue; ITU-R BT.601, as pillow's mode L


def is_deep(path: Path) -> bool:
    """Whether a picture has more than 8 bits per channel; reads the header alone.

    Raises:
        DataError: absent, no picture, or one of several pages.
    """
    try:
        with opened(path) as image:
            return _is_deep(image)
    except UnsupportedTiffError:
        return read_unchanged(path).dtype != np.uint8


def read_picture(path: Path) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8, uint16 or float32, upright; transparency is dropped, palettes become colours.

    Raises:
        DataError: absent, damaged, or one of several pages.
    """
    array = read_pixels(path)[0]
    array = array.astype(np.float32) if array.dtype == np.int32 else array
    return array if array.ndim == 2 else array[..., :3]


def read_binary_mask(path: Path) -> tuple[np.ndarray, int]:
    """A mask as (H, W) bool and the number of its grey pixels; see `threshold_mask`.

    Raises:
        DataError: absent, damaged, a picture, or a label map instead of a mask.
    """
    array, index = read_pixels(path)
    array = without_transparency(array)
    grey = array if array.ndim == 2 else array[..., :3].max(axis=-1)
    return threshold_mask(path, index if index is not None and not grey.any() else grey)


def read_grey_codes(path: Path) -> np.ndarray:
    """The codes of a label map as (H, W) integers; of a palette with colours, the indices.

    Raises:
        DataError: absent, damaged, with colours, or with fractions.
    """
    array, index = read_pixels(path)
    array = without_transparency(array)
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
    array = without_transparency(read_pixels(path)[0])
    array = np.repeat(array[..., None], 3, axis=-1) if array.ndim == 2 else array[..., :3]
    if array.dtype not in (np.uint8, np.uint16):
        raise DataError(f"{path}: colours of type {array.dtype}; expected 8 or 16 bits. Export the mask as PNG.")
    return array if array.dtype == np.uint8 else (array // 257).astype(np.uint8)


def orientation(path: Path) -> int:
    """The EXIF orientation of a picture, 1 to 8; 1 (upright) where none is stored, as in formats without one."""
    if path.suffix.lower() not in SUFFIXES:
        return UPRIGHT
    try:
        with opened(path) as image:
            return _known_orientation(image)
    except UnsupportedTiffError:
        return UPRIGHT


def fit_to_picture(array: np.ndarray, shape: tuple[int, ...], picture: Path) -> np.ndarray:
    """A mask (H, W) on the grid of its upright picture: masks drawn on the picture as stored are turned as it is.

    Only sizes tell them: a mask of a picture that is square, or stored upside down, is taken as drawn on the displayed
    one.

    Args:
        array: the mask, of any type.
        shape: rows and columns of the upright picture; of a mask at lower resolution, of the mask that is expected.
        picture: its file, for the EXIF orientation.
    """
    if array.shape == tuple(shape) or array.shape != tuple(shape)[::-1]:
        return array
    turned = orientation(picture)
    return turn_upright(array, turned) if turned >= FIRST_TRANSPOSED else array


def turned_note(picture: Path) -> str:
    """That a picture is turned by its EXIF orientation, for messages; empty where it is not."""
    turned = orientation(picture)
    return f" as displayed (EXIF orientation {turned})" if turned != UPRIGHT else ""


def turn_upright(array: np.ndarray, exif_orientation: int) -> np.ndarray:
    """Turns and mirrors (H, W, ...) as an EXIF orientation asks for."""
    if exif_orientation >= FIRST_TRANSPOSED:
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


def _is_deep(image: Image.Image) -> bool:
    return image.mode.startswith(("I", "F")) or is_16_bit_colour(image)


def read_pixels(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The upright pixels, (H, W) or (H, W, 3 or 4), and the indices (H, W) of a palette; None without one.

    Raises:
        DataError: see `dataloaders.io.decoding.opened`.
    """
    try:
        with opened(path) as image:
            if not is_16_bit_colour(image):
                return _upright_pixels(image)
    except UnsupportedTiffError:
        return read_unchanged(path), None
    turned = orientation(path)
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return turn_upright(read_unchanged(path), turned), None
    if turned >= FIRST_TRANSPOSED:  # OpenCV turns TIFF files itself, but not these
        raise DataError(f"{path}: a turned TIFF (orientation {turned}) of 16-bit colours. Save it upright, or as PNG.")
    return read_unchanged(path), None


def _upright_pixels(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    """As `read_pixels`, of an opened picture."""
    is_inverted = image.mode.startswith("I") and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO
    largest = 2 ** max(getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))) - 1
    image.load()  # pillow then has turned TIFF files upright, and read metadata that stand at a file's end
    turned = _known_orientation(image)
    pixels, indices = _pixels(image)
    pixels = largest - pixels if is_inverted else pixels
    return turn_upright(pixels, turned), None if indices is None else turn_upright(indices, turned)


def _known_orientation(image: Image.Image) -> int:
    found = image.getexif().get(ExifTags.Base.Orientation, UPRIGHT)
    return found if found in ORIENTATIONS else UPRIGHT


def _pixels(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None]:
    if image.mode in ("P", "PA"):
        return np.asarray(image.convert("RGB")), np.asarray(image.convert("P") if image.mode == "PA" else image)
    if image.mode.startswith("I"):
        array = np.asarray(image)
        fits = array.min() >= 0 and array.max() <= np.iinfo(np.uint16).max
        return array.astype(np.uint16) if fits else array.astype(np.int32), None
    if image.mode == "F":
        return np.asarray(image), None
    mode = {"1": "L", "L": "L", "LA": "RGBA", "RGBA": "RGBA"}.get(image.mode, "RGB")
    return np.asarray(image.convert(mode)), None


def without_transparency(array: np.ndarray) -> np.ndarray:
    """Sets transparent pixels to 0."""
    return np.where(array[..., 3:] > 0, array[..., :3], 0) if array.shape[2:] == (4,) else array
