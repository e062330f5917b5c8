"""Shenzhen chest radiographs with masks of both lungs; images without a mask are skipped.

Source: Jaeger et al., Quantitative Imaging in Medicine and Surgery 4, 2014 (images); Stirenko et al., IEEE ELNANO 2018
(masks); split as in T-Loss (MICCAI 2023), section 3.
"""

from functools import partial
from pathlib import Path

from data.prepare.splits import choose_fraction, choose_stratified
from data.sources.raw_images import ImageSource, RawImage, match_ids, read_grey, refuse_unpaired
from util.errors import DataError

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
        DataError: nothing there, or a mask without its radiograph.
    """
    images = {
        id_: file for name in IMAGE_FOLDERS for id_, file in match_ids((raw / name).glob("*"), IMAGE_NAME).items()
    }
    masks = {id_: file for name in MASK_FOLDERS for id_, file in match_ids((raw / name).glob("*"), MASK_NAME).items()}
    if not images or not masks:
        what = "radiographs" if not images else "masks"
        raise DataError(
            f"SHENZHEN: no {what} under {raw}; expected img/CHNCXR_0001_0.png and mask/CHNCXR_0001_0_mask.png. "
            "Download them (see data/SHENZHEN/README.md), or name their folder with --raw."
        )
    refuse_unpaired(masks, images, f"radiograph in {raw / IMAGE_FOLDERS[0]}")
    return [RawImage(id_, images[id_], {"lung": (masks[id_],)}, DIAGNOSES[id_[-1]]) for id_ in sorted(masks)]


SOURCE = ImageSource(
    find_images,
    read_grey,
    {
        "stratified": partial(choose_stratified, share=TEST_SHARE),  # of each diagnosis; the paper's wording
        "reference": partial(choose_fraction, share=TEST_SHARE),  # of all; the released code
    },
)
