"""Makes a raw download ready for training: `python -m data.prepare chaost2 --raw FOLDER --out data`.

Steps, each of which can be run alone with --step, and repeated without doing finished work again:

    convert      raw files -> <out>/CHAOST2/niis/T2SPIR or <out>/SABS/niis: one image and one label file per scan
    normalise    -> <out>/CHAOST2/chaos_MR_T2_normalized or <out>/SABS/sabs_CT_normalized: common grid and intensities
    index        -> classmap_1.json there: which slices show which organ
    superpixels  -> superpix-MIDDLE_<scan id>.nii.gz there: the pseudo-labels that training learns from

Sets of single images (isic2017, jsrt, shenzhen) are made ready in one step, see data.prepare.images:

    python -m data.prepare isic2017 --raw FOLDER --out data [--size-px 256] [--split random:0.25] [--jobs 4]
"""

import argparse
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data.prepare.class_index import numbered_files, write_class_index
from data.prepare.images import prepare_images
from data.sources import chaos, sabs
from data.superpixels.scans import write_pseudo_labels
from dataloaders.catalog import dataset
from dataloaders.description import DatasetSpec
from dataloaders.io.geometry import Grid, corner_distance_mm, reorient
from dataloaders.io.nifti import read_nifti, voxel_hash, write_nifti
from dataloaders.samples import Volume
from dataloaders.scans.manifest import Manifest, statistics_of
from dataloaders.scans.preprocess import PrepareParameters, parameters_of, prepare_image, prepare_label
from util.cli import parallel_map
from util.errors import ConfigError, DataError
from util.files import file_sha256, read_json, write_json

STEPS = ("convert", "normalise", "index", "superpixels")
VOLUME_OPTIONS, IMAGE_OPTIONS = ("step", "spacing_mm", "size_rule", "numbering"), ("split",)
CONVERTED_RECORD = "converted.json"  # beside the converted files: scan id -> hashes of the raw files

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """How a data set's raw files are found and read."""

    converted_folder: str  # below the data root
    find_scans: Callable[[Path], dict[int, tuple[Path, Path]]]
    read_scan: Callable[[Path, Path], tuple[Volume, Volume]]


SOURCES = {
    "CHAOST2": Source(chaos.CONVERTED_FOLDER, chaos.find_scans, chaos.read_scan),
    "SABS": Source(sabs.CONVERTED_FOLDER, sabs.find_scans, sabs.read_scan),
}


@dataclass(frozen=True)
class Task:
    """One scan on its way through one step.

    Attributes:
        scan_id: the scan.
        image: what the image is read from, a file or a folder of files.
        label: the same for its labels.
        folder: where `image_<scan id>.nii.gz` and `label_<scan id>.nii.gz` are written.
        record: what an earlier run noted about it; empty where there was none.
    """

    scan_id: int
    image: Path
    label: Path
    folder: Path
    record: dict[str, Any]

    @property
    def outputs(self) -> tuple[Path, Path]:
        """The image file and the label file to be written."""
        return self.folder / f"image_{self.scan_id}.nii.gz", self.folder / f"label_{self.scan_id}.nii.gz"

    def input_hashes(self) -> dict[str, str]:
        """SHA-256 of every file read, by folder and file name."""
        files = [
            file for path in (self.image, self.label) for file in (sorted(path.iterdir()) if path.is_dir() else [path])
        ]
        return {f"{file.parent.name}/{file.name}": file_sha256(file) for file in files if file.is_file()}

    def is_done(self, inputs: dict[str, str]) -> bool:
        """Whether an earlier run made the outputs from the same inputs."""
        return self.record.get("inputs") == inputs and all(path.exists() for path in self.outputs)


def convert(spec: DatasetSpec, raw: Path, root: Path, jobs: int = 1) -> None:
    """Writes every raw scan as `image_N.nii.gz` and `label_N.nii.gz` below `<root>/<data set>/niis`.

    An image that stands there without a record of ours, such as dcm2niix's, is kept.

    Raises:
        DataError: the raw files are incomplete or damaged; the message names the file.
    """
    source = SOURCES[spec.name]
    scans = source.find_scans(raw)
    if len(scans) < len(spec.scan_ids):
        log.warning("%s: %d of the %d published scans under %s", spec.name, len(scans), len(spec.scan_ids), raw)
    folder = root / source.converted_folder
    records = read_json(folder / CONVERTED_RECORD) if (folder / CONVERTED_RECORD).exists() else {}
    tasks = [Task(scan, *paths, folder, records.get(str(scan), {})) for scan, paths in scans.items()]
    work = partial(_convert_scan, dataset_name=spec.name)
    for task, record in zip(tasks, parallel_map(work, tasks, jobs, "convert"), strict=True):
        if record:
            records[str(task.scan_id)] = record
            write_json(folder / CONVERTED_RECORD, records)
        log.info("%s scan %d: %s", spec.name, task.scan_id, "converted" if record else "already converted")


def _convert_scan(task: Task, dataset_name: str) -> dict[str, Any] | None:
    inputs = task.input_hashes()
    if task.is_done(inputs):
        return None
    image, label = SOURCES[dataset_name].read_scan(task.image, task.label)
    image_path, label_path = task.outputs
    if task.record or not image_path.exists():
        write_nifti(image_path, image)
    write_nifti(label_path, label)
    return {"inputs": inputs}


