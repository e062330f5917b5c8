"""Phantom in the format of the spinal cord grey matter challenge: MR of four sites, with the masks of four raters."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from data.phantom.bodies import cord
from data.phantom.devices.sites import Site, draw_shading, draw_texture, expose, paint
from data.phantom.writers.formats import RawFormat, ScanRequest
from dataloaders.io.nifti import write_nifti
from dataloaders.samples import Volume

N_RATERS = 4
N_LABELLED = 40  # the first ten scans of each site
SPACING_MM = ((5.0, 0.5, 0.5), (5.0, 0.5, 0.5), (2.5, 0.5, 0.5), (5.0, 0.29, 0.29))  # (z, y, x) of sites 1 to 4
NOMINAL_PX = 96  # columns of sites 1 to 3 from which the spacing is the published one
RATER_MM = (0.08, 0.16)  # standard deviation of a rater's outline as a whole, and along it
GREY_MATTER, WHITE_MATTER = 1, 2
# T2*-weighted images: fluid bright, grey matter brighter than white matter by an amount that depends on echo time and
# field strength. Values are plausible, not measured; none was tuned for a method.
SITES = (
    Site(
        {"air": 0.01, "fat": 0.7, "muscle": 0.35, "bone": 0.12, "disc": 0.45, "vessel": 0.9, "fluid": 1.0}
        | {"white matter": 0.5, "grey matter": 0.68},
        *(0.04, 300.0, 0.3, (0.0, 1.0), 0.25, 0.04),
    ),
    Site(
        {"air": 0.02, "fat": 1.0, "muscle": 0.5, "bone": 0.2, "disc": 0.3, "vessel": 0.2, "fluid": 0.45}
        | {"white matter": 0.6, "grey matter": 0.74},
        *(0.04, 1200.0, 0.9, (0.3, 1.0), 0.35, 0.05),
    ),
    Site(
        {"air": 0.01, "fat": 0.4, "muscle": 0.25, "bone": 0.1, "disc": 0.6, "vessel": 1.2, "fluid": 1.35}
        | {"white matter": 0.42, "grey matter": 0.66},
        *(0.05, 90.0, 0.7, (-0.5, 1.0), 0.45, 0.08),
    ),
    Site(
        {"air": 0.03, "fat": 0.25, "muscle": 0.6, "bone": 0.25, "disc": 0.25, "vessel": 0.5, "fluid": 0.85}
        | {"white matter": 0.75, "grey matter": 1.0},
        *(0.05, 2500.0, 1.4, (0.2, 1.0), 0.3, 0.07, 0.7),
    ),
)


def make(request: ScanRequest) -> tuple[Volume, Volume]:
    """Generates one scan in memory: image int16 and grey matter uint8, both (D, H, W).

    Slices are nearly axial. `size_px` is the number of columns of sites 1 to 3; site 4 has more, as its pixels are
    smaller. Below `NOMINAL_PX` pixels grow, so that the cord stays in the image.
    """
    image, grey, _ = _scan(request)
    return image, Volume((grey < 0).astype(np.uint8), image.affine)


def _scan(request: ScanRequest) -> tuple[Volume, np.ndarray, np.ndarray]:
    """The image, and the distances (D, H, W) to grey matter and cord in mm."""
    patient_rng, rng = request.generators("scgm")
    spine, site_index = cord.draw_spine(patient_rng), request.scan_index % len(SITES)
    site, (slice_mm, pixel_mm, _) = SITES[site_index], SPACING_MM[site_index]
    side = round(request.size_px * SPACING_MM[0][1] / pixel_mm)
    pixel_mm *= max(1.0, NOMINAL_PX / request.size_px)
    depth = int(rng.integers(3, 5)) * (2 if slice_mm < 5 else 1)
    along, shape = np.linspace(0, 1, depth), (side, side)
    axis = pixel_mm * (np.arange(side, dtype=np.float32) - (side - 1) / 2)
    points = np.stack(np.meshgrid(axis, axis))
    brightness, shading = site.brightness(rng), draw_shading(site, shape, rng)
    slices = [
        paint(cord.layers(spine, points, place), brightness, pixel_mm, draw_texture(shape, pixel_mm, rng))
        for place in along
    ]
    array = np.stack([expose(each, site, shading, pixel_mm, rng) for each in slices])
    affine = np.diag([-pixel_mm, -pixel_mm, slice_mm, 1.0])
    affine[:3, 3] = [pixel_mm * (side - 1) / 2, pixel_mm * (side - 1) / 2, float(rng.normal(-40, 10))]
    grey, white = (np.stack(parts) for parts in zip(*(cord.outlines(spine, points, at) for at in along), strict=True))
    return Volume(array, affine), grey, white


def name_of(scan_index: int) -> str:
    """Such as site1-sc01; scans are dealt to the sites in turn."""
    return f"site{scan_index % len(SITES) + 1}-sc{scan_index // len(SITES) + 1:02d}"


def write(out: Path, request: ScanRequest) -> None:
    """Writes `siteX-scNN-image.nii.gz` after `-mask-r1.nii.gz` to `-r4.nii.gz`, which the test scans lack.

    An existing scan is kept.

    Raises:
        UserError: the folder is not writable, or the disk is full.
    """
    index = request.scan_index
    is_labelled = index < N_LABELLED
    folder, name = out / ("training" if is_labelled else "test"), name_of(index)
    image_path = folder / f"{name}-image.nii.gz"
    if image_path.exists():
        return
    image, grey, white = _scan(request)
    if is_labelled:
        rng = np.random.default_rng([request.seed, index, N_RATERS])
        for rater in range(1, N_RATERS + 1):
            mask = _rated(grey, white, float(image.spacing_mm[1]), rng)
            write_nifti(folder / f"{name}-mask-r{rater}.nii.gz", Volume(mask, image.affine))
    write_nifti(image_path, image)


def _rated(grey: np.ndarray, white: np.ndarray, pixel_mm: float, rng: np.random.Generator) -> np.ndarray:
    """The mask of one rater, whose outlines differ from the true ones by fractions of a millimetre."""
    whole_mm, along_mm = RATER_MM
    wander = ndimage.gaussian_filter(rng.standard_normal(grey.shape), (0, 1.5 / pixel_mm, 1.5 / pixel_mm), mode="wrap")
    moved = grey + rng.normal(0, whole_mm) + along_mm * wander / max(float(wander.std()), 1e-6)
    mask = np.where(white < 0, WHITE_MATTER, 0)
    return np.where(moved < 0, GREY_MATTER, mask).astype(np.uint8)


SCGM_RAW = RawFormat(80, ("training", "test"), make, write)
