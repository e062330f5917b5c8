"""Phantom in the format of the Synapse multi-atlas abdomen challenge: CT training scans as NIfTI pairs."""

from pathlib import Path

import numpy as np

from data.phantom.bodies.abdomen import MISSING_ORGANS, draw_patient
from data.phantom.devices.acquisition import acquire_ct, plan_grid, render
from data.phantom.writers.formats import RawFormat, ScanRequest
from dataloaders.io.nifti import write_nifti
from dataloaders.samples import Volume

ORGANS = (
    *("spleen", "right kidney", "left kidney", "gallbladder", "oesophagus", "liver", "stomach", "aorta"),
    *("inferior vena cava", "portal and splenic veins", "pancreas", "right adrenal gland", "left adrenal gland"),
)
LABELS = {organ: value for value, organ in enumerate(ORGANS, 1)}
FILE_NUMBERS = (*range(1, 11), *range(21, 41))  # img0001 to img0010 and img0021 to img0040, as published
FLIPS = {3: (1, 1), 7: (-1, -1)}  # scan index modulo 8 -> signs of (x, y): RAS and LPS instead of LAS
LAS = (-1, 1)


def make(request: ScanRequest) -> tuple[Volume, Volume]:
    """Generates one scan in memory: image int16 in Hounsfield units and label uint8, both (D, H, W).

    Axes are not oblique. Slices are 3 to 5 mm apart at 512 pixels and up to 9 mm at smaller sizes; the pixel spacing is
    400 to 440 mm / `size_px`.
    """
    patient_rng, rng = request.generators("sabs")
    build = request.patient_build("sabs")
    patient = draw_patient(patient_rng, MISSING_ORGANS.get(request.scan_index, ()), build)
    field_mm, slice_mm = rng.uniform(400, 440), rng.uniform(3, 5) * min(1.8, np.sqrt(512 / request.size_px))
    field_mm = build.field(field_mm) if build else field_mm
    grid = plan_grid(patient, ORGANS, request.size_px, field_mm, float(slice_mm), np.zeros(3), rng)
    image = acquire_ct(render(patient, grid, "CT", float(slice_mm), rng), rng)
    label = patient.labels(grid.affine, grid.shape, LABELS)
    x_sign, y_sign = FLIPS.get(request.scan_index % 8, LAS)
    return _reorient(Volume(image, grid.affine), x_sign, y_sign), _reorient(Volume(label, grid.affine), x_sign, y_sign)


def _reorient(volume: Volume, x_sign: int, y_sign: int) -> Volume:
    """Flips a volume so that columns run along `x_sign` * right and rows along `y_sign` * front."""
    array, affine = volume.array, volume.affine.copy()
    for column, sign, axis in ((0, x_sign, 2), (1, y_sign, 1)):
        if np.sign(affine[column, column]) != sign:
            affine[:3, 3] += affine[:3, column] * (array.shape[axis] - 1)
            affine[:3, column] *= -1
            array = np.flip(array, axis)
    return Volume(np.ascontiguousarray(array), affine)


def write(out: Path, request: ScanRequest) -> None:
    """Writes `img/img<number>.nii.gz`, then `label/label<number>.nii.gz`; an existing scan is kept.

    Raises:
        UserError: the folder is not writable, or the disk is full.
    """
    number = f"{FILE_NUMBERS[request.scan_index]:04d}"
    image_path, label_path = out / "img" / f"img{number}.nii.gz", out / "label" / f"label{number}.nii.gz"
    if image_path.exists() and label_path.exists():
        return
    image, label = make(request)
    write_nifti(image_path, image)
    write_nifti(label_path, label)


SABS_RAW = RawFormat(len(FILE_NUMBERS), ("img", "label"), make, write, has_builds=True)
