"""Prepares raw scans, steps `convert` and `normalise`: see `python -m data.prepare --help`.

Built-in sets are converted to <out>/CHAOST2/niis/T2SPIR or <out>/SABS/niis first, with one image and one label file per
scan; own scans are read where they are. Finished scans are skipped when a step is repeated.
"""

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from data.sources import chaos, own_scans, sabs
from data.sources.raw_scans import RawScan, ScanSource
from dataloaders.description import DatasetSpec, write_description
from dataloaders.io.geometry import Grid
from dataloaders.io.nifti import voxel_hash, write_nifti
from dataloaders.samples import Volume
from dataloaders.scans.folder import SUFFIX, scan_files, scan_path
from dataloaders.scans.manifest import Manifest, statistics_of
from dataloaders.scans.preprocess import PrepareParameters, prepare_image, prepare_label
from util.cli import parallel_map
from util.errors import ConfigError, DataError
from util.files import file_sha256, read_json_object, write_json
from util.ids import natural_key

CONVERTED_RECORD = "converted.json"  # in the folder of the converted files: scan id -> hashes of the raw files

log = logging.getLogger(__name__)

OWN = "own"  # any set whose description names a table of files
SCAN_SOURCES: dict[str, ScanSource] = {"CHAOST2": chaos.SOURCE, "SABS": sabs.SOURCE, OWN: own_scans.SOURCE}


def source_for(spec: DatasetSpec) -> ScanSource:
    """How the scans of a set are found and read.

    Raises:
        ConfigError: the set is not built in and its description names no table of files.
    """
    if spec.files or spec.name not in SCAN_SOURCES:
        if not spec.files:
            raise ConfigError(
                f"{spec.name}: the description names no files; expected `files`, a table (CSV) of the scans. Write a "
                "draft with `python -m data.describe FOLDER`."
            )
        return SCAN_SOURCES[OWN]
    return SCAN_SOURCES[spec.name]


