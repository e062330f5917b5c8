"""Prepares raw scans, steps `convert` and `normalise`: see `frugalseg prepare --help`.

Built-in sets are converted to <out>/CHAOST2/niis/T2SPIR or <out>/SABS/niis first, with one image and one label file per
scan; own scans and those of sets without a converted folder are read where they are.
Finished scans are skipped when a step is repeated.
"""

import logging
from functools import partial
from pathlib import Path
from typing import Any

from data.prepare.frames import facts_of, frame_settings, original_labels, prepare_labels
from data.prepare.scan_job import ScanJob
from data.prepare.scan_sources import SCAN_SOURCES as SCAN_SOURCES
from data.prepare.scan_sources import source_for as source_for
from data.sources import own_scans
from data.sources.raw_scans import RawScan, as_cine
from dataloaders.description import DatasetSpec, write_description
from dataloaders.io.nifti import write_nifti
from dataloaders.samples import ORIGIN, Cine, Volume
from dataloaders.scans.folder import SUFFIX, scan_files, scan_path
from dataloaders.scans.manifest import Manifest
from dataloaders.scans.plausibility import label_map_doubt
from dataloaders.scans.preprocess import (
    PrepareParameters,
    prepare_frames,
    scan_doubts,
)
from dataloaders.scans.slice_index import write_slice_index
from util.errors import ConfigError, DataError
from util.files import read_json_object, write_json
from util.ids import natural_key
from util.inventory import first_names
from util.items import Failures, attempt_each, raise_failures
from util.records import Record

CONVERTED_RECORD = "converted.json"  # in the folder of the converted files: scan id -> hashes of the raw files
FAILED = "failed"  # key there, in place of the hashes: why a scan could not be converted

log = logging.getLogger(__name__)


def convert(spec: DatasetSpec, raw: Path, root: Path, jobs: int = 1) -> None:
    """Writes every raw scan as `image_<scan id>.nii.gz` and `label_<scan id>.nii.gz` below `<root>/<data set>/niis`.

    An image without a record of this function, such as one made by dcm2niix, is kept. Scans
    of a source without a converted folder, such as own ones, are not converted.

    Raises:
        DataError: there are no raw files, or two of one scan.
        FailedItemsError: the files of some scans are incomplete or damaged; the message names them. The others are
            done.
    """
    source = source_for(spec)
    if not source.converted_folder:
        return
    scans = source.find(raw, spec)
    if len(scans) < len(spec.cases):
        log.warning("%s: %d of the %d published scans under %s", spec.name, len(scans), len(spec.cases), raw)
    log.info("%s", source.account(raw, scans))
    folder = root / source.converted_folder
    records = read_json_object(folder / CONVERTED_RECORD) if (folder / CONVERTED_RECORD).exists() else {}
    tasks = {scan.id: ScanJob(scan, folder, _converted_record(records.get(scan.id)), {}) for scan in scans}
    failures: Failures = {}
    work = partial(_convert_scan, spec=spec)
    for scan, record in attempt_each(work, tasks, jobs, "convert", failures, lambda task: task.scan.image):
        if record:
            records[scan] = record.to_json()
            write_json(folder / CONVERTED_RECORD, records)
        log.info("%s scan %s: %s", spec.name, scan, "converted" if record else "already converted")
    kept = {scan: record for scan, record in records.items() if scan in tasks or not _is_failure(record)}
    kept |= {scan: {FAILED: reason} for scan, reason in failures.items()}
    if kept != records:
        write_json(folder / CONVERTED_RECORD, kept)
    raise_failures(failures, len(tasks), f"{spec.name}, step convert")


def _converted_record(entry: Any) -> Record | None:
    """An entry of `CONVERTED_RECORD`; of an earlier version, a record that fits no raw files; None: not converted."""
    return None if entry is None or _is_failure(entry) else Record.from_json(entry) or Record({}, {})


def _is_failure(entry: Any) -> bool:
    return isinstance(entry, dict) and FAILED in entry


