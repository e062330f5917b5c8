"""M&Ms, cine MR of the heart: the challenge's 4-D NIfTI files and its information sheet.

Layout: `<code>/<code>_sa.nii.gz` and `<code>_sa_gt.nii.gz`, in `Training/Labeled`, `Training/Unlabeled`, `Validation`
and `Testing`, or in any other folders; and a sheet such as `211230_M&Ms_Dataset_information_diagnosis_opendataset.csv`.
Source: Campello et al., Multi-Centre, Multi-Vendor and Multi-Disease Cardiac Segmentation (IEEE TMI 2021).
"""

import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from data.sources.mms_sheet import SUFFIXES, PatientLine, find_sheet, read_sheet
from data.sources.raw_scans import Annotation, RawScan, ScanSource
from data.sources.raw_scans import account as account_for
from dataloaders.description import DatasetSpec
from dataloaders.io.geometry import Grid, corner_distance_mm
from dataloaders.io.volumes import read_cine
from dataloaders.samples import Cine, Origin, Volume
from dataloaders.scans.labels import whole_values
from util.errors import DataError
from util.ids import comparable_id, first_invalid_id, natural_key
from util.inventory import list_files

FILE_NAME = re.compile(r"(?P<code>.+)_sa(?P<truth>_gt)?\.nii(\.gz)?", re.IGNORECASE)

log = logging.getLogger(__name__)


def find_scans(raw: Path, spec: DatasetSpec) -> list[RawScan]:
    """Finds the patients' files and their lines in the information sheet.

    Args:
        raw: folder of the download.
        spec: not needed; the layout is fixed.

    Returns:
        The scans in natural order of their ids, the external codes. One without ground truth is not labelled. One that
        cannot be used, such as a patient who is not in the sheet, is returned with the reason.

    Raises:
        DataError: no scans, or no information sheet.
    """
    files = list_files(raw, "")[0]
    images, truths = _by_patient(files, is_truth=False), _by_patient(files, is_truth=True)
    if not images:
        raise DataError(
            f"MMS: no scans under {raw}; expected Training/Labeled/<code>/<code>_sa.nii.gz and so on. Download the "
            "data of the challenge (see data/MMS/README.md), name its folder with --raw, or make a stand-in: "
            "`frugalseg phantom mms --out DIR`."
        )
    sheet = find_sheet(files)
    lines = read_sheet(sheet)
    scans = [_scan(images[key], truths.get(key, []), lines.get(key, []), sheet) for key in images]
    if reason := first_invalid_id(scan.id for scan in scans):
        raise DataError(f"MMS, {raw}: {reason}. Rename the files of the patient.")
    return sorted(scans, key=lambda scan: natural_key(scan.id))


def _by_patient(files: Sequence[Path], is_truth: bool) -> dict[str, list[Path]]:
    """Patient, see `comparable_id` -> image files, or files of the ground truth."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in files:
        match = FILE_NAME.fullmatch(path.name)
        if match and bool(match["truth"]) == is_truth:
            found[comparable_id(match["code"])].append(path)
    return dict(found)


def _scan(images: Sequence[Path], truths: Sequence[Path], lines: Sequence[PatientLine], sheet: Path) -> RawScan:
    """One patient's scan, with what is wrong with it."""
    match = FILE_NAME.fullmatch(images[0].name)
    code = match["code"] if match else images[0].name
    annotations = tuple(Annotation(path) for path in truths[:1])
    for files in (images, truths):
        if len(files) > 1:
            fault = f"{files[0]}, {files[1]}: two files of patient {code}; expected one. Remove one of them."
            return RawScan(code, images[0], annotations, fault=fault)
    if len(lines) != 1:
        found = f"{len(lines)} lines that differ" if lines else "no line"
        fault = f"{sheet}: {found} on patient {code}, whose scan is {images[0]}; expected one. Complete the sheet."
        return RawScan(code, images[0], annotations, fault=fault)
    try:
        origin = Origin(patient=code, domain=lines[0].domain, centre=lines[0].centre)
        return RawScan(code, images[0], annotations, origin, frames=lines[0].labelled_frames() if truths else {})
    except DataError as error:
        return RawScan(code, images[0], annotations, fault=f"{sheet}: patient {code}: {error}")


def account(raw: Path, scans: Sequence[RawScan]) -> str:
    """One line that counts the files below the folder and names those that are left out."""

    def why_unused(file: Path) -> str:
        if file.suffix.lower() in SUFFIXES:
            return "table, of which the information sheet was read"
        match = FILE_NAME.fullmatch(file.name)
        if not match:
            return "not named as <code>_sa.nii.gz or <code>_sa_gt.nii.gz"
        return "ground truth without image" if match["truth"] else "a second file of a patient"

    return account_for("MMS", raw, scans, why_unused)


def read_scan(scan: RawScan, spec: DatasetSpec) -> Cine:
    """Reads all frames of a scan, and the labels (uint8) of its annotated ones.

    Raises:
        DataError: a file is damaged; image and ground truth have different shapes; an annotated frame is out of range
            or holds no label; or a label is no class.
    """
    frames = read_cine(scan.image)
    if not scan.is_labelled:
        return Cine(tuple(frames), {})
    truth = read_cine(scan.label_file)
    try:
        _check_shapes(frames, truth, scan)
        labels = {number: _classes(truth[number], frames[number], spec) for number in scan.frames}
        _check_annotated(truth, scan.frames)
    except DataError as error:
        raise DataError(f"{scan.label_file}: {error}") from error
    distance_mm = corner_distance_mm(Grid.of(frames[0]), Grid.of(truth[0]))
    if distance_mm > min(frames[0].spacing_mm):
        log.warning("%s: %.3g mm away from the image by its header; taken as drawn on it", scan.label_file, distance_mm)
    return Cine(tuple(frames), labels)


def _check_shapes(frames: Sequence[Volume], truth: Sequence[Volume], scan: RawScan) -> None:
    shapes = [(len(each), *each[0].array.shape) for each in (truth, frames)]
    if shapes[0] != shapes[1]:
        raise DataError(
            f"shape (T, D, H, W) {shapes[0]}, but {scan.image.name} has {shapes[1]}; expected the same. Download both "
            "again."
        )
    for number, phase in scan.frames.items():
        if number >= len(frames):
            raise DataError(
                f"{phase} is frame {number} in the information sheet; the scan has {len(frames)} frames, counted from "
                "0. Correct the sheet."
            )


def _check_annotated(truth: Sequence[Volume], frames: Mapping[int, str]) -> None:
    """Checks that the frames of the sheet are those with labels; labels on further frames are not used."""
    found = [number for number, volume in enumerate(truth) if np.any(volume.array)]
    empty = [f"{number} ({phase})" for number, phase in frames.items() if number not in found]
    if empty:
        raise DataError(
            f"no label on frame {', '.join(empty)}; frames with labels: {', '.join(map(str, found)) or 'none'}. "
            "Correct ED and ES in the information sheet."
        )
    if len(found) > len(frames):
        log.warning("labels on frames %s; only %s are used", found, sorted(frames))


def _classes(label: Volume, frame: Volume, spec: DatasetSpec) -> Volume:
    """The label map of a frame, on the grid of the image."""
    array = whole_values(label.array)
    if array.min() < 0 or array.max() >= len(spec.class_names):
        raise DataError(
            f"label values from {array.min()} to {array.max()}; expected 0 to {len(spec.class_names) - 1}. Download it "
            "again."
        )
    return Volume(array.astype(np.uint8), frame.affine, frame.stored)


SOURCE = ScanSource(find_scans, read_scan, account)