@dataclass(frozen=True)
class ScanJob:
    """One scan in one step.

    Attributes:
        scan: what is read.
        folder: where `image_<scan id>.nii.gz` and `label_<scan id>.nii.gz` are written.
        record: what an earlier run recorded about it; empty where there was none.
    """

    scan: RawScan
    folder: Path
    record: dict[str, Any]

    @property
    def outputs(self) -> tuple[Path, Path]:
        """The image file and the label file; there is no label file of a scan without label."""
        return scan_path(self.folder, "image", self.scan.id), scan_path(self.folder, "label", self.scan.id)

    def input_hashes(self) -> dict[str, str]:
        """SHA-256 of every file read, by folder and file name."""
        files = [file for path in self.scan.inputs for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
        return {f"{file.parent.name}/{file.name}": file_sha256(file) for file in files if file.is_file()}

    def is_done(self, inputs: dict[str, str]) -> bool:
        """Whether an earlier run made the outputs from the same inputs."""
        image, label = self.outputs
        return self.record.get("inputs") == inputs and image.exists() and label.exists() == self.scan.is_labelled


def convert(spec: DatasetSpec, raw: Path, root: Path, jobs: int = 1) -> None:
    """Writes every raw scan as `image_<scan id>.nii.gz` and `label_<scan id>.nii.gz` below `<root>/<data set>/niis`.

    An image without a record of this function, such as one made by dcm2niix, is kept. Own scans are not converted.

    Raises:
        DataError: the raw files are incomplete or damaged; the message names the file.
    """
    source = source_for(spec)
    if not source.converted_folder:
        return
    scans = source.find(raw, spec)
    if len(scans) < len(spec.cases):
        log.warning("%s: %d of the %d published scans under %s", spec.name, len(scans), len(spec.cases), raw)
    folder = root / source.converted_folder
    records = read_json_object(folder / CONVERTED_RECORD) if (folder / CONVERTED_RECORD).exists() else {}
    tasks = [ScanJob(scan, folder, records.get(scan.id, {})) for scan in scans]
    work = partial(_convert_scan, spec=spec)
    for task, record in zip(tasks, parallel_map(work, tasks, jobs, "convert"), strict=True):
        if record:
            records[task.scan.id] = record
            write_json(folder / CONVERTED_RECORD, records)
        log.info("%s scan %s: %s", spec.name, task.scan.id, "converted" if record else "already converted")


def _convert_scan(task: ScanJob, spec: DatasetSpec) -> dict[str, Any] | None:
    inputs = task.input_hashes()
    if task.is_done(inputs):
        return None
    image, label = source_for(spec).read(task.scan, spec)
    image_path, label_path = task.outputs
    if task.record or not image_path.exists():
        write_nifti(image_path, image)
    if label is not None:
        write_nifti(label_path, label)
    return {"inputs": inputs}


def normalise(
    spec: DatasetSpec, root: Path, parameters: PrepareParameters, jobs: int = 1, table: Path | None = None
) -> None:
    """Resamples scans to the training grid and records grids, statistics and hashes in the manifest.

    Args:
        spec: the data set; its description is stored in the prepared folder.
        root: data root.
        parameters: see `parameters_of`.
        jobs: processes.
        table: of a user's own files.

    Raises:
        DataError: nothing was converted, a label is missing, or a scan is damaged; the message names the file.
    """
    scans = _scans_to_prepare(spec, root, table)
    folder = root / spec.prepared_folder()
    manifest = Manifest.load(folder, spec.name)
    wanted = {"normalise": parameters.to_json(), "label_values": _label_values(spec)}
    earlier = {"label_values": wanted["label_values"]} | manifest.parameters  # older manifests do not have them
    if manifest.scans and any(earlier.get(step) != values for step, values in wanted.items()):
        log.info("%s: the parameters have changed; every scan is prepared again", spec.name)
        manifest.scans = {}
    manifest.parameters |= wanted
    manifest.save(folder)
    write_description(folder, spec)
    _remove_other_scans(folder, spec, manifest, {scan.id for scan in scans})
    tasks = [ScanJob(scan, folder, manifest.scans.get(scan.id, {})) for scan in scans]
    work = partial(_normalise_scan, spec=spec, parameters=parameters)
    for task, record in zip(tasks, parallel_map(work, tasks, jobs, "normalise"), strict=True):
        manifest.scans[task.scan.id] = _with_facts(record or task.record, task.scan)
        if manifest.scans[task.scan.id] != task.record:
            manifest.save(folder)
        log.info("%s scan %s: %s", spec.name, task.scan.id, "prepared" if record else "already prepared")


def _scans_to_prepare(spec: DatasetSpec, root: Path, table: Path | None) -> list[RawScan]:
    """The scans of the table, or the converted ones of a built-in set, each of which must have a label."""
    source = source_for(spec)
    if not source.converted_folder:
        if table is None:
            raise ConfigError(f"{spec.name}: expected the table of its files ({spec.files}).")
        return source.find(table, spec)
    converted = root / source.converted_folder
    images, labels = scan_files(converted, "image"), scan_files(converted, "label")
    if not images or set(images) - set(labels):
        raise DataError(
            f"{converted}: {len(images)} images and {len(labels)} labels; expected image_<scan id>.nii.gz and "
            f"label_<scan id>.nii.gz for every scan. Run `python -m data.prepare {spec.name.lower()} --step convert` "
            "first."
        )
    return [RawScan.with_label(scan, images[scan], labels[scan]) for scan in images]


def _label_values(spec: DatasetSpec) -> list[list[str | int]]:
    """Name and supplied value of each class, in the order of the prepared values."""
    return [[name, spec.supplied_value(place)] for place, name in enumerate(spec.class_names) if place]


def _with_facts(record: dict[str, Any], scan: RawScan) -> dict[str, Any]:
    """A scan's entry of the manifest, with what the folds need to know; of published scans nothing."""
    facts = {"patient": scan.patient or None, "fold": scan.fold, "is_labelled": None if scan.is_labelled else False}
    kept = {key: value for key, value in record.items() if key not in facts}
    return kept | {key: value for key, value in facts.items() if value is not None}


def _remove_other_scans(folder: Path, spec: DatasetSpec, manifest: Manifest, wanted: set[str]) -> None:
    """Removes own scans that have left the table; scans that were not prepared here are kept, with a warning."""
    others = sorted(set(scan_files(folder, "image")) - wanted, key=natural_key)
    gone = [scan for scan in manifest.scans if scan not in wanted] if spec.files else []
    for scan in gone:
        for path in folder.glob(f"*{SUFFIX}"):
            if path.name.partition("_")[2] == f"{scan}{SUFFIX}":
                path.unlink()
        del manifest.scans[scan]
    if gone:
        log.info("%s: removed the prepared scans %s, which are not in the table", folder, ", ".join(gone))
        manifest.save(folder)
    foreign = [scan for scan in others if scan not in gone]
    if foreign:
        log.warning("%s: %s holds scans %s, which were not prepared here; kept", spec.name, folder, ", ".join(foreign))


def _normalise_scan(task: ScanJob, spec: DatasetSpec, parameters: PrepareParameters) -> dict[str, Any] | None:
    inputs = task.input_hashes()
    if task.is_done(inputs):
        return None
    original, original_label = _read(task.scan, spec)
    try:
        image = prepare_image(original, parameters)
        label = None if original_label is None else prepare_label(original_label, parameters)
    except DataError as error:
        raise DataError(f"{task.scan.image}: {error}") from error
    image_path, label_path = task.outputs
    write_nifti(image_path, image)
    if label is None:
        label_path.unlink(missing_ok=True)
    else:
        write_nifti(label_path, Volume(label.array, image.affine))
    return {
        "inputs": inputs,
        "original": Grid.of(original).to_json(),
        "prepared": Grid.of(image).to_json(),
        "statistics": statistics_of(image.array),
        "image_sha256": voxel_hash(image.array),
    }


def _read(scan: RawScan, spec: DatasetSpec) -> tuple[Volume, Volume | None]:
    try:
        return own_scans.read_scan(scan, spec)
    except DataError as error:
        if not source_for(spec).converted_folder:
            raise
        remedy = "Delete the image and the label and run `--step convert` again."
        raise DataError(f"{error} {remedy}") from error
