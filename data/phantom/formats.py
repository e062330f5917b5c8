"""What every raw on-disk format of the phantom has to offer."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataloaders.samples import Volume


@dataclass(frozen=True)
class ScanRequest:
    """Which scan to make; equal requests give equal scans, in whatever order and process they are made."""

    scan_index: int  # position among the published scan ids, from 0
    seed: int = 0
    size_px: int = 160  # rows and columns

    def generators(self, dataset: str) -> tuple[np.random.Generator, np.random.Generator]:
        """Two independent streams: one for the patient, which no `size_px` changes, and one for the scanner."""
        name = int.from_bytes(dataset.encode(), "little")
        patient, scanner = np.random.SeedSequence([self.seed, self.scan_index, name]).spawn(2)
        return np.random.default_rng(patient), np.random.default_rng(scanner)


@dataclass(frozen=True)
class RawFormat:
    """A data set in the layout in which its publishers offer it for download.

    Attributes:
        n_published: scans in the published data set; the phantom has no more.
        folders: what it writes below the output folder.
        make: request -> image and label, label values as in the catalogue.
        write: output folder, request -> writes one scan whole or not at all; a scan that is there is left alone.
    """

    n_published: int
    folders: tuple[str, ...]
    make: Callable[[ScanRequest], tuple[Volume, Volume]]
    write: Callable[[Path, ScanRequest], None]
