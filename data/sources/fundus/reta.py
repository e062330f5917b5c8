"""RETA, vessels of the IDRiD images at 1024 x 1024 pixels; the masks of the test part are withheld by the authors.

Source: Lyu et al., Scientific Data 9, 2022.
"""

from pathlib import Path

from data.sources.fundus.downloads import Download, make_source, put_all
from data.sources.raw_images import ImageSource, RawImage
from dataloaders.description import DatasetSpec
from dataloaders.samples import Origin

IMAGE_NAME, MASK_NAME = r"IDRiD_(\d\d)\.(?:jpg|png|tif)", r"IDRiD_(\d\d)_vessel\.png"
EXAMPLE = "IDRiD_01.jpg and IDRiD_01_vessel.png"
REASONS = (
    (rf"/{IMAGE_NAME}$", "images without a mask of vessels, which the authors withhold for the test part"),
    (r"/IDRiD_\d\d_\w+\.\w+$", "other annotations, such as skeletons, which are not needed"),
)


def source(spec: DatasetSpec) -> ImageSource:
    """How the set is found, read and split."""
    return make_source(spec, find_images, {"all_train": put_all("train")})


def find_images(raw: Path) -> list[RawImage]:
    """Finds the photographs and their vessels, by name; images without a mask are named and left out.

    The patient is the IDRiD image that the photograph is a copy of.

    Args:
        raw: a folder that holds, at any depth, `IDRiD_01.jpg` (or .png, .tif) and `IDRiD_01_vessel.png` and so on.

    Raises:
        DataError: nothing there, two files for one id, or a mask without its image.
    """
    download = Download.open("RETA", raw)
    images, masks = download.find_pairs(IMAGE_NAME, MASK_NAME, "masks", EXAMPLE)
    result = [
        RawImage(name, images[key], {"vessel": (masks[key],)}, "train", origin=Origin(name))
        for key, name in ((key, f"IDRiD_{key}") for key in sorted(masks))
    ]
    download.account(result, REASONS)
    return result
