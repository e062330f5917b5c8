"""Phantom in the format of the M&Ms challenge: 4-D cine MR of the heart by four vendors, and the information sheet."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from data.phantom.bodies import heart
from data.phantom.devices.sites import Site, draw_shading, draw_texture, expose, paint
from data.phantom.writers.formats import RawFormat, ScanRequest
from dataloaders.io.nifti import write_frames
from dataloaders.samples import Cine, Volume
from util.files import write_text

VENDORS = ("Siemens", "Philips", "GE", "Canon")  # of the domains A to D, to which patients are dealt in turn
SHEET = "M&Ms_Dataset_information_phantom.csv"
SHEET_COLUMNS = ("External code", "VendorName", "Vendor", "Centre", "ED", "ES")
CONTRACTION = (0.0, 0.6, 1.0, 0.45)  # of the frames, from end-diastole
LATE = (0, 1, 0, 2)  # number of the frame at end-diastole, by domain
UNLABELLED_EVERY = 5  # of the patients of vendor C, every fifth, from the fifth, has no ground truth
FIELD_MM = (320.0, 360.0, 380.0, 300.0)  # width, by domain
ROWS = (0.8, 1.0, 1.0, 0.9)  # of the columns, by domain
# Balanced steady-state images: blood, fat and fluid bright, muscle dark, lung without signal. How much brighter depends
# on field strength, flip angle and fat suppression. Values are plausible, not measured; none was tuned for a method.
SITES = (
    Site(
        {"air": 0.01, "fat": 0.95, "muscle": 0.3, "lung": 0.06, "blood": 1.0, "myocardium": 0.33, "liver": 0.42}
        | {"fluid": 0.9, "bone": 0.4},
        *(0.05, 240.0, 0.4, (-1.0, -1.0), 0.5, 0.03),
    ),
    Site(
        {"air": 0.02, "fat": 1.5, "muscle": 0.42, "lung": 0.16, "blood": 0.9, "myocardium": 0.45, "liver": 0.75}
        | {"fluid": 1.1, "bone": 0.75},
        *(0.07, 900.0, 1.3, (-0.4, -1.0), 0.9, 0.06),
    ),
    Site(
        {"air": 0.02, "fat": 0.5, "muscle": 0.5, "lung": 0.12, "blood": 0.85, "myocardium": 0.52, "liver": 0.62}
        | {"fluid": 1.3, "bone": 0.3},
        *(0.06, 2600.0, 0.8, (1.0, -0.6), 1.4, 0.09, 0.8),
    ),
    Site(
        {"air": 0.05, "fat": 1.15, "muscle": 0.24, "lung": 0.3, "blood": 0.7, "myocardium": 0.26, "liver": 0.33}
        | {"fluid": 0.6, "bone": 0.55},
        *(0.08, 70.0, 1.6, (0.5, 1.0), 1.9, 0.05),
    ),
)


def domain_of(scan_index: int) -> int:
    """0 to 3, of the patient's vendor."""
    return scan_index % len(VENDORS)