def normalise(spec: DatasetSpec, root: Path, parameters: PrepareParameters, jobs: int = 1) -> None:
    """Takes the converted scans to the training grid and notes grids, statistics and hashes in the manifest.

    Raises:
        DataError: nothing was converted, a label is missing, or a scan is damaged; the message names the file.
    """
    converted, folder = root / SOURCES[spec.name].converted_folder, root / spec.prepared_folder()
    images, labels = numbered_files(converted, "image"), numbered_files(converted, "label")
    if not images or set(images) - set(labels):
        raise DataError(
            f"{converted}: {len(images)} images and {len(labels)} labels; expected image_N.nii.gz and label_N.nii.gz "
            f"for every scan N. Run `python -m data.prepare {spec.name.lower()} --step convert` first."
        )
    foreign = sorted(set(numbered_files(folder, "image")) - set(images))
    if foreign:
        log.warning("%s: %s holds scans %s that were not converted here; they stay", spec.name, folder, foreign)
    manifest = Manifest.load(folder, spec.name)
    wanted = parameters.to_json()
    if manifest.scans and manifest.parameters.get("normalise") != wanted:
        log.info("%s: other parameters than before; every scan is prepared again", spec.name)
        manifest.scans = {}
    manifest.parameters["normalise"] = wanted
    manifest.save(folder)
    tasks = [Task(n, images[n], labels[n], folder, manifest.scans.get(str(n), {})) for n in images]
    work = partial(_normalise_scan, spec=spec, parameters=parameters)
    for task, record in zip(tasks, parallel_map(work, tasks, jobs, "normalise"), strict=True):
        if record:
            manifest.scans[str(task.scan_id)] = record
            manifest.save(folder)
        log.info("%s scan %d: %s", spec.name, task.scan_id, "prepared" if record else "already prepared")


def _normalise_scan(task: Task, spec: DatasetSpec, parameters: PrepareParameters) -> dict[str, Any] | None:
    inputs = task.input_hashes()
    if task.is_done(inputs):
        return None
    original, original_label = read_nifti(task.image), read_nifti(task.label)
    _check_pair(task, original, original_label, spec, parameters)
    try:
        image, label = prepare_image(original, parameters), prepare_label(original_label, parameters)
    except DataError as error:
        raise DataError(f"{task.image}: {error}") from error
    image_path, label_path = task.outputs
    write_nifti(image_path, image)
    write_nifti(label_path, Volume(label.array, image.affine))
    return {
        "inputs": inputs,
        "original": Grid.of(original).to_json(),
        "prepared": Grid.of(image).to_json(),
        "statistics": statistics_of(image.array),
        "image_sha256": voxel_hash(image.array),
    }


def _check_pair(task: Task, image: Volume, label: Volume, spec: DatasetSpec, parameters: PrepareParameters) -> None:
    """Image and label may count their axes in different directions, but must lie on one grid."""
    grids = [Grid.of(reorient(volume, parameters.axis_codes)) for volume in (image, label)]
    distance = corner_distance_mm(*grids)
    if distance > min(image.spacing_mm):
        raise DataError(
            f"{task.label}: its grid {grids[1].shape} (D, H, W) lies {distance:.3g} mm from that of {task.image.name}, "
            f"{grids[0].shape}; expected the same grid. Delete both files and run `--step convert` again."
        )
    is_known = np.isin(label.array, np.arange(len(spec.class_names)))
    if not is_known.all():
        unknown = ", ".join(f"{value:g}" for value in np.unique(label.array[~is_known])[:5])
        raise DataError(
            f"{task.label}: label values {unknown}; expected 0 to "
            f"{len(spec.class_names) - 1} for {spec.name}. Download the label again."
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Reads the command line and runs the steps asked for."""
    parser = _parser()
    given = parser.parse_args(arguments)
    is_image_set = dataset(given.dataset).kind == "images"
    for name in VOLUME_OPTIONS if is_image_set else IMAGE_OPTIONS:
        if getattr(given, name) != parser.get_default(name):
            kind = "volumes" if is_image_set else "single images"
            raise ConfigError(f"--{name.replace('_', '-')}: only for sets of {kind}. Leave it out for {given.dataset}.")
    if is_image_set:
        images = dataset(given.dataset, "images")
        prepare_images(images, given.raw or given.out / images.name, given.out, given.size_px, given.split, given.jobs)
    else:
        _prepare_volumes(given)


def _prepare_volumes(given: argparse.Namespace) -> None:
    spec = dataset(given.dataset, "scans")
    steps = STEPS if given.step == "all" else (given.step,)
    spacing_mm = tuple(given.spacing_mm) if given.spacing_mm else None
    parameters = parameters_of(spec, given.size_px, spacing_mm, given.size_rule)
    folder = given.out / spec.prepared_folder()
    if "convert" in steps:
        convert(spec, given.raw or given.out / spec.name, given.out, given.jobs)
    if "normalise" in steps:
        normalise(spec, given.out, parameters, given.jobs)
    if "index" in steps:
        write_class_index(folder, spec)
    if "superpixels" in steps:
        write_pseudo_labels(folder, spec, numbering=given.numbering, jobs=given.jobs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("dataset", help="chaost2, sabs, isic2017, jsrt or shenzhen")
    add("--raw", type=Path, help="folder of the download (default: <out>/CHAOST2, <out>/SABS and so on)")
    add("--out", type=Path, default=Path("data"), help="data root, in which all results are written (default: data)")
    add("--step", choices=(*STEPS, "all"), default="all", help="one step only (default: all)")
    add("--jobs", type=int, default=1, help="processes; each holds one scan in memory (default: 1)")
    add("--size-px", type=int, help="rows and columns when prepared (default: the data set's); the field of view stays")
    add("--spacing-mm", type=float, nargs=3, metavar=("Z", "Y", "X"), help="voxel size instead of the data set's")
    add("--size-rule", choices=("clean", "reference"), default="clean", help="reference: one slice too many, as there")
    add("--numbering", choices=("compact", "legacy"), default="compact", help="how superpixels are numbered")
    add("--split", help="images: another split; a rule of the set, random:SHARE for testing, or a CSV file: id, split")
    return parser
