"""PNG files in and out: stacks of slices, images, masks."""

import re
from pathlib import Path

import numpy as np
from PIL import Image

from util.errors import DataError
from util.files import atomic_write


def trailing_number(path: Path) -> int | None:
    """The integer at the end of a file's name, before its suffix: 7 for `IMG-0004-00007.png`; None without digits."""
    match = re.search(r"\d+$", path.stem)
    return int(match[0]) if match else None


def png_files(folder: Path) -> list[Path]:
    """The PNG files of a folder by the number that ends their names.

    Raises:
        DataError: there are none, a name has no number, or two have the same.
    """
    by_number: dict[int, Path] = {}
    for path in sorted(folder.glob("*.png")):
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
    """Reads the grey PNG files of a folder as (D, H, W), sorted by the number that ends their names.

    Raises:
        DataError: see `png_files`; or a file is damaged, is not grey, or differs in size from the first.
    """
    files = png_files(folder)
    slices = [_read_png(path) for path in files]
    for path, slice_ in zip(files, slices, strict=True):
        if slice_.shape != slices[0].shape:
            raise DataError(
                f"{path}: {slice_.shape} pixels; expected {slices[0].shape} as in {files[0].name}. Copy it again."
            )
    return np.stack(slices)


def _read_png(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            array = np.asarray(image)
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: not a readable PNG file, or truncated ({error}). Copy it again.") from error
    if array.ndim != 2:
        raise DataError(f"{path}: an array of shape {array.shape}; expected one grey channel (H, W).")
    return array


def read_image(path: Path) -> np.ndarray:
    """(H, W) or (H, W, 3) uint8 as stored.

    Raises:
        DataError: absent, damaged, or of another kind.
    """
    array = _read(path)
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise DataError(f"{path}: {array.dtype} of shape {array.shape}; expected 8-bit grey or RGB. Prepare it again.")
    return array


def read_mask(path: Path) -> np.ndarray:
    """(H, W) bool of a prepared mask: what is above 0.

    Raises:
        DataError: absent, damaged, or not one number per pixel.
    """
    array = _read(path)
    if array.ndim != 2:
        raise DataError(f"{path}: shape {array.shape}; expected a mask (rows, columns). Prepare it again.")
    return array > 0


def read_superpixels(path: Path) -> np.ndarray:
    """(H, W) int32 ids from 0.

    Raises:
        DataError: absent, damaged, or not one number per pixel.
    """
    array = _read(path)
    if array.ndim != 2:
        raise DataError(f"{path}: shape {array.shape}; expected ids (rows, columns). Make the superpixels again.")
    return array.astype(np.int32)


def _read(path: Path) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return np.asarray(image)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Run the step of `python -m data.prepare` that makes it.") from error
    except (OSError, ValueError, SyntaxError) as error:  # what pillow raises for damaged files
        raise DataError(f"{path}: cannot be read as an image ({error}). Make or download it again.") from error


def write_png(path: Path, array: np.ndarray) -> None:
    """Writes bool as 0 and 255, uint8 (grey or RGB) and uint16 as they are; whole or not at all."""
    with atomic_write(path) as temporary:
        Image.fromarray(array.astype(np.uint8) * 255 if array.dtype == bool else array).save(temporary, format="PNG")
