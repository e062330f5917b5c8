"""Walks a folder and sorts its files: volumes, DICOM series, pictures, and what is left out with the reason."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from dataloaders.io.dicom.files import DICOM_SUFFIXES, is_dicom_file
from dataloaders.io.nifti_names import HEADER_SUFFIXES, VOXEL_SUFFIXES, pair_of
from util.errors import DataError
from util.ids import natural_key
from util.inventory import is_hidden

Format = Literal["nifti", "dicom", "picture"]

NIFTI_SUFFIXES = (".nii", ".nii.gz")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif")
VOLUME_SUFFIXES = (".mha", ".mhd", ".nrrd", ".mgz", ".mnc")
DICOM_INDEX = "dicomdir"  # a table of contents, not a slice


@dataclass(frozen=True)
class Item:
    """A file, the header of a NIfTI pair, or the folder of one DICOM series.

    Attributes:
        path: relative to the folder that is described, with slashes; of a series the folder's, `.` for the root.
        format: how it is read.
        n_files: 1, 2 of a pair, or the number of DICOM files.
    """

    path: str
    format: Format
    n_files: int = 1


@dataclass(frozen=True)
class LeftOut:
    """What is not used, and why; `n_files` files."""

    path: str
    reason: str
    n_files: int = 1


@dataclass
class Listing:
    """All that a folder holds.

    Attributes:
        items: what may be an image or a label, by path.
        left_out: other files.
        n_ignored: hidden files and files of the operating system, such as thumbnails; not counted elsewhere.
    """

    items: list[Item] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    n_ignored: int = 0

    @property
    def n_files(self) -> int:
        """Files that are used or named."""
        return sum(each.n_files for each in (*self.items, *self.left_out))


def list_folder(root: Path, ignored: tuple[str, ...] = ()) -> Listing:
    """Lists a folder and all folders below; links are followed, each folder is visited once.

    Args:
        root: the folder.
        ignored: patterns such as `*_t1*`; paths that match are left out.

    Raises:
        DataError: no such folder, or a prepared one.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected the folder that holds your scans or images.")
    if is_prepared(root):
        raise DataError(
            f"{root}: this is a prepared folder, an output of `frugalseg prepare`; expected the original scans or "
            "images. To validate it, run `frugalseg check` on it."
        )
    listing = Listing()
    for folder, names in _walk(root, listing):
        _sort(root, folder, names, ignored, listing)
    listing.items.sort(key=lambda item: natural_key(item.path))
    listing.left_out.sort(key=lambda each: natural_key(each.path))
    return listing


def is_prepared(folder: Path) -> bool:
    """Whether a folder is an output of `frugalseg prepare`."""
    if (folder / "manifest.json").is_file():
        return any(folder.glob("image_*.nii.gz"))
    return (folder / "manifest.csv").is_file() and (folder / "images").is_dir() and (folder / "masks").is_dir()


def _walk(root: Path, listing: Listing) -> Iterator[tuple[Path, list[str]]]:
    """Yields each folder with the names of its files; linked folders last, so that real paths come first."""
    pending, visited = [root], set()
    linked: list[Path] = []
    while pending or linked:
        folder = pending.pop(0) if pending else linked.pop(0)
        relative = folder.relative_to(root).as_posix()
        if (real := folder.resolve()) in visited:
            continue
        visited.add(real)
        if is_prepared(folder):
            n_files = sum(len(files) for _, _, files in os.walk(folder))
            listing.left_out.append(LeftOut(relative, "a prepared folder, an output of `frugalseg prepare`", n_files))
            continue
        try:
            children = sorted(folder.iterdir())
        except OSError as error:
            listing.left_out.append(LeftOut(relative, f"folder cannot be read ({error.strerror})", 0))
            continue
        visible = [child for child in children if not _is_hidden(child.name)]
        files = [child.name for child in visible if not child.is_dir()]
        listing.n_ignored += sum(_is_hidden(child.name) and not child.is_dir() for child in children)
        for child in visible:
            if child.is_dir():
                (linked if child.is_symlink() else pending).append(child)
        yield folder, files


def _is_hidden(name: str) -> bool:
    return is_hidden(name) or name.lower() == DICOM_INDEX


def _sort(root: Path, folder: Path, names: list[str], ignored: tuple[str, ...], listing: Listing) -> None:
    """Sorts the files of one folder into items and what is left out."""
    series: list[str] = []
    for name in names:
        path = (folder / name).relative_to(root).as_posix()
        lower = name.lower()
        if any(PurePosixPath(path).match(pattern) for pattern in ignored):
            listing.left_out.append(LeftOut(path, "matches --ignore"))
        elif not (folder / name).is_file():
            listing.left_out.append(LeftOut(path, "broken link, or no regular file"))
        elif lower.endswith(NIFTI_SUFFIXES):
            listing.items.append(Item(path, "nifti"))
        elif lower.endswith((*HEADER_SUFFIXES, *VOXEL_SUFFIXES)):
            _sort_half(folder / name, path, listing)
        elif lower.endswith(PICTURE_SUFFIXES):
            listing.items.append(Item(path, "picture"))
        elif lower.endswith(DICOM_SUFFIXES) or is_dicom_file(folder / name):
            series.append(name)
        else:
            listing.left_out.append(LeftOut(path, _explain_suffix(lower)))
    if series:
        listing.items.append(Item(folder.relative_to(root).as_posix(), "dicom", len(series)))


def _sort_half(file: Path, path: str, listing: Listing) -> None:
    """Sorts the header or the voxels of a NIfTI or Analyze pair: the header stands for both."""
    pair = pair_of(file)
    if pair is None:
        listing.left_out.append(LeftOut(path, "header or voxels of a NIfTI or Analyze pair without the other"))
    elif file == pair[0] and pair_of(pair[1]) != pair:
        listing.left_out.append(LeftOut(path, f"a second header of {pair[1].name}"))
    elif file == pair[0]:
        listing.items.append(Item(path, "nifti", 2))
    elif pair_of(pair[0]) != pair:
        listing.left_out.append(LeftOut(path, f"second voxels of {pair[0].name}"))


def _explain_suffix(name: str) -> str:
    if name.endswith(VOLUME_SUFFIXES):
        return "volume format that is not supported; convert it to NIfTI (.nii.gz), with its header if it has one"
    suffix = PurePosixPath(name).suffix
    return f"neither scan nor image ({suffix} file)" if suffix else "neither scan nor image"
