"""MR and CT acquisition: tissue brightness and texture, coil shading, blur, noise and slice positions."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from data.phantom.bodies.anatomy import Patient, box_corners


class Appearance(NamedTuple):
    """Brightness of a tissue (MR: arbitrary units, CT: Hounsfield units)."""

    mean: float
    spread: float  # standard deviation between patients
    texture: float  # standard deviation within the tissue, before noise
    coarse: float = 0.4  # fraction of the texture's variance at a scale of centimetres instead of millimetres


# T2-weighted with spectral fat suppression: fluid, kidney and spleen bright, liver and muscle darker, flowing blood
# dark. Contrasts are those of abdominal T2-SPIR images; no value was tuned for a segmentation method.
MR_APPEARANCE = {
    "skin": Appearance(170, 30, 25),
    "subcutaneous fat": Appearance(95, 20, 22, 0.8),
    "visceral fat": Appearance(80, 15, 32, 0.2),
    "muscle": Appearance(145, 18, 26),
    "rib": Appearance(110, 20, 25),
    "marrow": Appearance(215, 35, 35),
    "disc": Appearance(230, 70, 40),
    "spinal fluid": Appearance(850, 80, 40),
    "spinal cord": Appearance(420, 50, 30),
    "lung": Appearance(25, 5, 12),
    "heart muscle": Appearance(170, 30, 40),
    "blood": Appearance(120, 60, 70, 0.8),
    "bowel wall": Appearance(290, 40, 50),
    "bowel content": Appearance(460, 190, 130),
    "gas": Appearance(15, 3, 5),
    "stomach wall": Appearance(310, 40, 40),
    "stomach content": Appearance(560, 170, 110),
    "liver": Appearance(340, 45, 36),
    "liver vein": Appearance(540, 90, 40),
    "gallbladder wall": Appearance(380, 40, 30),
    "bile": Appearance(900, 80, 25),
    "pancreas": Appearance(360, 50, 55),
    "spleen": Appearance(610, 85, 50),
    "adrenal gland": Appearance(260, 40, 25),
    "renal cortex": Appearance(610, 75, 50),
    "renal medulla": Appearance(730, 85, 85),
    "renal sinus": Appearance(330, 120, 120, 0.2),
    "aorta": Appearance(60, 20, 25),
    "caval blood": Appearance(180, 80, 50),
    "portal blood": Appearance(330, 110, 50),
    "oesophagus": Appearance(260, 50, 50),
}

# Portal venous phase of contrast enhancement.
CT_APPEARANCE = {
    "skin": Appearance(10, 10, 10),
    "subcutaneous fat": Appearance(-104, 5, 8),
    "visceral fat": Appearance(-98, 6, 16),
    "muscle": Appearance(56, 6, 9),
    "rib": Appearance(320, 60, 110, 0.1),
    "marrow": Appearance(210, 40, 55, 0.1),
    "disc": Appearance(85, 10, 10),
    "spinal fluid": Appearance(15, 5, 5),
    "spinal cord": Appearance(38, 5, 5),
    "lung": Appearance(-840, 25, 40),
    "heart muscle": Appearance(105, 12, 10),
    "blood": Appearance(150, 15, 10),
    "bowel wall": Appearance(78, 10, 10),
    "bowel content": Appearance(55, 70, 30),
    "gas": Appearance(-960, 15, 20),
    "stomach wall": Appearance(78, 10, 9),
    "stomach content": Appearance(50, 45, 26),
    "liver": Appearance(106, 13, 8),
    "liver vein": Appearance(142, 16, 8),
    "gallbladder wall": Appearance(55, 10, 6),
    "bile": Appearance(10, 7, 5),
    "pancreas": Appearance(90, 13, 14),
    "spleen": Appearance(118, 13, 7),
    "adrenal gland": Appearance(72, 10, 8),
    "renal cortex": Appearance(172, 22, 11),
    "renal medulla": Appearance(148, 24, 13),
    "renal sinus": Appearance(-20, 30, 35, 0.1),
    "aorta": Appearance(148, 18, 6),
    "caval blood": Appearance(125, 18, 12),
    "portal blood": Appearance(152, 16, 7),
    "oesophagus": Appearance(52, 12, 14),
}

CT_AIR_HU = -1000.0


@dataclass(frozen=True)
class ScanGrid:
    """Voxel grid: `affine` (4, 4) maps (x, y, z, 1) to patient mm; `shape` is (D, H, W)."""

    affine: np.ndarray
    shape: tuple[int, int, int]

    def shifted(self, slices: float) -> "ScanGrid":
        """The grid shifted along its slice axis by a fraction of a slice."""
        affine = self.affine.copy()
        affine[:3, 3] += slices * affine[:3, 2]
        return ScanGrid(affine, self.shape)

    @property
    def spacing_mm(self) -> np.ndarray:
        """(3,) along (z, y, x)."""
        return np.linalg.norm(self.affine[:3, :3], axis=0)[::-1]


def plan_grid(
    patient: Patient,
    organs: tuple[str, ...],
    size_px: int,
    field_mm: float,
    slice_mm: float,
    tilt_deg: np.ndarray,
    rng: np.random.Generator,
) -> ScanGrid:
    """Plans a scan that covers `organs`, with one or more empty slices at both ends.

    The body is in the middle, up to a random offset. Apart from the tilt, columns run to the patient's left, rows to
    the back and slices to the head.
    """
    axes = Rotation.from_euler("xyz", tilt_deg, degrees=True).as_matrix() @ np.diag([-1.0, -1.0, 1.0])
    low, high = _extent_along(axes, patient, organs)
    low -= slice_mm * 1.05 + rng.uniform(0, 18)
    n_slices = 2 + int((high - low + rng.uniform(0, 18)) / slice_mm + 1.05)
    pixel_mm = field_mm / size_px
    affine = np.eye(4)
    affine[:3, :3] = axes * [pixel_mm, pixel_mm, slice_mm]
    corner = -pixel_mm * (size_px - 1) / 2
    column, row = rng.normal(corner, 5, 2) + (axes.T @ patient.middle_mm)[:2]
    affine[:3, 3] = axes @ np.array([column, row, low])
    return ScanGrid(affine, (n_slices, size_px, size_px))


def _extent_along(axes: np.ndarray, patient: Patient, organs: tuple[str, ...]) -> tuple[float, float]:
    """Extent of `organs` in mm along the slice axis, with a margin of 5 mm."""
    step_mm = 5.0
    corners = axes.T @ box_corners(patient.organ_box(organs))
    low, high = corners.min(1), corners.max(1)
    affine = np.eye(4)
    affine[:3, :3] = axes * step_mm
    affine[:3, 3] = axes @ low
    size = np.ceil((high - low) / step_mm).astype(int)
    labels = patient.labels(affine, (int(size[2]), int(size[1]), int(size[0])), dict.fromkeys(organs, 1))
    reached = low[2] + step_mm * np.flatnonzero(labels.any((1, 2)))
    return float(reached[0]) - step_mm, float(reached[-1]) + step_mm


def render(
    patient: Patient, grid: ScanGrid, modality: Literal["MR", "CT"], thickness_mm: float, rng: np.random.Generator
) -> np.ndarray:
    """Noise-free signal (D, H, W) float32: tissues with texture, averaged over the slice thickness."""
    appearances, air = (MR_APPEARANCE, 0.0) if modality == "MR" else (CT_APPEARANCE, CT_AIR_HU)
    fine, coarse = (_correlated(grid, length_mm, rng) for length_mm in (2.5, 9.0))
    n_layers = 1 if thickness_mm < 4 else 3
    offsets = (np.arange(n_layers) - (n_layers - 1) / 2) / n_layers * thickness_mm / grid.spacing_mm[0]
    pixel_mm = np.float32(grid.spacing_mm[1])
    total = np.zeros(grid.shape, np.float32)
    for offset in offsets:
        layer = np.full(grid.shape, air, np.float32)
        for structure, window, distance in patient.visit(grid.shifted(offset).affine, grid.shape):
            appearance = appearances[structure.tissue]
            texture = np.sqrt(1 - appearance.coarse) * fine[window] + np.sqrt(appearance.coarse) * coarse[window]
            value = (
                np.float32(appearance.mean + structure.brightness * appearance.spread)
                + np.float32(appearance.texture) * texture
            )
            covered = np.clip(0.5 - distance / pixel_mm, 0, 1)  # fraction of the pixel inside the body
            layer[window] += covered * (value - layer[window])
        total += layer
    return total / n_layers


def _correlated(grid: ScanGrid, length_mm: float, rng: np.random.Generator) -> np.ndarray:
    """A Gaussian random field (D, H, W) of unit variance with a correlation length of about `length_mm`."""
    sigma = np.maximum(length_mm / 2 / grid.spacing_mm, 0.05)
    field = ndimage.gaussian_filter(rng.standard_normal(grid.shape, np.float32), sigma, mode="wrap")
    return field / field.std()


def acquire_mr(signal: np.ndarray, grid: ScanGrid, rng: np.random.Generator) -> np.ndarray:
    """An MR image (D, H, W) uint16: coil shading, receiver gain, in-plane blur, Rician noise."""
    blurred = ndimage.gaussian_filter(np.maximum(signal, 0), (0, 0.5, 0.5))
    shaded = blurred * _coil_shading(grid, rng) * np.float32(rng.uniform(0.75, 1.25))
    sigma = rng.uniform(6, 12)
    real, imaginary = rng.standard_normal((2, *signal.shape), np.float32) * np.float32(sigma)
    return np.clip(np.rint(np.hypot(shaded + real, imaginary)), 0, 4095).astype(np.uint16)


def _coil_shading(grid: ScanGrid, rng: np.random.Generator) -> np.ndarray:
    """Smooth gain (D, H, W) around 1: higher near the surface coils, lower at both ends, with random gradients."""
    z, y, x = np.meshgrid(
        *(np.linspace(-1, 1, size, dtype=np.float32) for size in grid.shape), indexing="ij", sparse=True
    )
    near_surface = rng.uniform(0.1, 0.45) * ((x / 0.8) ** 2 + (y / 0.6) ** 2 - 0.5)
    at_ends = -rng.uniform(0.1, 0.5) * np.abs(z - rng.uniform(-0.2, 0.2)) ** 3
    slopes, mixed = rng.normal(0, 0.1, 3), rng.normal(0, 0.1, 3)
    uneven = slopes @ np.array([x, y, z], object) + mixed @ np.array([x * y, y * z, x * z], object)
    return np.exp(np.clip(near_surface + at_ends + uneven, -1.2, 0.7)).astype(np.float32)


def acquire_ct(signal: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A CT image (D, H, W) int16 in Hounsfield units: in-plane blur and correlated reconstruction noise."""
    blurred = ndimage.gaussian_filter(signal, (0, 0.6, 0.6))
    noise = ndimage.gaussian_filter(rng.standard_normal(signal.shape, np.float32), (0, 0.7, 0.7))
    noise *= np.float32(rng.uniform(9, 17)) / noise.std()
    return np.clip(np.rint(blurred + noise), -1024, 3071).astype(np.int16)
