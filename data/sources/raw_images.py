"""Raw images and their masks: which files belong together, and how they are read."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from util.errors import DataError

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
GREATEST = 255  # value of 8-bit masks


@dataclass(frozen=True)
class RawImage:
    """An image of a download and the files of its masks.

    Attributes:
        id: the name that it keeps.
        image: its file.
        masks: structure -> the files whose union is the structure's mask.
        part: what the data set says about it that a split may depend on: an official part, a fold, a diagnosis.
        mask_scales: allowed numbers of image rows per mask row.
    """

    id: str
    image: Path
    masks: Mapping[str, tuple[Path, ...]]
    part: str
    mask_scales: tuple[int, ...] = (1,)

    @property
    def files(self) -> list[Path]:
        """The image, then all masks."""
        return [self.image, *(file for files in self.masks.values() for file in files)]


SplitRule = Callable[[list[RawImage]], dict[str, str]]  # -> id -> train, test or unused
Adjust = Callable[[RawImage, np.ndarray, dict[str, np.ndarray]], tuple[np.ndarray, dict[str, str]]]


@dataclass(frozen=True)
class ImageSource:
    """How the raw files of a set of images are found, read and split.

    Attributes:
        find: folder of the download -> its images, by ascending id.
        read: file -> (H, W) or (H, W, 3) uint8, or (H, W) float32 on the same scale of 0 to 255.
        split_rules: name -> rule; the first is the one used unless the user asks for another.
        adjust: last change of the resized image, given its masks; also returns further cells of the manifest.
    """

    find: Callable[[Path], list[RawImage]]
    read: Callable[[Path], np.ndarray]
    split_rules: Mapping[str, SplitRule]
    adjust: Adjust | None = None


def by_id(files: Iterable[Path], pattern: str) -> dict[str, Path]:
    """Id -> file of those whose whole name matches `pattern`, in upper or lower case; its first group is the id.

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
            f"{files[alone[0]]}: no {partner} for {alone[0]} ({len(alone)} file(s) lack theirs). Unpack the download "
            "again, or move aside what has no partner."
        )


def read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, whatever the file's own colours.

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
    """Reads a mask as (H, W) bool and counts the pixels that were neither background nor the object's one value.

    A mask of 0 and one other value is the object wherever it is not 0. Greys in between, left by interpolation or lossy
    compression, are thresholded at half of 255.

    Raises:
        DataError: absent, damaged, or several values that are all in the lower half: labels rather than greys.
    """
    grey = read_grey(path)
    counts = np.bincount(grey.ravel(), minlength=GREATEST + 1)
    values = np.flatnonzero(counts[1:]) + 1
    if len(values) <= 1:
        return grey > 0, 0
    if values[-1] <= GREATEST // 2:
        raise DataError(
            f"{path}: values {', '.join(map(str, values[:5]))} besides 0; expected a mask of 0 and one other value, or "
            f"greys up to {GREATEST}. Write the object as {GREATEST} and all else as 0."
        )
    return grey > GREATEST // 2, int(counts[1:GREATEST].sum())


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
