"""ISIC 2017 part 1, skin lesions: dermoscopic colour images and one mask each, found by the challenge's folder names.

Source: Codella et al., ISBI 2018; the parts are used as in superpixel-guided learning (MICCAI 2021): training and test,
without the official validation part.
"""

import re
from pathlib import Path

from data.prepare.splits import split_by_part
from data.sources.raw_images import (
    IMAGE_SUFFIXES,
    ImageSource,
    RawImage,
    log_inventory,
    match_ids,
    read_rgb,
    refuse_unpaired,
)
from util.errors import DataError
from util.inventory import list_files

PARTS = {"Training": "train", "Validation": "unused", "Test_v2": "test"}  # as in the folder names -> official split
IMAGE_NAME = rf"(ISIC_\d+)({'|'.join(IMAGE_SUFFIXES)})"  # ISIC_0000000_superpixels.png is none
SUPERPIXELS_NAME = r"ISIC_\d+_superpixels\.png"
MASK_NAME = r"(ISIC_\d+)_segmentation\.png"


def find_images(raw: Path) -> list[RawImage]:
    """Finds the images and masks of all available parts.

    Args:
        raw: the folder that holds `ISIC-2017_Training_Data`, `ISIC-2017_Training_Part1_GroundTruth` and so on.

    Raises:
        DataError: nothing there, two files for one id, an image without its mask or the reverse, or an image in two
            parts.
    """
    files, left_out = list_files(raw)
    found: dict[str, RawImage] = {}
    for part in PARTS:
        image_folder, mask_folder = (raw / f"ISIC-2017_{part}_{kind}" for kind in ("Data", "Part1_GroundTruth"))
        images, masks = (
            match_ids((file for file in files if file.parent in _places(folder)), pattern)
            for folder, pattern in ((image_folder, IMAGE_NAME), (mask_folder, MASK_NAME))
        )
        refuse_unpaired(masks, images, f"image in {image_folder}")
        refuse_unpaired(images, masks, f"mask in {mask_folder}")
        twice = sorted(set(found) & set(masks))
        if twice:
            raise DataError(
                f"{masks[twice[0]]}: also in another part ({found[twice[0]].image}). Remove one of the two."
            )
        found |= {id_: RawImage(id_, images[id_], {"lesion": (masks[id_],)}, part) for id_ in masks}
    if not found:
        raise DataError(
            f"ISIC2017: no masks under {raw}; expected ISIC-2017_Training_Part1_GroundTruth/ISIC_0000000_segmentation"
            ".png and ISIC-2017_Training_Data/ISIC_0000000.jpg. Download and unpack them (see "
            "data/ISIC2017/README.md), or name their folder with --raw."
        )
    used = {file for image in found.values() for file in image.files}
    log_inventory("ISIC2017", raw, files, left_out, used, _why_unused)
    return [found[id_] for id_ in sorted(found)]


def _places(folder: Path) -> tuple[Path, Path]:
    """The folder, and the one of the same name in it that some programs unpack it into."""
    return folder, folder / folder.name


def _why_unused(file: Path) -> str:
    if re.fullmatch(SUPERPIXELS_NAME, file.name, re.IGNORECASE):
        return "superpixels of the challenge, which are not needed"
    if re.fullmatch(rf"{IMAGE_NAME}|{MASK_NAME}", file.name, re.IGNORECASE):
        return "in no folder such as ISIC-2017_Training_Data or ISIC-2017_Training_Part1_GroundTruth"
    return "without a name such as ISIC_0000000.jpg or ISIC_0000000_segmentation.png"


def official_split(images: list[RawImage]) -> dict[str, str]:
    """Training and test part as published; the validation part is not used.

    Raises:
        DataError: one of the two parts is not there.
    """
    missing = {part for part, split in PARTS.items() if split != "unused"} - {image.part for image in images}
    if missing:
        folders = " and ".join(f"ISIC-2017_{part}_Data" for part in sorted(missing, reverse=True))
        raise DataError(
            f"ISIC2017: {folders} not found next to {images[0].image.parent}; the official split needs the training "
            "and the test part. Download the missing part, or split the available images: `--split random:0.25` "
            "(fraction of test images) or `--split FILE.csv` (columns id, split)."
        )
    return split_by_part(images, PARTS)


SOURCE = ImageSource(find_images, read_rgb, {"official": official_split})
