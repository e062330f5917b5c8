"""Raw images and their masks: the files of each image, and how they are read."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from dataloaders.io.pictures import threshold_mask
from dataloaders.samples import UNKNOWN, Origin
from util.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


@dataclass(frozen=True)
class RawImage:
    """An image of a download and the files of its masks.

    Attributes:
        id: its name in the prepared folder.
        image: its file.
        masks: structure -> the files whose union is the structure's mask.
        part: what a split may depend on: an official part, a fold, a diagnosis, the split of a table of files.
        mask_scales: allowed numbers of image rows per mask row.
        origin: whose image it is, and where from; without a patient: nobody else's.
        bits: of the prepared image, 8 or 16; the same for all images of a set.
        n_annotators: people who annotated it.
        has_label_maps: whether the files of `masks` are label maps of all structures, one per annotator.
    """

    id: str
    image: Path
    masks: Mapping[str, tuple[Path, ...]]
    part: str
    mask_scales: tuple[int, ...] = (1,)
    origin: Origin = UNKNOWN
    bits: int = 8
    n_annotators: int = 1
    has_label_maps: bool = False

    @property
    def files(self) -> list[Path]:
        """The image, then all masks, each once."""
        return list(dict.fromkeys([self.image, *(file for files in self.masks.values() for file in files)]))


SplitRule = Callable[[list[RawImage]], dict[str, str]]  # -> id -> train, validation, test or unused
Masks = dict[str, tuple[np.ndarray, int]]  # structure -> (H, W) bool, number of pixels that were not binary
Adjust = Callable[[RawImage, np.ndarray, dict[str, np.ndarray]], tuple[np.ndarray, dict[str, str]]]


@dataclass(frozen=True)
class ImageSource:
    """How the raw files of a set of images are found, read and split.

    Attributes:
        find: folder of the download -> its images, by ascending id.
        read: file -> (H, W) or (H, W, 3), uint8 or uint16, or (H, W) float32 on the scale of 0 to 255.
        split_rules: name -> rule; the first is the default.
        adjust: last change of the resized image, given its masks; also returns further cells of the manifest.
        read_masks: image and its (H, W) -> masks; None: binary mask files, united per structure.
        settings: all that shapes the prepared files, next to the raw ones; when it changes, all are prepared again.
    """

    find: Callable[[Path], list[RawImage]]
    read: Callable[[Path], np.ndarray]
    split_rules: Mapping[str, SplitRule]
    adjust: Adjust | None = None
    read_masks: Callable[[RawImage, tuple[int, int]], Masks] | None = None
    settings: str = ""


def match_ids(files: Iterable[Path], pattern: str) -> dict[str, Path]:
    """Id -> file of the names that match `pattern` in upper or lower case; its first group is the id.

    Ids are returned in capitals.
    """
    matches = ((re.fullmatch(pattern, file.name, re.IGNORECASE), file) for file in sorted(files))
    return {match[1].upper(): file for match, file in matches if match}


def refuse_unpaired(files: Mapping[str, Path], partners: Collection[str], partner: str) -> None:
    """Checks that every file has its partner, `partner` in words.

    Raises:
        DataError: one has not.
    """
    alone = sorted(set(files) - set(partners))
    if alone:
        raise DataError(
            f"{files[alone[0]]}: no {partner} for {alone[0]} ({len(alone)} such file(s)). Unpack the download again, "
            "or move files without partner elsewhere."
        )


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8; grey is repeated.

    Raises:
        DataError: absent or damaged.
    """
    return _read_as(path, "RGB")


def read_grey(path: Path) -> np.ndarray:
    """(H, W) uint8 from 0 to 255, also of files that repeat their grey in three channels.

    Raises:
        DataError: absent, damaged, or more than 8 bits per channel.
    """
    return _read_as(path, "L")


def read_raw_mask(path: Path) -> tuple[np.ndarray, int]:
    """Reads a mask of 8 bits; see `dataloaders.io.pictures.threshold_mask`.

    Raises:
        DataError: absent, damaged, or a label map instead of a mask.
    """
    return threshold_mask(path, read_grey(path))


def _read_as(path: Path, mode: str) -> np.ndarray:
    try:
        with Image.open(path) as image:
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{path}: {image.mode} pixels; expected 8 bits per channel. Download the file again.")
            return np.asarray(image.convert(mode))
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Unpack the download again.") from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # what pillow raises for damaged files
        raise DataError(f"{path}: cannot be read as an image ({error}). Download the file again.") from error
