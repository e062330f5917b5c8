"""The cases of a prepared set of images."""

from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

import numpy as np

from data.pictures.cases import NOISE, SUPERPIXELS, CasePicture, CaseSource, Layer
from dataloaders.description import DatasetSpec
from dataloaders.images.folder import SPLITS, ImageFolder
from dataloaders.io.png import read_image, read_mask, read_superpixels, to_8_bit
from util.ids import natural_key
from util.records import read_record

PLACES = {SUPERPIXELS: "superpixels/*", NOISE: "noisy/*/*"}  # folders of PNG files
RECORDS = {SUPERPIXELS: "superpixels.json", NOISE: "noise.json"}  # written last


class ImageCases(CaseSource):
    """Images with their masks, superpixels and noisy masks; see `CaseSource`."""

    def __init__(self, spec: DatasetSpec, folder: Path, pseudo: Path | None = None) -> None:
        super().__init__(spec, folder, pseudo)
        self.images = ImageFolder(folder, spec)

    @cached_property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """Train, validation, test and unused."""
        found = {split: tuple(sorted(self.images.ids(split), key=natural_key)) for split in SPLITS}
        return {split: ids for split, ids in found.items() if ids}

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Superpixels and noise by name, and pseudo-labels."""
        superpixels = [Layer(SUPERPIXELS, each.name, _count([each])) for each in self._finished[SUPERPIXELS]]
        noise = [Layer(NOISE, name, _count(each.values())) for name, each in self._noisy.items()]
        return (*superpixels, *noise, *self.pseudo_layer(len(self.pseudo_ids)))

    @property
    def unfinished(self) -> tuple[str, ...]:
        """Folders without a record."""
        found = {kind: [each for each in self.folder.glob(place) if each.is_dir()] for kind, place in PLACES.items()}
        left = [each for kind, folders in found.items() for each in folders if each not in self._finished[kind]]
        return tuple(sorted(each.relative_to(self.folder).as_posix() for each in left))

    @property
    def stale(self) -> dict[str, str]:
        """By folder; a damaged record, or one of an earlier version, has nothing to compare."""
        found = {}
        for kind, folders in self._finished.items():
            for folder in folders:
                record = read_record(folder / RECORDS[kind])
                if record and (reason := record.staleness(self.folder)):
                    found[folder.relative_to(self.folder).as_posix()] = reason
        return dict(sorted(found.items()))

    def path(self, case_id: str) -> Path:
        """The image."""
        return self.images.image_path(case_id)

    def read(self, case_id: str) -> CasePicture:
        """Reads an image with what exists of it; only training images have superpixels and noise."""
        image = to_8_bit(read_image(self.images.image_path(case_id)))
        classes = enumerate(self.spec.classes, start=1)
        masks = {value: read_mask(self.images.mask_path(case_id, each.name)) for value, each in classes}
        file = f"{case_id}.png"
        noisy = {
            name: {value: read_mask(each / file) for value, each in folders.items() if (each / file).exists()}
            for name, folders in self._noisy.items()
        }
        pieces = [each for each in self._finished[SUPERPIXELS] if (each / file).exists()]
        return CasePicture(
            image,
            masks,
            n_pixels={value: int(np.count_nonzero(mask)) for value, mask in masks.items()},
            shape=image.shape[:2],
            superpixels={each.name: read_superpixels(each / file) for each in pieces},
            noisy={name: each for name, each in noisy.items() if each},
            pseudo=self.read_pseudo(case_id),
        )

    @cached_property
    def _finished(self) -> dict[str, list[Path]]:
        """Kind of layer -> finished folders."""
        records = {kind: self.folder.glob(f"{place}/{RECORDS[kind]}") for kind, place in PLACES.items()}
        return {
            kind: sorted((record.parent for record in found), key=lambda each: natural_key(each.name))
            for kind, found in records.items()
        }

    @cached_property
    def _noisy(self) -> dict[str, dict[int, Path]]:
        """Name of a noise -> class value -> folder."""
        found: dict[str, dict[int, Path]] = {}
        for folder in self._finished[NOISE]:
            if folder.parent.name in self.spec.class_names[1:]:
                found.setdefault(folder.name, {})[self.spec.class_names.index(folder.parent.name)] = folder
        return {name: dict(sorted(folders.items())) for name, folders in found.items()}


def _count(folders: Iterable[Path]) -> int:
    return len({path.name for folder in folders for path in folder.glob("*.png")})
