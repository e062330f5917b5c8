"""A prepared folder as scans, labels and pseudo-labels."""

import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import nibabel as nib
import numpy as np

from dataloaders.description import DatasetSpec
from dataloaders.io.nifti import read_nifti
from dataloaders.samples import Volume
from dataloaders.scans.manifest import Manifest, statistics_of
from util.errors import DataError
from util.files import read_json

MULTIPLE_PX = 8  # sides are cropped to a multiple of the encoders' output stride


class PreparedFolder:
    """Reads `image_N`, `label_N`, `superpix-SCALE_N` and the class index of one data set.

    In-plane sizes that are no multiple of 8 (the reference leaves an empty last row and column) are cropped at the end.
    Nothing is kept in memory but the manifest and the index.
    """

    def __init__(self, folder: Path, spec: DatasetSpec) -> None:
        self.folder, self.spec = folder, spec
        if not self.scan_ids:
            raise DataError(
                f"{folder}: no image_N.nii.gz found. Set path.data_dir to the folder that holds "
                f"{spec.prepared_folder()}, or run `python -m data.prepare {spec.name.lower()} --raw DIR --out DIR`."
            )

    @cached_property
    def scan_ids(self) -> tuple[int, ...]:
        """Ids N of the images in the folder, ascending."""
        names = (re.fullmatch(r"image_(\d+)\.nii\.gz", path.name) for path in self.folder.glob("image_*.nii.gz"))
        return tuple(sorted(int(name[1]) for name in names if name))

    @cached_property
    def manifest(self) -> Manifest:
        """The folder's manifest, empty if it was prepared by another program."""
        return Manifest.load(self.folder, self.spec.name)

    def shape(self, scan: int) -> tuple[int, ...]:
        """(D, H, W) of an image as stored, from its header."""
        return tuple(nib.load(self.folder / f"image_{scan}.nii.gz").shape[::-1])  # type: ignore[attr-defined]

    def image(self, scan: int) -> Volume:
        """Stored intensities, not normalised."""
        return self._read(f"image_{scan}.nii.gz")

    def label(self, scan: int) -> Volume:
        """Class values as uint8."""
        return self._read(f"label_{scan}.nii.gz", np.uint8)

    def pseudo_label(self, scan: int, scale: str) -> Volume:
        """Superpixel ids as int32; 0 belongs to none."""
        return self._read(self.pseudo_label_path(scan, scale).name, np.int32)

    def pseudo_label_path(self, scan: int, scale: str) -> Path:
        """The file of a scan's superpixels.

        Raises:
            DataError: there is none; the message gives the command that makes it.
        """
        path = self.folder / f"superpix-{scale}_{scan}.nii.gz"
        if not path.exists():
            raise DataError(
                f"{path}: no such pseudo-labels. Run `python -m data.superpixels {self.folder} --dataset "
                f"{self.spec.name} --scale {scale}`."
            )
        return path

    def class_slices(self, min_foreground_px: int = 1) -> dict[int, dict[int, list[int]]]:
        """{class value: {scan id: slices on which the class has at least `min_foreground_px` pixels}}."""
        path = self.folder / f"classmap_{min_foreground_px}.json"
        if not path.exists():
            raise DataError(
                f"{path}: no such class index. Run `python -m data.prepare.class_index {self.folder} --dataset "
                f"{self.spec.name} --min-foreground-px {min_foreground_px}`."
            )
        content = read_json(path)
        return {
            value: {int(scan): slices for scan, slices in content.get(name, {}).items()}
            for value, name in enumerate(self.spec.class_names)
        }

    def statistics(self, scans: Sequence[int]) -> list[dict[str, float | int]]:
        """Intensity statistics of scans, from the manifest; measured where it has none."""
        entries = self.manifest.scans
        return [entries.get(str(scan), {}).get("statistics") or statistics_of(self.image(scan).array) for scan in scans]

    def _read(self, name: str, dtype: type | None = None) -> Volume:
        volume = read_nifti(self.folder / name)
        rows, columns = (side - side % MULTIPLE_PX for side in volume.array.shape[1:])
        array = volume.array[:, :rows, :columns]
        return Volume(array if dtype is None else array.astype(dtype), volume.affine)
