"""PNG files in and out: stacks of slices, images, masks."""

import re
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.io.decoding import is_16_bit_colour, opened, read_unchanged
from dataloaders.io.pictures import read_grey_codes
from util.errors import DataError
from util.files import atomic_write
from util.inventory import is_hidden


def trailing_number(path: Path) -> int | None:
    """The integer at the end of a file's name, before its suffix: 7 for `IMG-0004-00007.png`; None without digits."""
    match = re.search(r"\d+$", path.stem)
    return int(match[0]) if match else None


def png_files(folder: Path) -> list[Path]:
    """The PNG files of a folder, `.png` or `.PNG`, by the number that ends their names; hidden files are skipped.

    Raises:
        DataError: there are none, a name has no number, or two have the same.
    """
    by_number: dict[int, Path] = {}
    for path in sorted(each for each in folder.glob("*") if each.suffix.lower() == ".png" and not is_hidden(each.name)):
        number = trailing_number(path)
        if number is None or number in by_number:
            found = "no slice number" if number is None else f"the slice number of {by_number[number].name}"
            raise DataError(
                f"{path}: {found} at the end of its name; expected one stack of files such as IMG-0004-00007.png, each "
                "with a number of its own. Move other files elsewhere."
            )
        by_number[number] = path
    if not by_number:
        raise DataError(f"{folder}: no *.png found; expected one per slice. Copy or download the folder again.")
    return [by_number[number] for number in sorted(by_number)]


def read_png_stack(folder: Path) -> np.ndarray:
    """Reads the grey PNG files of a folder as (D, H, W) integers, sorted by the number that ends their names.

    Grey may be stored in one channel, in three equal ones or as a palette of greys.

    Raises:
        DataError: see `png_files`; or a file is damaged, is not grey, or differs in size from the first.
    """
    files = png_files(folder)
    slices = [read_grey_codes(path) for path in files]
    for path, slice_ in zip(files, slices, strict=True):
        if slice_.shape != slices[0].shape:
            raise DataError(
                f"{path}: {slice_.shape} pixels; expected {slices[0].shape} as in {files[0].name}. Copy it again."
            )
    return np.stack(slices)


def read_image(path: Path) -> np.ndarray:
    """(H, W) or (H, W, 3), uint8 or uint16 as stored.

    Raises:
        DataError: absent, damaged, or of another kind.
    """
    array = read_stored(path)
    if array.dtype not in (np.uint8, np.uint16) or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,)):
        raise DataError(
            f"{path}: {array.dtype} of shape {array.shape}; expected grey or RGB of 8 or 16 bits. Prepare it again."
        )
    return array


def to_8_bit(image: np.ndarray) -> np.ndarray:
    """An image for display; one of 16 bits from its darkest to its brightest value, as detectors fill few of them."""
    if image.dtype == np.uint8:
        return image
    darkest, brightest = int(image.min()), int(image.max())
    return ((image - float(darkest)) * (255 / max(brightest - darkest, 1))).round().astype(np.uint8)


def read_mask(path: Path) -> np.ndarray:
    """(H, W) bool of a prepared mask: what is above 0.

    Raises:
        DataError: absent, damaged, or not one number per pixel.
    """
    array = read_stored(path)
    if array.ndim != 2:
        raise DataError(f"{path}: shape {array.shape}; expected a mask (rows, columns). Prepare it again.")
    return array > 0


def read_superpixels(path: Path) -> np.ndarray:
    """(H, W) int32 ids from 0.

    Raises:
        DataError: absent, damaged, or not one number per pixel.
    """
    array = read_stored(path)
    if array.ndim != 2:
        raise DataError(f"{path}: shape {array.shape}; expected ids (rows, columns). Make the superpixels again.")
    return array.astype(np.int32)


def read_stored(path: Path) -> np.ndarray:
    """The pixels of a PNG file as they are stored, without turning or converting them.

    Raises:
        DataError: absent, or see `dataloaders.io.decoding.opened`.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file. Run the step of `frugalseg prepare` that writes it.")
    with opened(path) as image:
        if not is_16_bit_colour(image):
            return np.asarray(image)
    return read_unchanged(path)


def write_png(path: Path, array: np.ndarray) -> None:
    """Writes bool as 0 and 255, uint8 and uint16 (grey or RGB) as they are; atomically."""
    write_pngs({path: array})


def write_pngs(files: Mapping[Path, np.ndarray]) -> None:
    """Writes several files as `write_png` does; if one cannot be written, none is replaced."""
    with ExitStack() as stack:
        for path, array in files.items():
            _encode(stack.enter_context(atomic_write(path)), array)


def _encode(path: Path, array: np.ndarray) -> None:
    if array.dtype == np.uint16 and array.ndim == 3:
        import cv2  # pillow cannot write 16-bit colour

        path.write_bytes(cv2.imencode(".png", np.ascontiguousarray(array[..., ::-1]))[1].tobytes())
    else:
        Image.fromarray(array.astype(np.uint8) * 255 if array.dtype == bool else array).save(path, "PNG")
