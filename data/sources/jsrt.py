"""JSRT chest radiographs with the SCR masks of lungs, heart and clavicles.

Source: Shiraishi et al., American Journal of Roentgenology 174, 2000 (images); van Ginneken et al., Medical Image
Analysis 10, 2006 (masks). Note: the split that superpixel-guided learning used was never published; ours is a rule.
"""

import logging
import math
from pathlib import Path

import numpy as np

from data.prepare.splits import choose, split_by_part
from data.sources.raw_images import ImageSource, RawImage, log_inventory, match_ids, refuse_unpaired
from dataloaders.io import pictures
from dataloaders.io.decoding import LARGEST_PX
from util.errors import DataError
from util.inventory import first_names, list_files

PUBLISHED_IDS = (*(f"JPCLN{n:03d}" for n in range(1, 155)), *(f"JPCNN{n:03d}" for n in range(1, 94)))
N_TEST = 50
FOLDS = {"fold1": "train", "fold2": "test"}  # odd and even numbers; split of the rule `scr`
SIDES = {"lung": ("left lung", "right lung"), "heart": ("heart",), "clavicle": ("left clavicle", "right clavicle")}
NAME = r"(JPC[LN]N\d{{3}})\.({})"
GREATEST_12_BIT, GREATEST_16_BIT = 2**12 - 1, 2**16 - 1

log = logging.getLogger(__name__)


def find_images(raw: Path) -> list[RawImage]:
    """Finds the radiographs, and the masks of both sides of every structure.

    Args:
        raw: a folder that holds, at any depth, JPCLN001.IMG (or .png) and so on, and `fold1/masks/left lung/
            JPCLN001.gif` (or .png) and so on. Every other file is named as left out.

    Raises:
        DataError: nothing there, two files for one id, an image without one of its masks or the reverse.
    """
    files, left_out = list_files(raw)
    mask_files = [file for file in files if "masks" in file.relative_to(raw).parts]
    others = set(files) - set(mask_files)
    images = match_ids(others, NAME.format("png|img"))
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
    used = {*images.values(), *(file for masks in sides.values() for file in masks.values())}
    log_inventory("JSRT", raw, files, left_out, used, _why_unused)
    return [_raw_image(id_, images[id_], sides) for id_ in sorted(images)]


def _why_unused(file: Path) -> str:
    if "masks" in file.parts:
        folders = ", ".join(side for sides in SIDES.values() for side in sides)
        return f"in masks, but without a name such as JPCLN001.gif in one of the folders {folders}"
    return "without a name such as JPCLN001.IMG or JPCNN001.png"


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
        DataError: no square of two-byte pixels, a pixel of more than 12 bits in a .IMG file, or not readable.
    """
    if path.suffix.lower() == ".img":
        return _read_headerless(path)
    array = pictures.read_picture(path)
    if array.dtype == np.uint8:
        return (array if array.ndim == 2 else pictures.to_grey(array)).astype(np.float32)
    if array.dtype != np.uint16 or array.ndim != 2:
        raise DataError(
            f"{path}: {array.dtype} of shape {array.shape}; expected grey of 8 to 16 bits. Convert it again."
        )
    greatest = GREATEST_12_BIT if array.max() <= GREATEST_12_BIT else GREATEST_16_BIT
    return array.astype(np.float32) * np.float32(255 / greatest)


def _read_headerless(path: Path) -> np.ndarray:
    n_bytes = path.stat().st_size
    side = math.isqrt(n_bytes // 2)
    if not n_bytes or 2 * side**2 != n_bytes or side**2 > LARGEST_PX:
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
    unknown = [image.id for image in images if image.id not in splits]
    if unknown:
        log.warning("JSRT: %d images have no published id and are not used: %s", len(unknown), first_names(unknown))
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
