"""Shenzhen chest radiographs with masks of both lungs; images without a mask are named and left out.

Source: Jaeger et al., Quantitative Imaging in Medicine and Surgery 4, 2014 (images); Stirenko et al., IEEE ELNANO 2018
(masks); split as in T-Loss (MICCAI 2023), section 3.
"""

from collections.abc import Collection
from functools import partial
from pathlib import Path

from data.prepare.splits import choose_fraction, choose_stratified
from data.sources.raw_images import ImageSource, RawImage, log_inventory, match_ids, read_grey, refuse_unpaired
from util.errors import DataError
from util.inventory import list_files

IMAGE_FOLDERS = ("img", "CXR_png", "ChinaSet_AllFiles/CXR_png")
MASK_FOLDERS = ("mask", "mask/mask", "masks")
IMAGE_NAME, MASK_NAME = r"(CHNCXR_\d{4}_[01])\.png", r"(CHNCXR_\d{4}_[01])_mask\.png"
TEST_SHARE = 0.3
DIAGNOSES = {"0": "normal", "1": "tuberculosis"}  # by the last character of the id


def find_images(raw: Path) -> list[RawImage]:
    """Finds the masks and their radiographs.

    Args:
        raw: the folder that holds `img/CHNCXR_0001_0.png` and `mask/CHNCXR_0001_0_mask.png` and so on.

    Raises:
        DataError: nothing there, two files for one id, or a mask without its radiograph.
    """
    files, left_out = list_files(raw)
    images, masks = (
        match_ids((file for file in files if file.parent in {raw / folder for folder in folders}), pattern)
        for folders, pattern in ((IMAGE_FOLDERS, IMAGE_NAME), (MASK_FOLDERS, MASK_NAME))
    )
    if not images or not masks:
        what = "radiographs" if not images else "masks"
        raise DataError(
            f"SHENZHEN: no {what} under {raw}; expected img/CHNCXR_0001_0.png and mask/CHNCXR_0001_0_mask.png. "
            "Download them (see data/SHENZHEN/README.md), or name their folder with --raw."
        )
    refuse_unpaired(masks, images, f"radiograph in {raw / IMAGE_FOLDERS[0]}")
    used = {*masks.values(), *(images[id_] for id_ in masks)}
    unlabelled = {*images.values()} - used
    log_inventory("SHENZHEN", raw, files, left_out, used, partial(_why_unused, raw=raw, unlabelled=unlabelled))
    return [RawImage(id_, images[id_], {"lung": (masks[id_],)}, DIAGNOSES[id_[-1]]) for id_ in sorted(masks)]


def _why_unused(file: Path, raw: Path, unlabelled: Collection[Path]) -> str:
    if file in unlabelled:
        return "radiographs without a mask"
    if file.parent in {raw / folder for folder in IMAGE_FOLDERS}:
        return "without the name of a radiograph of Shenzhen, such as CHNCXR_0001_0.png"
    if file.parent in {raw / folder for folder in MASK_FOLDERS}:
        return "without the name of a mask of Shenzhen, such as CHNCXR_0001_0_mask.png"
    return f"in none of the folders {', '.join((*IMAGE_FOLDERS, *MASK_FOLDERS))}"


SOURCE = ImageSource(
    find_images,
    read_grey,
    {
        "stratified": partial(choose_stratified, share=TEST_SHARE),  # of each diagnosis; the paper's wording
        "reference": partial(choose_fraction, share=TEST_SHARE),  # of all; the released code
    },
)
