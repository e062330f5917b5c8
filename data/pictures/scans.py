"""The cases of a prepared set of scans; a slice stands for each."""

from functools import cached_property, partial
from pathlib import Path

import numpy as np

from data.pictures.cases import SUPERPIXELS, CasePicture, CaseSource, Layer
from data.superpixels.regions import SCALES
from dataloaders.description import DatasetSpec
from dataloaders.scans.folder import PreparedFolder, scan_files
from util.errors import DataError
from util.ids import natural_key
from util.inventory import first_names
from util.results.overlays import for_viewing
from util.results.pictures import stretch_greys

LABELLED, UNLABELLED = "labelled", "unlabelled"


class ScanCases(CaseSource):
    """Scans with their label maps and superpixels; see `CaseSource`."""

    def __init__(self, spec: DatasetSpec, folder: Path, pseudo: Path | None = None) -> None:
        super().__init__(spec, folder, pseudo)
        self.scans = PreparedFolder(folder, spec)

    @cached_property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """Scans with a label map and without one."""
        labelled, ids = scan_files(self.folder, "label"), self.scans.scan_ids
        parts = {LABELLED: [scan in labelled for scan in ids], UNLABELLED: [scan not in labelled for scan in ids]}
        found = {name: tuple(scan for scan, has in zip(ids, part, strict=True) if has) for name, part in parts.items()}
        return {name: part for name, part in found.items() if part}

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Superpixels by scale, and pseudo-labels."""
        counts = {scale: len(scan_files(self.folder, f"superpix-{scale}")) for scale in SCALES}
        found = tuple(Layer(SUPERPIXELS, scale, count) for scale, count in counts.items() if count)
        return (*found, *self.pseudo_layer(len({name.rpartition("_z")[0] for name in self.pseudo_ids})))

    @property
    def unfinished(self) -> tuple[str, ...]:
        """None: each scan has a file of its own."""
        return ()

    @property
    def stale(self) -> dict[str, str]:
        """By scale, with the scans; those without a record have nothing to compare."""
        found = {}
        for scale in (layer.name for layer in self.layers if layer.kind == SUPERPIXELS):
            reasons = {
                scan: reason
                for scan in scan_files(self.folder, f"superpix-{scale}")
                if (reason := self.scans.staleness(f"superpix-{scale}_{scan}"))
            }
            if reasons:
                scans = sorted(reasons, key=natural_key)
                found[f"superpix-{scale} of scans {first_names(scans)}"] = reasons[scans[0]]
        return found

    def path(self, case_id: str) -> Path:
        """The scan."""
        return self.scans.path("image", case_id)

    def read(self, case_id: str) -> CasePicture:
        """Reads a scan: the slice with the largest labelled area, without any label the middle one."""
        image = self.scans.image(case_id)
        label = self._volume("label", case_id, image.array.shape)
        values = np.array(list(self.spec.headings), int)
        areas = np.zeros(len(image.array), int) if label is None else np.isin(label, values).sum((1, 2))
        z = int(np.argmax(areas)) if areas.any() else len(areas) // 2
        turned = partial(_turned_slice, z=z, affine=image.affine)
        shown = None if label is None else turned(label)
        counts = np.zeros(256, int) if label is None else np.bincount(label.ravel(), minlength=256)
        scales = [each.name for each in self.layers if each.kind == SUPERPIXELS]
        pieces = {scale: self._volume(f"superpix-{scale}", case_id, image.array.shape) for scale in scales}
        codes = self.read_pseudo(f"{case_id}_z{z:03d}")
        return CasePicture(
            (255 * stretch_greys(turned(image.array))).astype(np.uint8),
            {} if shown is None else {value: shown == value for value in self.spec.headings},
            n_pixels={value: int(counts[value]) for value in self.spec.headings},
            shape=image.array.shape,
            place=f"slice {z + 1} of {len(image.array)}",
            aspect=for_viewing(image.array[:1], image.affine)[2],
            spacing_mm=image.spacing_mm,
            superpixels={scale: turned(ids) for scale, ids in pieces.items() if ids is not None},
            pseudo={name: for_viewing(code[None], image.affine)[0][0] for name, code in codes.items()},
        )

    def _volume(self, kind: str, scan: str, expected: tuple[int, ...]) -> np.ndarray | None:
        """A label map or superpixels, (D, H, W); None: there are none."""
        path = self.scans.path(kind, scan)
        if not path.exists():
            return None
        scale = kind.removeprefix("superpix-")
        volume = self.scans.label(scan) if kind == "label" else self.scans.pseudo_label(scan, scale)
        if volume.array.shape != expected:
            raise DataError(
                f"{path}: {volume.array.shape} voxels (D, H, W); expected those of the image, {expected}. Prepare the "
                "scan again."
            )
        return volume.array


def _turned_slice(volume: np.ndarray, z: int, affine: np.ndarray) -> np.ndarray:
    return for_viewing(volume[z : z + 1], affine)[0][0]
