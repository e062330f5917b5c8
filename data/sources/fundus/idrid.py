"""IDRiD part A, lesions of diabetic retinopathy and the optic disc: palette masks, none where there is no such lesion.

Source: Porwal et al., Data 3(3), 2018; its official parts.
"""

import logging
from pathlib import Path

from data.sources.fundus.downloads import Download, by_part, make_source
from data.sources.fundus.lesions import LESIONS, read_lesions
from data.sources.raw_images import ImageSource, Masks, RawImage, refuse_unpaired
from dataloaders.description import DatasetSpec
from dataloaders.samples import Origin
from util.errors import DataError
from util.inventory import first_names

FOLDERS = {"a. Training Set": "train", "b. Testing Set": "test"}  # official part -> split
MASK_FOLDERS = {
    "EX": ("3. Hard Exudates", "EX"),
    "HE": ("2. Haemorrhages", "HE"),
    "SE": ("4. Soft Exudates", "SE"),
    "MA": ("1. Microaneurysms", "MA"),
    "disc": ("5. Optic Disc", "OD"),
}
IMAGE_NAME = r"IDRiD_(\d\d)\.jpg"  # those of the parts B and C have three digits
EXAMPLE = "1. Original Images/a. Training Set/IDRiD_01.jpg"
REASONS = (
    ("/[BC]\\. ", "of parts B and C, without masks"),
    (r"/IDRiD_\d{3}\.jpg$", "of parts B and C, without masks"),
    (r"\.(txt|csv|pdf)$", "texts"),
)

log = logging.getLogger(__name__)


def source(spec: DatasetSpec) -> ImageSource:
    """How the set is found, read and split."""
    return make_source(spec, find_images, {"official": by_part(FOLDERS)}, read_masks)


def find_images(raw: Path) -> list[RawImage]:
    """Finds the photographs and their masks; images without a file of some lesion show none of it.

    Args:
        raw: a folder that holds, at any depth, `1. Original Images` and `2. All Segmentation Groundtruths`.

    Raises:
        DataError: nothing there, two files for one id, an image without a mask of its disc, or a mask without its
            image.
    """
    download = Download.open("IDRiD", raw)
    images = {part: download.find(f"/1\\. Original Images/{part}", IMAGE_NAME) for part in FOLDERS}
    download.require({id_: file for found in images.values() for id_, file in found.items()}, "images", EXAMPLE)
    result = sorted(
        (each for part in FOLDERS for each in _part(download, part, images[part])), key=lambda each: each.id
    )
    for name in LESIONS:
        absent = [each.id for each in result if not each.masks[name]]
        if absent:
            text = "IDRiD: %d images have no file of %s, which they do not show: %s"
            log.info(text, len(absent), name, first_names(absent))
    download.account(result, REASONS)
    return result


def _part(download: Download, part: str, images: dict[str, Path]) -> list[RawImage]:
    """The images of an official part."""
    masks = {
        name: download.find(f"/{part}/{folder}", rf"IDRiD_(\d\d)_{suffix}\.tif")
        for name, (folder, suffix) in MASK_FOLDERS.items()
    }
    for name, files in masks.items():
        refuse_unpaired(files, images, f"image in 1. Original Images/{part}")
        if name == "disc":
            refuse_unpaired(images, files, f"mask in {part}/5. Optic Disc")
    return [
        RawImage(
            f"IDRiD_{number}",
            image,
            {name: (files[number],) if number in files else () for name, files in masks.items()},
            part,
            origin=Origin(f"IDRiD_{number}"),
        )
        for number, image in images.items()
    ]


def read_masks(raw: RawImage, shape: tuple[int, int]) -> Masks:
    """Reads the masks of an image, see `read_lesions`.

    Args:
        raw: the image.
        shape: rows and columns of the upright image.

    Raises:
        DataError: there is no file of any lesion, or one that cannot be read or has another size.
    """
    if not any(raw.masks[name] for name in LESIONS):
        raise DataError(
            f"{raw.image}: no mask of any lesion; every published image shows some. Unpack the masks again, or remove "
            "the image."
        )
    return read_lesions(raw, shape)
