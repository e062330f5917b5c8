"""Phantom in the format of the CHAOS challenge's MR training scans: DICOM slices and PNG annotations."""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from data.phantom.bodies.abdomen import MISSING_ORGANS, draw_patient
from data.phantom.devices.acquisition import acquire_mr, plan_grid, render
from data.phantom.writers.formats import RawFormat, ScanRequest
from dataloaders.catalog import dataset
from dataloaders.samples import Volume
from util.errors import UserError

CHAOST2 = dataset("CHAOST2")

LABELS = {"liver": 1, "right kidney": 2, "left kidney": 3, "spleen": 4}
GREY_OF_LABEL = np.array([0, 63, 126, 189, 252], np.uint8)
THICKNESS_PER_SPACING = 0.7  # slice thickness differs from the spacing, which only the slice positions give
HEAD_FIRST_EVERY = 4  # in every fourth scan, slices are numbered from head to foot


def make(request: ScanRequest) -> tuple[Volume, Volume]:
    """Generates one scan in memory: image uint16 and label uint8, both (D, H, W), in the order of the DICOM instances.

    Slices are a few degrees oblique and 7 to 9 mm apart; the pixel spacing is 370 to 400 mm / `size_px`.
    """
    patient_rng, rng = request.generators("chaost2")
    build = request.patient_build("chaost2")
    patient = draw_patient(patient_rng, MISSING_ORGANS.get(request.scan_index, ()), build)
    field_mm, slice_mm = rng.uniform(370, 400), rng.uniform(7, 9)
    tilt_deg = rng.choice([-1, 1], 3) * rng.uniform(1, 4, 3)
    field_mm = build.field(field_mm) if build else field_mm
    grid = plan_grid(patient, tuple(LABELS), request.size_px, field_mm, slice_mm, tilt_deg, rng)
    signal = render(patient, grid, "MR", THICKNESS_PER_SPACING * slice_mm, rng)
    image = acquire_mr(signal, grid, rng)
    label = patient.labels(grid.affine, grid.shape, LABELS)
    affine = grid.affine
    if request.scan_index % HEAD_FIRST_EVERY == HEAD_FIRST_EVERY - 1:
        affine = affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, len(image) - 1], [0, 0, 0, 1]])
        image, label = np.ascontiguousarray(image[::-1]), np.ascontiguousarray(label[::-1])
    return Volume(image, affine), Volume(label, affine)


def write(out: Path, request: ScanRequest) -> None:
    """Writes `MR/<id>/T2SPIR/{DICOM_anon,Ground}`; an existing scan is kept.

    Raises:
        UserError: the folder is not writable, or the disk is full.
    """
    scan_id = CHAOST2.cases[request.scan_index]
    folder = out / "MR" / scan_id
    if folder.exists():
        return
    image, label = make(request)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".writing-") as temporary:
            staged = Path(temporary) / folder.name
            _write_slices(staged / "T2SPIR", image, label, f"{request.seed}.{request.size_px}.{scan_id}", scan_id)
            staged.rename(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be written ({error.strerror or error}). Existing scans are complete. Free some disk "
            f"space or make {out} writable; then run the same command again."
        ) from error


def _write_slices(folder: Path, image: Volume, label: Volume, key: str, scan_id: str) -> None:
    for name in ("DICOM_anon", "Ground"):
        (folder / name).mkdir(parents=True)
    for index, (pixels, labels) in enumerate(zip(image.array, label.array, strict=True)):
        stem = f"IMG-0001-{index + 1:05d}"
        dicom = _slice_dataset(pixels, image.affine, index, key, scan_id)
        dicom.save_as(folder / "DICOM_anon" / f"{stem}.dcm", enforce_file_format=True)
        Image.fromarray(GREY_OF_LABEL[labels]).save(folder / "Ground" / f"{stem}.png")


def _slice_dataset(pixels: np.ndarray, affine: np.ndarray, index: int, key: str, scan_id: str) -> FileDataset:
    """One MR image (H, W) uint16 as DICOM, positions converted from RAS+ to DICOM's LPS+."""
    to_lps = np.diag([-1.0, -1.0, 1.0])
    columns, rows, slices = (to_lps @ affine[:3, :3]).T
    position = to_lps @ affine[:3, 3] + index * slices
    column_mm, row_mm, slice_mm = (float(np.linalg.norm(step)) for step in (columns, rows, slices))
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = _uid("instance", key, str(index))
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid("study", key), _uid("series", key)
    dataset.FrameOfReferenceUID = _uid("frame", key)
    dataset.PatientName, dataset.PatientID = f"PHANTOM^{scan_id}", scan_id
    dataset.PatientBirthDate = dataset.PatientSex = dataset.PositionReferenceIndicator = ""
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.StudyID, dataset.SeriesNumber, dataset.InstanceNumber = "1", 1, index + 1
    dataset.Modality, dataset.Manufacturer, dataset.SeriesDescription = "MR", "phantom", "T2W_SPIR"
    dataset.ImageType, dataset.PatientPosition = ["ORIGINAL", "PRIMARY"], "HFS"
    dataset.ScanningSequence, dataset.SequenceVariant, dataset.ScanOptions = "SE", "SK", "FS"
    dataset.MRAcquisitionType, dataset.EchoTime, dataset.RepetitionTime = "2D", 70, 1600
    dataset.SliceThickness = _decimal(round(THICKNESS_PER_SPACING * slice_mm, 2))
    dataset.ImagePositionPatient = [_decimal(value) for value in position]
    dataset.ImageOrientationPatient = [_decimal(value) for value in (*columns / column_mm, *rows / row_mm)]
    dataset.PixelSpacing = [_decimal(row_mm), _decimal(column_mm)]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelData = pixels.astype("<u2").tobytes()
    return dataset


def _uid(*parts: str) -> UID:
    return generate_uid(entropy_srcs=["phantom", *parts])


def _decimal(value: float) -> str:
    return format_number_as_ds(float(value))


CHAOST2_RAW = RawFormat(len(CHAOST2.cases), ("MR",), make, write, has_builds=True)