def centre_of(scan_index: int) -> int:
    """1 to 5; vendor B has two centres, 2 and 3."""
    first = (1, 2, 4, 5)[domain_of(scan_index)]
    return first + (domain_of(scan_index) == 1 and scan_index // len(VENDORS) % 2)


def code_of(scan_index: int) -> str:
    """The external code, such as P007K3."""
    return f"P{scan_index:03d}{'KLMN'[domain_of(scan_index)]}{scan_index % 7}"


def is_labelled(scan_index: int) -> bool:
    """Whether the patient has a ground truth."""
    is_last = scan_index // len(VENDORS) % UNLABELLED_EVERY == UNLABELLED_EVERY - 1
    return not (VENDORS[domain_of(scan_index)] == "GE" and is_last)


def annotated_frames(scan_index: int) -> dict[str, int]:
    """Phase -> number of its frame."""
    late = LATE[domain_of(scan_index)]
    return {"ED": late, "ES": (late + CONTRACTION.index(1.0)) % len(CONTRACTION)}


def make(request: ScanRequest) -> Cine:
    """Generates one scan in memory: 4 frames int16 (D, H, W) of 4 to 6 slices, and labels uint8 at ED and ES.

    Slices are oblique and 13 to 18 mm apart; `size_px` is the number of columns.
    """
    patient_rng, rng = request.generators("mms")
    thorax, domain = heart.draw_thorax(patient_rng), domain_of(request.scan_index)
    site, late = SITES[domain], LATE[domain]
    pixel_mm = FIELD_MM[domain] * float(rng.uniform(0.95, 1.05)) / request.size_px
    shape = (round(request.size_px * ROWS[domain]), request.size_px)
    n_slices = int(rng.integers(4, 7))
    along = np.linspace(1.08, -0.02, n_slices) + rng.uniform(-0.04, 0.04)  # from base to apex
    affine = _affine(shape, pixel_mm, thorax.length_mm * 1.1 / (n_slices - 1), rng)
    brightness, shading = site.brightness(rng), draw_shading(site, shape, rng)
    textures = [draw_texture(shape, pixel_mm, rng) for _ in along]
    points = _points(shape, pixel_mm)
    frames, labels = [], {}
    for number in range(len(CONTRACTION)):
        contraction = CONTRACTION[(number - late) % len(CONTRACTION)]
        slices = [
            paint(heart.layers(thorax, points, place, contraction), brightness, pixel_mm, texture)
            for place, texture in zip(along, textures, strict=True)
        ]
        frames.append(Volume(np.stack([expose(each, site, shading, pixel_mm, rng) for each in slices]), affine))
        if number in annotated_frames(request.scan_index).values():
            drawn = [heart.label_map(thorax, points, place, contraction) for place in along]
            labels[number] = Volume(np.stack(drawn), affine)
    return Cine(tuple(frames), labels)


def _points(shape: tuple[int, int], pixel_mm: float) -> np.ndarray:
    """(2, H, W) x and y of the pixels, mm from the centre."""
    rows, columns = (pixel_mm * (np.arange(side, dtype=np.float32) - (side - 1) / 2) for side in shape)
    return np.stack(np.meshgrid(columns, rows))


def _affine(shape: tuple[int, int], pixel_mm: float, slice_mm: float, rng: np.random.Generator) -> np.ndarray:
    """(4, 4) of oblique slices across the heart's long axis."""
    angles = np.array([35.0, 40.0, 20.0]) + rng.normal(0, 6, 3)
    axes = Rotation.from_euler("zyx", angles, degrees=True).as_matrix() @ np.diag([-1.0, -1.0, 1.0])
    affine = np.eye(4)
    affine[:3, :3] = axes * [pixel_mm, pixel_mm, slice_mm]
    affine[:3, 3] = -axes @ (np.array([shape[1] - 1, shape[0] - 1, 0]) * pixel_mm / 2) + rng.normal(0, 10, 3)
    return affine


def folder_of(scan_index: int) -> str:
    """Where the challenge keeps the patient's files."""
    if not is_labelled(scan_index):
        return "Training/Unlabeled"
    return "Training/Labeled" if domain_of(scan_index) < 2 else "Testing"


def write(out: Path, request: ScanRequest) -> None:
    """Writes `<code>/<code>_sa.nii.gz` and, where there is one, `<code>_sa_gt.nii.gz`; an existing scan is kept.

    Raises:
        UserError: the folder is not writable, or the disk is full.
    """
    index = request.scan_index
    code = code_of(index)
    folder = out / folder_of(index) / code
    image_path, label_path = folder / f"{code}_sa.nii.gz", folder / f"{code}_sa_gt.nii.gz"
    if image_path.exists() and (label_path.exists() or not is_labelled(index)):
        return
    cine = make(request)
    write_frames(image_path, cine.frames)
    if is_labelled(index):
        nothing = Volume(np.zeros_like(next(iter(cine.labels.values())).array), cine.frames[0].affine)
        write_frames(label_path, [cine.labels.get(number, nothing) for number in range(len(cine.frames))])


def write_sheet(out: Path, requests: Sequence[ScanRequest]) -> None:
    """Writes the information sheet.

    Raises:
        UserError: the folder is not writable, or the disk is full.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SHEET_COLUMNS)
    for index in (request.scan_index for request in requests):
        domain, frames = domain_of(index), annotated_frames(index)
        row = (code_of(index), VENDORS[domain], "ABCD"[domain], centre_of(index), frames["ED"], frames["ES"])
        writer.writerow(row)
    write_text(out / SHEET, text.getvalue())


MMS_RAW = RawFormat(345, ("Training", "Testing"), make, write, finish=write_sheet)