def _convert_scan(task: ScanJob, spec: DatasetSpec) -> Record | None:
    inputs = task.input_hashes()
    if task.is_done(inputs):
        return None
    cine = as_cine(source_for(spec).read(task.scan, spec))
    image, label = cine.frames[0], cine.labels.get(0)
    image_path, label_path = task.outputs
    if task.record or not image_path.exists():
        write_nifti(image_path, image)
    if label is not None:
        write_nifti(label_path, label)
    return task.finish(inputs)


def normalise(
    spec: DatasetSpec, root: Path, parameters: PrepareParameters, jobs: int = 1, raw: Path | None = None
) -> None:
    """Resamples scans to the training grid and records grids, statistics and hashes in the manifest.

    Args:
        spec: the data set; its description is stored in the prepared folder.
        root: data root.
        parameters: see `parameters_of`.
        jobs: processes.
        raw: for sets that are not converted first: the table of a user's own files, or the folder of the download.

    Raises:
        DataError: nothing was converted.
        FailedItemsError: a label is missing or a scan is damaged; the message names each. All others are done. The
            manifest names these and what could not be converted, and the check refuses the folder.
    """
    scans, not_converted = _scans_to_prepare(spec, root, raw)
    folder = root / spec.prepared_folder()
    manifest = Manifest.load(folder, spec.name)
    wanted = {"normalise": parameters.to_json(), "label_values": _label_values(spec)}
    manifest.parameters |= wanted
    manifest.save(folder)
    write_description(folder, spec)
    _remove_other_scans(folder, spec, manifest, {scan.id for scan in scans} | set(not_converted))
    keeps_original = spec.grid.in_plane_mm is not None
    tasks = {
        scan.id: ScanJob(
            scan, folder, manifest.records.get(f"scan_{scan.id}"), wanted | frame_settings(scan), keeps_original
        )
        for scan in scans
    }
    if any(task.record and task.record.differences(task.settings, task.record.made_from) for task in tasks.values()):
        log.info("%s: the parameters have changed; every scan is prepared again", spec.name)
    failures: Failures = {}
    work = partial(_normalise_scan, spec=spec, parameters=parameters)
    for scan, made in attempt_each(work, tasks, jobs, "normalise", failures, lambda task: task.scan.image):
        earlier = manifest.scans.get(scan, {})
        facts, record = made or (earlier, tasks[scan].record)
        manifest.scans[scan] = _with_facts(facts, tasks[scan].scan)
        if record and (made or manifest.scans[scan] != earlier):
            manifest.records[f"scan_{scan}"] = record
            manifest.save(folder)
        log.info("%s scan %s: %s", spec.name, scan, "prepared" if made else "already prepared")
    if manifest.failed != not_converted | failures:
        manifest.failed = not_converted | failures
        manifest.save(folder)
    write_slice_index(folder, manifest, spec)
    raise_failures(failures, len(tasks), f"{spec.name}, step normalise")


def _scans_to_prepare(spec: DatasetSpec, root: Path, raw: Path | None) -> tuple[list[RawScan], Failures]:
    """The scans of the table or of the download, or the converted ones; and the reasons of what was not converted."""
    source = source_for(spec)
    if not source.converted_folder:
        if raw is None:
            expected = f"the table of its files ({spec.files})" if spec.files else "the folder of its download"
            raise ConfigError(f"{spec.name}: expected {expected}.")
        scans = source.find(raw, spec)
        if account := source.account(raw, scans):
            log.info("%s", account)
        return scans, {}
    converted = root / source.converted_folder
    record = converted / CONVERTED_RECORD
    entries = read_json_object(record) if record.exists() else {}
    failures = {scan: str(entry[FAILED]) for scan, entry in entries.items() if _is_failure(entry)}
    images = {scan: image for scan, image in scan_files(converted, "image").items() if scan not in failures}
    if not images:
        raise DataError(
            f"{converted}: no scan; expected image_<scan id>.nii.gz and label_<scan id>.nii.gz for every scan. Run "
            f"`frugalseg prepare {spec.name.lower()} --step convert` first."
        )
    labels = {scan: scan_path(converted, "label", scan) for scan in images}
    return [RawScan.with_label(scan, image, labels[scan]) for scan, image in images.items()], failures


