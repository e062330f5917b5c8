"""JSRT chest radiographs with the SCR masks of lungs, heart and clavicles.

Source: Shiraishi et al., American Journal of Roentgenology 174, 2000 (images); van Ginneken et al., Medical Image
Analysis 10, 2006 (masks). Note: the split that superpixel-guided learning used was never published; ours is a rule.
"""

import math
from pathlib import Path

import numpy as np
from PIL import Image

from data.prepare.splits import choose, split_by_part
from data.sources.raw_images import ImageSource, RawImage, match_ids, read_grey, refuse_unpaired
from util.errors import DataError

PUBLISHED_IDS = (*(f"JPCLN{n:03d}" for n in range(1, 155)), *(f"JPCNN{n:03d}" for n in range(1, 94)))
N_TEST = 50
FOLDS = {"fold1": "train", "fold2": "test"}  # odd and even numbers; split of the rule `scr`
SIDES = {"lung": ("left lung", "right lung"), "heart": ("heart",), "clavicle": ("left clavicle", "right clavicle")}
NAME = r"(JPC[LN]N\d{{3}})\.({})"
GREATEST_12_BIT, GREATEST_16_BIT = 2**12 - 1, 2**16 - 1


def find_images(raw: Path) -> list[RawImage]:
    """Finds the radiographs, and the masks of both sides of every structure.

    Args:
        raw: a folder that holds, at any depth, JPCLN001.IMG (or .png) and so on, and `fold1/masks/left lung/
            JPCLN001.gif` (or .png) and so on.

    Raises:
        DataError: nothing there, an image without one of its masks or the reverse.
    """
    files = [file for file in raw.rglob("*") if not file.relative_to(raw).parts[0].startswith("prepared_")]
    mask_files = [file for file in files if "masks" in file.relative_to(raw).parts]
    others = set(files) - set(mask_files)
    images = match_ids(others, NAME.format("png")) | match_ids(others, NAME.format("img"))
    if not images or not mask_files:
        what = "radiographs" if not images else "masks"
        raise DataError(
            f"JSRT: no {what} under {raw}; expected JPCLN001.IMG and fold1/masks/left lung/JPCLN001.gif and so on, at "
            "any depth. Download them (see data/JSRT/README.md), or name their folder with --raw."
        )
    sides = {side: _find_masks(side, mask_files) for sides in SIDES.values() for side in sides}
    for side, masks in sides.items():
        refuse_unpaired(masks, images, "radiograph")
        refuse_unpaired(images, masks, f"mask in fold1/masks/{side} or fold2/masks/{side}")
    return [_raw_image(id_, images[id_], sides) for id_ in sorted(images)]


def _find_masks(side: str, files: list[Path]) -> dict[str, Path]:
    return match_ids((file for file in files if file.parent.name.replace("_", " ") == side), NAME.format("gif|png"))


def _raw_image(id_: str, image: Path, sides: dict[str, dict[str, Path]]) -> RawImage:
    masks = {structure: tuple(sides[side][id_] for side in names) for structure, names in SIDES.items()}
    fold = next((fold for fold in FOLDS if fold in masks["heart"][0].parts), "")
    return RawImage(id_, image, masks, fold, mask_scales=(2,) if image.suffix.lower() == ".img" else (1, 2))


def read_radiograph(path: Path) -> np.ndarray:
    """Reads a radiograph as (H, W) float32 from 0 to 255, with the polarity of the file.

    A .IMG file is headerless: square, big-endian, 12 bits in two bytes. A .png file has 8 bits, or up to 16.

    Raises:
        DataError: no square of two-byte pixels, a pixel of more than 12 bits, or not readable.
    """
    if path.suffix.lower() == ".img":
        return _read_headerless(path)
    try:
        with Image.open(path) as image:
            is_deep = image.mode.startswith("I")
            array = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise DataError(f"{path}: cannot be read as an image ({error}). Download or convert it again.") from error
    if not is_deep:
        return read_grey(path).astype(np.float32)
    greatest = GREATEST_12_BIT if array.max() <= GREATEST_12_BIT else GREATEST_16_BIT
    return array.astype(np.float32) * np.float32(255 / greatest)


def _read_headerless(path: Path) -> np.ndarray:
    n_bytes = path.stat().st_size
    side = math.isqrt(n_bytes // 2)
    if not n_bytes or 2 * side**2 != n_bytes:
        raise DataError(
            f"{path}: {n_bytes} bytes; expected {2 * 2048**2} (2048 x 2048 pixels of two bytes, no header). The "
            "download is incomplete or another format: download the file again."
        )
    array = np.fromfile(path, dtype=">u2").reshape(side, side)
    if array.max() > GREATEST_12_BIT:
        raise DataError(
            f"{path}: values up to {array.max()}; expected 12 bits (0 to {GREATEST_12_BIT}), high byte first. Download "
            "the original file: this one was changed."
        )
    return array.astype(np.float32) * np.float32(255 / GREATEST_12_BIT)


def invert_bright_lungs(
    raw: RawImage, image: np.ndarray, masks: dict[str, np.ndarray]
) -> tuple[np.ndarray, dict[str, str]]:
    """Inverts a radiograph, where necessary, to the usual display: air dark, bone bright.

    The lungs are compared with the rest of their bounding box, mostly heart and mediastinum, without the air around the
    patient. Without a lung mask, .IMG files are taken as inverted, as published.

    Args:
        raw: where the image is from.
        image: (H, W) uint8.
        masks: structure -> (H, W) bool.

    Returns:
        The image, and the manifest's cell `is_inverted`: 1 where the values were inverted.
    """
    lung = masks["lung"]
    is_inverted = raw.image.suffix.lower() == ".img"
    if lung.any():
        rows, columns = (np.flatnonzero(lung.any(axis=axis)) for axis in (1, 0))
        box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        inside, between = image[box][lung[box]], image[box][~lung[box]]
        is_inverted = bool(inside.mean() > between.mean()) if between.size else is_inverted
    return (255 - image if is_inverted else image), {"is_inverted": str(int(is_inverted))}


def seeded_split(images: list[RawImage]) -> dict[str, str]:
    """50 of the 247 published ids for testing, drawn with seed 0, independent of which of them are available."""
    splits = choose(PUBLISHED_IDS, N_TEST)
    return {image.id: splits.get(image.id, "unused") for image in images}


def scr_split(images: list[RawImage]) -> dict[str, str]:
    """The folds of the SCR study: odd numbers for training, even ones for testing.

    Raises:
        DataError: the masks are not in folders of that name.
    """
    lost = next((image for image in images if image.part not in FOLDS), None)
    if lost:
        raise DataError(
            f"{lost.masks['heart'][0]}: in neither fold1 nor fold2; `--split scr` needs the folders of the SCR masks. "
            "Unpack them as they are, or leave --split out."
        )
    return split_by_part(images, FOLDS)


SOURCE = ImageSource(find_images, read_radiograph, {"seed0": seeded_split, "scr": scr_split}, invert_bright_lungs)
