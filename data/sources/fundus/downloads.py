"""The files of a download of fundus photographs: found by folder and name, each used or left out with a reason."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from data.prepare.splits import split_by_part
from data.sources.raw_images import (
    ImageSource,
    Masks,
    RawImage,
    SplitRule,
    log_inventory,
    match_ids,
    read_rgb,
    refuse_unpaired,
)
from dataloaders.description import DatasetSpec
from util.errors import DataError
from util.files import short_digest
from util.inventory import ARCHIVE, is_archive, list_files

Reasons = Sequence[tuple[str, str]]  # pattern of the path below the download -> why such a file is not used


@dataclass(frozen=True)
class Download:
    """All files below the folder of a download.

    Attributes:
        name: of the data set.
        raw: the folder.
        files: visible files below it.
        left_out: path -> reason, of what is no visible file.
    """

    name: str
    raw: Path
    files: list[Path]
    left_out: dict[Path, str]

    @classmethod
    def open(cls, name: str, raw: Path) -> "Download":
        """Lists the files."""
        return cls(name, raw, *list_files(raw))

    def find(self, folder: str, name: str) -> dict[str, Path]:
        """Id -> file of the files of a name in a folder.

        Args:
            folder: pattern of the end of the folder's path below the download, such as "/train/image"; empty: any.
            name: pattern of the file's name; its first group is the id, see `match_ids`.

        Raises:
            DataError: two files for one id.
        """
        places = re.compile(f"(?:{folder})/$", re.IGNORECASE)
        return match_ids((file for file in self.files if places.search(f"{self._below(file.parent)}/")), name)

    def require(self, found: Mapping[str, Path], what: str, example: str) -> None:
        """Checks that something was found.

        Raises:
            DataError: nothing was.
        """
        if not found:
            raise DataError(
                f"{self.name}: no {what} under {self.raw}; expected files such as {example}, at any depth. Download "
                f"and unpack them (see data/{self.name}/README.md), or name their folder with --raw."
            )

    def find_pairs(self, image: str, mask: str, masks: str, example: str) -> tuple[dict[str, Path], dict[str, Path]]:
        """Images and masks at any depth, by the first group of their patterns; every mask has an image.

        Args:
            image: pattern of the names of images, see `find`.
            mask: likewise, of masks.
            masks: the masks in words.
            example: names that are expected.

        Raises:
            DataError: none of either, two files for one id, or a mask without its image.
        """
        found = self.find("", image), self.find("", mask)
        for each, what in zip(found, ("images", masks), strict=True):
            self.require(each, what, example)
        refuse_unpaired(found[1], found[0], "image")
        return found

    def account(self, images: Sequence[RawImage], reasons: Reasons) -> None:
        """Logs how many files were used, and why the others were not; the first of `reasons` that fits counts."""
        used = {file for image in images for file in image.files}
        log_inventory(self.name, self.raw, self.files, self.left_out, used, partial(self._why_unused, reasons=reasons))

    def _why_unused(self, file: Path, reasons: Reasons) -> str:
        if is_archive(file.name):
            return ARCHIVE
        place = self._below(file)
        known = (reason for pattern, reason in reasons if re.search(pattern, place, re.IGNORECASE))
        return next(known, f"with a name or folder that is none of those in data/{self.name}/README.md")

    def _below(self, path: Path) -> str:
        return "/" + path.relative_to(self.raw).as_posix()


def make_source(
    spec: DatasetSpec,
    find: Callable[[Path], list[RawImage]],
    split_rules: Mapping[str, SplitRule],
    read_masks: Callable[[RawImage, tuple[int, int]], Masks] | None = None,
) -> ImageSource:
    """The source of a set of fundus photographs: colours of 8 bits; prepared again when the field's rule changes."""
    settings = short_digest({"field": spec.grid.field, "aspect": spec.grid.aspect})
    return ImageSource(find, read_rgb, split_rules, read_masks=read_masks, settings=settings)


def put_all(split: str) -> SplitRule:
    """The rule that puts every image in one split."""
    return partial(_put_all, split=split)


def _put_all(images: Sequence[RawImage], split: str) -> dict[str, str]:
    return {image.id: split for image in images}


def by_part(split_of_part: Mapping[str, str]) -> SplitRule:
    """The rule that follows the official parts."""
    return partial(split_by_part, split_of_part=split_of_part)
