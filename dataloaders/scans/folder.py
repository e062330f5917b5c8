"""A prepared folder of scans: its files, and what is known of each scan."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from dataloaders.catalog import dataset_names
from dataloaders.description import FILE_NAME, DatasetSpec
from dataloaders.io.nifti import read_nifti, read_shape
from dataloaders.samples import UNKNOWN, Origin, Volume
from dataloaders.scans.labels import whole_values
from dataloaders.scans.manifest import Manifest, statistics_of
from dataloaders.scans.preprocess import parameters_of
from util.errors import DataError
from util.files import read_json_object
from util.ids import is_valid_id, natural_key
from util.records import hash_files

MULTIPLE_PX = 8  # sides are cropped to a multiple of the encoders' output stride
SUFFIX = ".nii.gz"


def scan_path(folder: Path, kind: str, scan: str) -> Path:
    """The file of a scan, `<kind>_<scan id>.nii.gz`; kinds: image, label, original-label and superpix-SCALE."""
    return folder / f"{kind}_{scan}{SUFFIX}"


def scan_files(folder: Path, kind: str) -> dict[str, Path]:
    """Scan id -> file of a kind, in natural order of the ids; files with other names are ignored."""
    prefix = f"{kind}_"
    paths = folder.glob(f"{prefix}*{SUFFIX}")
    files = {path.name.removeprefix(prefix).removesuffix(SUFFIX): path for path in paths}
    return {scan: files[scan] for scan in sorted(filter(is_valid_id, files), key=natural_key)}


def command_target(folder: Path, spec: DatasetSpec) -> str:
    """How `frugalseg` commands name a prepared folder: with its data set where no description is stored."""
    return f"{folder}" if (folder / FILE_NAME).exists() else f"{folder} --dataset {spec.name}"


def prepare_command(spec: DatasetSpec, manifest: Manifest | None = None) -> str:
    """The command that prepares a data set, for messages.

    Args:
        spec: the data set; a built-in one has a name, another one its description.
        manifest: of the prepared folder, whose parameters the command keeps; None: those of the data set.
    """
    target = f"{spec.name} --raw DIR --out DIR" if spec.name in dataset_names() else f"{spec.name}.json5 --out DIR"
    return " ".join([f"frugalseg prepare {target}", *_options(spec, manifest.parameters if manifest else {})])


def _options(spec: DatasetSpec, parameters: Mapping[str, Any]) -> list[str]:
    """Options of the command for parameters that are not the data set's."""
    found, usual = parameters.get("normalise", {}), parameters_of(spec)
    options = []
    if found.get("size_px", usual.size_px) != usual.size_px:
        options.append(f"--size-px {found['size_px']}")
        usual = parameters_of(spec, found["size_px"])
    if found.get("spacing_mm") and found["spacing_mm"] != usual.to_json()["spacing_mm"]:
        options.append(f"--spacing-mm {' '.join(f'{mm:g}' for mm in found['spacing_mm'])}")
    if found.get("size_rule", usual.size_rule) != usual.size_rule:
        options.append(f"--size-rule {found['size_rule']}")
    return options


@dataclass(frozen=True)
class ScanRecord:
    """What folds need to know of a scan."""

    is_labelled: bool = True
    origin: Origin = UNKNOWN
    fold: int | None = None  # whose query the scan is, from the table of files; None: not given


def scan_records(
    scans: Iterable[str], labelled: Container[str], manifest: Manifest, spec: DatasetSpec
) -> dict[str, ScanRecord]:
    """Scan id -> record, from the manifest.

    Args:
        scans: ids of the images.
        labelled: ids of the label maps. Published cases count as labelled in any case: they may lack a file, but must
            not become training scans for that reason.
        manifest: of the folder.
        spec: the data set.
    """
    entries = {scan: manifest.scans.get(scan, {}) for scan in scans}
    return {
        scan: ScanRecord(scan in labelled or scan in spec.cases, Origin.read(entry), entry.get("fold"))
        for scan, entry in entries.items()
    }


