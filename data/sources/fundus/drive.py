"""DRIVE, vessels of the first observer, with masks of the field of view; the test part may come without vessels.

Source: Staal et al., IEEE Transactions on Medical Imaging 23(4), 2004; its official parts.
"""

from pathlib import Path

from data.sources.fundus.downloads import Download, by_part, make_source, put_all
from data.sources.raw_images import ImageSource, RawImage, refuse_unpaired
from dataloaders.description import DatasetSpec

SPLITS = {"training": "train", "test": "test"}  # official part -> split
EXAMPLE = "training/images/21_training.tif and training/1st_manual/21_manual1.gif"
REASONS = (
    (r"/images/\d\d_(training|test)\.tif$", "images without vessels of the first observer"),
    (r"/mask/", "masks of the field of view of images that are not used"),
    (r"/2nd_manual/", "vessels of the second observer, which are not needed"),
)


def source(spec: DatasetSpec) -> ImageSource:
    """How the set is found, read and split."""
    return make_source(spec, find_images, {"official": by_part(SPLITS), "all_test": put_all("test")})


def find_images(raw: Path) -> list[RawImage]:
    """Finds the photographs, the vessels of the first observer, and the masks of the field of view.

    Images without vessels are named and left out.

    Args:
        raw: a folder that holds, at any depth, `training/images/21_training.tif`, `training/1st_manual/
            21_manual1.gif`, `training/mask/21_training_mask.gif` and so on, likewise `test`.

    Raises:
        DataError: nothing there, two files for one id, or a mask without its image.
    """
    download, found = Download.open("DRIVE", raw), {}
    for part in SPLITS:
        images = download.find(f"/{part}/images", rf"(\d\d)_{part}\.tif")
        vessels = download.find(f"/{part}/1st_manual", r"(\d\d)_manual1\.gif")
        fields = download.find(f"/{part}/mask", rf"(\d\d)_{part}_mask\.gif")
        for masks in (vessels, fields):
            refuse_unpaired(masks, images, f"image in {part}/images")
        for number, file in vessels.items():
            name = f"{number}_{part}"
            masks = {"vessel": (file,)}
            found[name] = RawImage(name, images[number], masks, part, field=fields.get(number))
    download.require({name: image.image for name, image in found.items()}, "images with vessels", EXAMPLE)
    result = [found[name] for name in sorted(found)]
    download.account(result, REASONS)
    return result