def _label_values(spec: DatasetSpec) -> list[list[str | int]]:
    """Name and supplied value of each class, in the order of the prepared values."""
    return [[name, spec.supplied_value(place)] for place, name in enumerate(spec.class_names) if place]


def _with_facts(record: dict[str, Any], scan: RawScan) -> dict[str, Any]:
    """A scan's entry of the manifest, with what the folds need to know; of published scans nothing."""
    facts = {"fold": scan.fold, "is_labelled": None if scan.is_labelled else False}
    kept = {key: value for key, value in record.items() if key not in (*facts, *ORIGIN)}
    return kept | scan.origin.known() | {key: value for key, value in facts.items() if value is not None}


def _remove_other_scans(folder: Path, spec: DatasetSpec, manifest: Manifest, wanted: set[str]) -> None:
    """Removes own scans that have left the table; scans that were not prepared here are kept, with a warning."""
    others = sorted(set(scan_files(folder, "image")) - wanted, key=natural_key)
    gone = [scan for scan in manifest.scans if scan not in wanted] if spec.files else []
    for scan in gone:
        for path in folder.glob(f"*{SUFFIX}"):
            if path.name.partition("_")[2] == f"{scan}{SUFFIX}":
                path.unlink()
                manifest.records.pop(path.name.removesuffix(SUFFIX), None)
        manifest.records.pop(f"scan_{scan}", None)
        del manifest.scans[scan]
    if gone:
        log.info("%s: removed the prepared scans %s, which are not in the table", folder, first_names(gone))
        manifest.save(folder)
    foreign = [scan for scan in others if scan not in gone]
    if foreign:
        log.warning(
            "%s: %s holds scans %s, which were not prepared here; kept", spec.name, folder, first_names(foreign)
        )


def _normalise_scan(
    task: ScanJob, spec: DatasetSpec, parameters: PrepareParameters
) -> tuple[dict[str, Any], Record] | None:
    """Writes image and label; returns the scan's facts for the manifest, and the record; None if they are up to date.

    An image that has changed since it was prepared is written again, a label is not: it may be a correction by hand.
    """
    if task.scan.fault:
        raise DataError(task.scan.fault)
    inputs = task.input_hashes()
    if task.is_done(inputs) and not task.changed_outputs() - {task.outputs[1].name}:
        for name in task.changed_outputs():
            log.warning(
                "%s: has changed since it was prepared; kept. Delete it to prepare it again.", task.folder / name
            )
        return None
    cine = _read(task.scan, spec)
    original = cine.frames[0]
    try:
        for doubt in _doubts(original, spec, parameters):
            log.warning("%s: %s", task.scan.image, doubt)
        image = prepare_frames(cine.frames, parameters)
        label = prepare_labels(cine, image.array.shape, parameters) if task.scan.is_labelled else None
    except DataError as error:
        raise DataError(f"{task.scan.image}: {error}") from error
    image_path, label_path = task.outputs
    write_nifti(image_path, image)
    if label is None:
        label_path.unlink(missing_ok=True)
        task.original_label.unlink(missing_ok=True)
    else:
        write_nifti(label_path, Volume(label, image.affine))
        if task.keeps_original_label:
            write_nifti(task.original_label, original_labels(cine))
    return facts_of(task.scan, cine, image), task.finish(inputs)


def _doubts(original: Volume, spec: DatasetSpec, parameters: PrepareParameters) -> list[str]:
    """What is doubtful about a raw scan.

    Raises:
        DataError: intensities that certainly are no Hounsfield units, where these are expected.
    """
    label_map = label_map_doubt(original.array)
    doubts = scan_doubts(original, parameters, spec.modality)
    return [*doubts, *([f"{label_map}. Correct the table of files, if it is one."] if label_map else [])]


def _read(scan: RawScan, spec: DatasetSpec) -> Cine:
    source = source_for(spec)
    if not source.converted_folder:
        return as_cine(source.read(scan, spec))
    try:
        return as_cine(own_scans.read_scan(scan, spec))
    except DataError as error:
        remedy = "Delete the image and the label and run `--step convert` again."
        raise DataError(f"{error} {remedy}") from error