class PreparedFolder:
    """Reads the images, labels, superpixels and the class index of one data set.

    In-plane sizes that are no multiple of 8 (the reference leaves an empty last row and column) are cropped at the end.
    Only the manifest and the index are kept in memory.
    """

    def __init__(self, folder: Path, spec: DatasetSpec) -> None:
        self.folder, self.spec = folder, spec
        if not self.scan_ids:
            raise DataError(
                f"{folder}: no image_<scan id>{SUFFIX} found. Run `{prepare_command(spec)}`, or "
                f"set path.data_dir to the folder that holds {spec.prepared_folder()}."
            )

    @cached_property
    def scan_ids(self) -> tuple[str, ...]:
        """Ids of the images in the folder, in natural order."""
        return tuple(scan_files(self.folder, "image"))

    @cached_property
    def manifest(self) -> Manifest:
        """The folder's manifest, empty if it was prepared by another program."""
        return Manifest.load(self.folder, self.spec.name)

    @cached_property
    def records(self) -> dict[str, ScanRecord]:
        """Scan id -> whether it is labelled, its origin and its fold."""
        return scan_records(self.scan_ids, scan_files(self.folder, "label"), self.manifest, self.spec)

    def origin(self, scan: str) -> Origin:
        """The origin of a scan; its id is the patient where the table of files names none."""
        origin = self.records[scan].origin
        return origin if origin.patient else replace(origin, patient=scan)

    def path(self, kind: str, scan: str) -> Path:
        """The file of a scan, see `scan_path`."""
        return scan_path(self.folder, kind, scan)

    def shape(self, scan: str) -> tuple[int, ...]:
        """(D, H, W) of an image as stored, from its header."""
        return read_shape(self.path("image", scan))

    def image(self, scan: str) -> Volume:
        """Stored intensities, not normalised."""
        return self._read("image", scan)

    def label(self, scan: str) -> Volume:
        """Prepared class values as uint8."""
        return self._read("label", scan, np.uint8)

    def original_label(self, scan: str) -> np.ndarray | None:
        """Class values on the grid of the scan before preparation, frames stacked along z; uint8, whole.

        None where they were not stored, or the prepared label has been corrected since.
        """
        if not self.has_original_label(scan):
            return None
        return self._whole("original-label", scan, read_nifti(self.path("original-label", scan)).array, np.uint8)

    def has_original_label(self, scan: str) -> bool:
        """Whether `original_label` has the class values of the prepared label."""
        record, label = self.manifest.records.get(f"scan_{scan}"), self.path("label", scan)
        if record and hash_files([label], self.folder).get(label.name) != record.made.get(label.name):
            return False
        return self.path("original-label", scan).exists()

    def pseudo_label(self, scan: str, scale: str) -> Volume:
        """Superpixel ids as int32; 0 belongs to none.

        Raises:
            DataError: there are none; the message gives the command that makes them.
        """
        path = self.path(f"superpix-{scale}", scan)
        if not path.exists():
            raise DataError(
                f"{path}: no such pseudo-labels. Run `frugalseg superpixels "
                f"{command_target(self.folder, self.spec)} --scale {scale}`."
            )
        return self._read(f"superpix-{scale}", scan, np.int32)

    def staleness(
        self, name: str, expected: Sequence[str] | None = None, concerned: Sequence[str] | None = None
    ) -> str:
        """What has changed since a record of the manifest, in words; empty: nothing, or there is no such record.

        Args:
            name: see `Manifest.records`.
            expected: names of the files that it would be made from now; None: the recorded ones.
            concerned: names of files to which the comparison is restricted; None: all.
        """
        record = self.manifest.records.get(name)
        if record is None:
            return ""
        if concerned is not None:
            record = replace(
                record, made_from={key: record.made_from[key] for key in concerned if key in record.made_from}
            )
            expected = [key for key in (record.made_from if expected is None else expected) if key in concerned]
        return record.staleness(self.folder, expected=expected)

    def require_current_pseudo_labels(self, scans: Iterable[str], scale: str) -> None:
        """Checks that superpixels were made from the images in the folder; those without a record are taken on trust.

        Raises:
            DataError: some are stale; the message gives the command that makes them again.
        """
        stale = {scan: found for scan in scans if (found := self.staleness(f"superpix-{scale}_{scan}"))}
        for scan, found in stale.items():
            raise DataError(
                f"{self.path(f'superpix-{scale}', scan)}: stale: its image has changed since ({found}); "
                f"{len(stale)} scan(s) in all. Run `frugalseg superpixels "
                f"{command_target(self.folder, self.spec)} --scale {scale}`."
            )

    def class_slices(
        self, min_foreground_px: int = 1, scans: Iterable[str] | None = None
    ) -> dict[int, dict[str, list[int]]]:
        """{class value: {scan id: slices on which the class has at least `min_foreground_px` pixels}}.

        Args:
            min_foreground_px: of which index.
            scans: whose labels must be those that the index was made from; None: all.

        Raises:
            DataError: no such class index, or a stale one; the message gives the command that makes it.
        """
        path = self.folder / f"classmap_{min_foreground_px}.json"
        if not path.exists():
            raise DataError(
                f"{path}: no such class index. Run `frugalseg prepare {command_target(self.folder, self.spec)} "
                f"--step index --min-foreground-px {min_foreground_px}`."
            )
        labels = scan_files(self.folder, "label")
        concerned = None if scans is None else [self.path("label", scan).name for scan in scans]
        found = self.staleness(path.stem, [each.name for each in labels.values()], concerned)
        if found:
            raise DataError(
                f"{path}: stale: the labels that it was made from have changed since ({found}). Run `frugalseg "
                f"prepare {command_target(self.folder, self.spec)} --step index --min-foreground-px "
                f"{min_foreground_px}`."
            )
        content = read_json_object(path)
        if not all(isinstance(each, dict) for each in content.values()):
            raise DataError(f"{path}: expected {{class: {{scan id: [slices]}}}}. Delete it and make it again.")
        return {value: content.get(name, {}) for value, name in enumerate(self.spec.class_names)}

    def statistics(self, scans: Sequence[str]) -> list[dict[str, float | int]]:
        """Intensity statistics of scans, from the manifest; measured where it has none of the image as it is now."""
        return [self._recorded_statistics(scan) or statistics_of(self.image(scan).array) for scan in scans]

    def _recorded_statistics(self, scan: str) -> dict[str, float | int] | None:
        record, image = self.manifest.records.get(f"scan_{scan}"), self.path("image", scan)
        if record and hash_files([image], self.folder).get(image.name) != record.made.get(image.name):
            return None
        return self.manifest.scans.get(scan, {}).get("statistics")

    def _read(self, kind: str, scan: str, dtype: type | None = None) -> Volume:
        volume = read_nifti(self.path(kind, scan))
        rows, columns = (side - side % MULTIPLE_PX for side in volume.array.shape[1:])
        array = volume.array[:, :rows, :columns]
        return Volume(array if dtype is None else self._whole(kind, scan, array, dtype), volume.affine)

    def _whole(self, kind: str, scan: str, array: np.ndarray, dtype: type) -> np.ndarray:
        """Whole numbers as `dtype`; refuses what does not fit, where a cast would change it."""
        path, limits = self.path(kind, scan), np.iinfo(dtype)
        try:
            whole = whole_values(array)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        if whole.min() < limits.min or whole.max() > limits.max:
            raise DataError(
                f"{path}: values from {whole.min()} to {whole.max()}; expected {limits.min} to {limits.max}. Run "
                f"`{prepare_command(self.spec)}` again."
            )
        return whole.astype(dtype)
