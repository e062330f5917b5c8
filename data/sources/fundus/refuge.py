"""REFUGE, optic disc and cup: one map of grey values per photograph; the parts were taken with two cameras.

Source: Orlando et al., Medical Image Analysis 59, 2020; its official parts.
"""

from pathlib import Path

import numpy as np

from data.sources.fundus.downloads import Download, by_part, make_source
from data.sources.mask_files import require_size
from data.sources.raw_images import ImageSource, Masks, RawImage
from dataloaders.description import DatasetSpec
from dataloaders.io import pictures
from dataloaders.samples import Origin
from util.errors import DataError

CUP, RIM, BACKGROUND = 0, 128, 255  # grey values of the maps
PARTS = {"G": "train", "N": "train", "V": "validation", "T": "test"}  # first letter of the name -> split
CAMERAS = {"train": "Zeiss", "validation": "Canon", "test": "Canon"}
IMAGE_NAME, MASK_NAME = r"([gnVT]\d{4})\.jpg", r"([gnVT]\d{4})\.(?:bmp|png)"
EXAMPLE = "Training400/Glaucoma/g0001.jpg and Disc_Cup_Masks/Glaucoma/g0001.bmp"
REASONS = ((rf"/{IMAGE_NAME}$", "images without a map of disc and cup"), (r"\.(xlsx|txt|pdf)$", "tables and texts"))


def source(spec: DatasetSpec) -> ImageSource:
    """How the set is found, read and split."""
    return make_source(spec, find_images, {"official": by_part({part: part for part in CAMERAS})}, read_masks)


def find_images(raw: Path) -> list[RawImage]:
    """Finds the photographs and their maps, by name; images without a map are named and left out.

    Args:
        raw: a folder that holds, at any depth, `g0001.jpg` and `g0001.bmp` and so on; the first letter is g or n
            (training: glaucoma or not), V (validation) or T (test).

    Raises:
        DataError: nothing there, two files for one id, or a map without its image.
    """
    download = Download.open("REFUGE", raw)
    images, maps = download.find_pairs(IMAGE_NAME, MASK_NAME, "maps of disc and cup", EXAMPLE)
    result = []
    for key in sorted(maps):
        part, file = PARTS[key[0]], maps[key]
        origin = Origin(domain=CAMERAS[part])
        result.append(RawImage(images[key].stem, images[key], {"disc": (file,), "cup": (file,)}, part, origin=origin))
    download.account(result, REASONS)
    return result


def read_masks(raw: RawImage, shape: tuple[int, int]) -> Masks:
    """Decodes a map to the masks of the disc, which includes the cup, and of the cup.

    The masks are cut out and padded afterwards: padding of the map itself, with 0, would become cup.

    Args:
        raw: the image.
        shape: rows and columns of the upright image.

    Raises:
        DataError: the map is damaged, has another size or other values.
    """
    file = raw.masks["disc"][0]
    codes = pictures.fit_to_picture(pictures.read_grey_codes(file), shape, raw.image)
    require_size(raw, file, codes, shape)
    values, counts = np.unique(codes, return_counts=True)
    found = zip(values, counts, strict=True)
    unknown = [f"{value} ({count} px)" for value, count in found if value not in (CUP, RIM, BACKGROUND)]
    if unknown:
        raise DataError(
            f"{file}: grey values {', '.join(unknown[:5])}; expected {CUP} (cup), {RIM} (rim of the disc) and "
            f"{BACKGROUND} (background) alone. Download the file again; a copy as JPEG cannot be used."
        )
    return {"disc": (codes <= RIM, 0), "cup": (codes == CUP, 0)}
