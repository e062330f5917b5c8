"""DDR, lesions of diabetic retinopathy: photographs of many cameras and one mask file per kind of lesion.

Source: Li et al., Information Sciences 501, 2019; its official parts.
"""

from pathlib import Path

from data.sources.fundus.downloads import Download, by_part, make_source
from data.sources.fundus.lesions import LESIONS, read_lesions
from data.sources.raw_images import ImageSource, RawImage, refuse_unpaired
from dataloaders.description import DatasetSpec
from util.errors import DataError

SPLITS = {"train": "train", "valid": "validation", "test": "test"}  # official part -> split
IMAGE_NAME, MASK_NAME = r"([\w-]+)\.jpg", r"([\w-]+)\.tif"
EXAMPLE = "train/image/007-1774-100.jpg and train/label/EX/007-1774-100.tif"
REASONS = (
    ("/(DR_)?grading/", "of the grading task, without masks"),
    ("/lesion_detection/", "boxes of the detection task"),
    (r"/image/[^/]+$", "in image, but without a name such as 007-1774-100.jpg"),
    (r"/(label|segmentation label)/", "in a folder of masks, but not such as label/EX/007-1774-100.tif"),
)


def source(spec: DatasetSpec) -> ImageSource:
    """How the set is found, read and split."""
    return make_source(spec, find_images, {"official": by_part(SPLITS)}, read_lesions)


def find_images(raw: Path) -> list[RawImage]:
    """Finds the photographs and the masks of all four kinds of lesions.

    Args:
        raw: a folder that holds, at any depth, `train/image`, `train/label/EX` and so on; the masks of the part valid
            may be in `segmentation label`, as published.

    Raises:
        DataError: nothing there, two files for one id, an image without one of its masks or the reverse, or an image
            in two parts.
    """
    download = Download.open("DDR", raw)
    found: dict[str, RawImage] = {}
    for part in SPLITS:
        images = download.find(f"/{part}/image", IMAGE_NAME)
        masks = {name: download.find(f"/{part}/(?:label|segmentation label)/{name}", MASK_NAME) for name in LESIONS}
        for name, files in masks.items():
            refuse_unpaired(files, images, f"image in {part}/image")
            refuse_unpaired(images, files, f"mask in {part}/label/{name}")
        twice = sorted(set(found) & set(images))
        if twice:
            raise DataError(f"{images[twice[0]]}: also in another part ({found[twice[0]].image}). Remove one of them.")
        for id_, image in images.items():
            found[id_] = RawImage(id_, image, {name: (masks[name][id_],) for name in LESIONS}, part)
    download.require({id_: image.image for id_, image in found.items()}, "images", EXAMPLE)
    result = [found[id_] for id_ in sorted(found)]
    download.account(result, REASONS)
    return result
