"""Interface of the raw on-disk formats of the phantom."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from data.phantom.bodies.build import Build, BuildChoice, draw_build

Sample = TypeVar("Sample")


@dataclass(frozen=True)
class ScanRequest:
    """Specifies a scan. Equal requests give equal scans, independent of order and process."""

    scan_index: int  # index into the published scan ids
    seed: int = 0
    size_px: int = 160  # rows and columns; for images the shorter side
    build: BuildChoice = "standard"  # of the patient, where the data set has it

    def generators(self, dataset: str) -> tuple[np.random.Generator, np.random.Generator]:
        """Independent generators of the patient and of the scanner; the patient does not depend on `size_px`."""
        patient, scanner, _ = self._seeds(dataset)
        return np.random.default_rng(patient), np.random.default_rng(scanner)

    def patient_build(self, dataset: str) -> Build | None:
        """The build of the patient; None: the standard one. Drawn builds have a generator of their own."""
        if self.build == "varied":
            return draw_build(np.random.default_rng(self._seeds(dataset)[2]))
        return self.build if isinstance(self.build, Build) else None

    def _seeds(self, dataset: str) -> list[np.random.SeedSequence]:
        name = int.from_bytes(dataset.encode(), "little")
        return np.random.SeedSequence([self.seed, self.scan_index, name]).spawn(3)


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """An image with its ground truth.

    Attributes:
        image: RGB (H, W, 3) uint8, or grey (H, W) uint8 or uint16.
        masks: structure -> bool (H, W); they may overlap.
    """

    image: np.ndarray
    masks: dict[str, np.ndarray]


@dataclass(frozen=True)
class RawFormat(Generic[Sample]):
    """A data set in the layout of its original download.

    Attributes:
        n_published: number of scans in the published data set, the maximum of the phantom.
        folders: folders created in the output folder.
        make: generates a scan: image and label of a volume, with the label values of the data set; or an image.
        write: writes one scan to the output folder, atomically; an existing scan is kept.
        finish: writes what is common to the scans, after them; None: nothing.
        sizes_px: smallest and largest allowed size.
        size_step_px: sizes must be a multiple of this.
        has_builds: whether patients can be of another than the standard build.
    """

    n_published: int
    folders: tuple[str, ...]
    make: Callable[[ScanRequest], Sample]
    write: Callable[[Path, ScanRequest], None]
    sizes_px: tuple[int, int] = (32, 512)
    size_step_px: int = 1
    has_builds: bool = False
    finish: Callable[[Path, Sequence[ScanRequest]], None] | None = None
