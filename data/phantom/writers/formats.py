"""What every raw on-disk format of the phantom has to offer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

Made = TypeVar("Made")


@dataclass(frozen=True)
class ScanRequest:
    """Which scan to make; equal requests give equal scans, in whatever order and process they are made."""

    scan_index: int  # position among the published scan ids, from 0
    seed: int = 0
    size_px: int = 160  # rows and columns; of a picture: the shorter side

    def generators(self, dataset: str) -> tuple[np.random.Generator, np.random.Generator]:
        """Two independent streams: one for the patient, which no `size_px` changes, and one for the scanner."""
        name = int.from_bytes(dataset.encode(), "little")
        patient, scanner = np.random.SeedSequence([self.seed, self.scan_index, name]).spawn(2)
        return np.random.default_rng(patient), np.random.default_rng(scanner)


@dataclass(frozen=True, eq=False)
class Picture:
    """One image with the truth about it.

    Attributes:
        image: (H, W, 3) uint8 in colour, or (H, W) uint8 or uint16.
        masks: structure -> bool (H, W); they may overlap.
    """

    image: np.ndarray
    masks: dict[str, np.ndarray]


@dataclass(frozen=True)
class RawFormat(Generic[Made]):
    """A data set in the layout in which its publishers offer it for download.

    Attributes:
        n_published: scans in the published data set; the phantom has no more.
        folders: what it writes below the output folder.
        make: request -> what `Made` is: image and label of a volume, label values as in the catalogue; or a picture.
        write: output folder, request -> writes one scan whole or not at all; a scan that is there is left alone.
        sizes_px: smallest and largest size that can be asked for.
        size_step_px: sizes must be multiples of it.
    """

    n_published: int
    folders: tuple[str, ...]
    make: Callable[[ScanRequest], Made]
    write: Callable[[Path, ScanRequest], None]
    sizes_px: tuple[int, int] = (32, 512)
    size_step_px: int = 1
