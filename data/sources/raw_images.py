"""Raw images and their masks: the files of each image, and how they are read."""

import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloaders.io import pictures
from dataloaders.samples import UNKNOWN, Origin
from util.errors import DataError
from util.inventory import summary

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
RAW_SUFFIXES = (*pictures.SUFFIXES, ".gif", ".img", ".ppm", ".gz")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RawImage:
    """An image of a download and the files of its masks.

    Attributes:
        id: its name in the prepared folder.
        image: its file.
        masks: structure -> the files whose union is the structure's mask; without any, the structure is absent.
        part: what a split may depend on: an official part, a fold, a diagnosis, the split of a table of files.
        mask_scales: allowed numbers of image rows per mask row.
        origin: whose image it is, and where from; without a patient: nobody else's.
        bits: of the prepared image, 8 or 16; the same for all images of a set.
        n_annotators: people who annotated it.
        has_label_maps: whether the files of `masks` are label maps of all structures, one per annotator.
        field: mask of the pixels within the field of view of a fundus photograph; None: it is found in the image.
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
    field: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The image, then all masks and the mask of the field of view, each once."""
        masks = [file for files in self.masks.values() for file in files]
        return list(dict.fromkeys([self.image, *masks, *([self.field] if self.field else [])]))


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
        read_masks: image and its (H, W) -> masks; None: see `data.sources.mask_files.unite_masks`.
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

    Ids are returned in capitals and without spaces.

    Raises:
        DataError: two files for one id.
    """
    found: dict[str, Path] = {}
    for file in sorted(files):
        match = re.fullmatch(pattern, file.name, re.IGNORECASE)
        if match:
            id_ = match[1].upper().replace(" ", "")
            other = found.setdefault(id_, file)
            if other != file:
                raise DataError(
                    f"{file}: another file for {id_} is {other}; expected one. Remove the one that is wrong, or move "
                    "the copy out of this folder."
                )
    return found


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


def log_inventory(
    name: str,
    raw: Path,
    files: Collection[Path],
    left_out: Mapping[Path, str],
    used: Collection[Path],
    why_unused: Callable[[Path], str],
) -> None:
    """Logs how many files of a download were found, used and left out, and for which reasons.

    Args:
        name: of the data set.
        raw: folder of the download.
        files: all visible files below it, see `util.inventory.list_files`.
        left_out: path -> reason, of what is no visible file.
        used: those of `files` that belong to an image.
        why_unused: the reason for another one.
    """
    unused = {file: why_unused(file) for file in files if file not in used}
    level = logging.WARNING if any(file.suffix.lower() in RAW_SUFFIXES for file in unused) else logging.INFO
    log.log(level, "%s: %s", name, summary(len(files) + len(left_out), {**left_out, **unused}, raw))


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, upright; grey is repeated, transparency dropped.

    Raises:
        DataError: absent, damaged, or more than 8 bits per channel.
    """
    array = _read_8_bits(path)
    return np.repeat(array[..., None], 3, axis=-1) if array.ndim == 2 else array


def read_grey(path: Path) -> np.ndarray:
    """(H, W) uint8 from 0 to 255, upright, also of files that repeat their grey in three channels.

    Raises:
        DataError: absent, damaged, or more than 8 bits per channel.
    """
    array = _read_8_bits(path)
    return array if array.ndim == 2 else pictures.to_grey(array)


def read_raw_mask(path: Path) -> tuple[np.ndarray, int]:
    """Reads a mask, upright; see `dataloaders.io.mask_greys.threshold_mask`.

    Raises:
        DataError: absent, damaged, a picture, or a label map instead of a mask.
    """
    return pictures.read_binary_mask(path)


def _read_8_bits(path: Path) -> np.ndarray:
    array = pictures.read_picture(path)
    if array.dtype != np.uint8:
        raise DataError(f"{path}: {array.dtype} pixels; expected 8 bits per channel. Download the file again.")
    return array
