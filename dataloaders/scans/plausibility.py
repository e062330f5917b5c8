"""Whether an array is the kind of scan that it is taken for: contrast, Hounsfield units, label maps, thick slices."""

import numpy as np
from nibabel.orientations import axcodes2ornt, io_orientation

from dataloaders.io.geometry import Grid
from dataloaders.rules import STORED
from dataloaders.scans.labels import whole_values
from util.errors import DataError

LEAST_RELATIVE_RANGE = 1e-6  # of the greatest magnitude; below it, an image is constant but for rounding
LEAST_RANGE_HU = 100.0  # between the darkest and brightest voxel of any CT of a body
AIR_BELOW_HU = -200.0  # lungs, bowel gas and the air around the body lie below
AIR_HU = (-3100.0, -900.0)  # minimum of CT scans; some scanners fill the corners with values far below air
GREATEST_HU = 32_767.0
MOST_LABEL_VALUES = 1_024  # of a label map, background included
FEW_LABEL_VALUES = 32  # at most so many values above 255 may be a noise-free phantom
LEAST_UNIFORM_SHARE = 0.8  # of neighbouring foreground voxels of a label map that are equal
MOST_SAMPLES = 20_000
MOST_COMPARED = 4_000_000  # voxels whose neighbours are compared
THICK_RATIO = 2.0  # of a pixel's sides, from which axial slices are blurred along one of them
PLANES = ("sagittal", "coronal", "axial")  # by the patient's axis across the slices


def require_contrast(array: np.ndarray) -> None:
    """Checks that an image is not constant.

    Raises:
        DataError: it is; the message does not name the file.
    """
    low, high = float(array.min()), float(array.max())
    if high - low <= LEAST_RELATIVE_RANGE * max(abs(low), abs(high)):
        found = f"is {low:g}" if low == high else f"lies between {low:.9g} and {high:.9g}"
        raise DataError(f"every voxel {found}: no image. Convert or copy the scan again.")


def is_hounsfield(modality: str, window: tuple[float, float] | None) -> bool:
    """Whether intensities are expected in Hounsfield units: CT, or a window that begins below 0."""
    return modality.upper() == "CT" or (window is not None and window[0] < 0)


def is_air_hu(low: float) -> bool:
    """Whether the lowest intensity of a scan is that of air, or of empty corners, in Hounsfield units."""
    return AIR_HU[0] <= low <= AIR_HU[1]


def modality_doubt(low: float, modality: str) -> str:
    """Why a scan is hardly of a modality other than CT; empty: no doubt.

    Args:
        low: its lowest intensity.
        modality: that is expected; empty: unknown.
    """
    if not modality or not is_air_hu(low):
        return ""
    return f"lowest intensity {low:.0f}, as of a CT in Hounsfield units; expected {modality}. Is this the right scan?"


def hounsfield_doubt(low: float, high: float) -> str:
    """Why intensities from `low` to `high` are hardly Hounsfield units; empty: no doubt.

    Raises:
        DataError: they certainly are not; the message does not name the file.
    """
    found = f"intensities from {low:g} to {high:g}"
    remedy = "Apply the rescale slope and intercept when converting; do not scale intensities."
    if high - low < LEAST_RANGE_HU:
        raise DataError(
            f"{found}: a range of {high - low:g}; expected a CT in Hounsfield units, with {LEAST_RANGE_HU:g} or more "
            f"between fat and soft tissue. {remedy}"
        )
    if low > AIR_BELOW_HU:
        return (
            f"{found}, none below {AIR_BELOW_HU:g} HU, where a CT has air: probably no Hounsfield units. {remedy} If "
            "the scan is cropped to the inside of the body, this is right."
        )
    if high > GREATEST_HU:
        return f"{found}, above {GREATEST_HU:g} HU, the highest of any CT: negative values have wrapped. {remedy}"
    return ""


def label_map_values(array: np.ndarray) -> int:
    """How many values a scan has if it looks like a label map by its content, else 0.

    A label map has whole values from 0, not many, in uniform regions: neighbouring foreground voxels are mostly equal.
    Noise makes those of images differ, also with 8 bits or fewer. Images in Hounsfield units have negative values.

    Args:
        array: (D, H, W).
    """
    flat = array.reshape(-1)
    sample = flat[:: max(1, flat.size // MOST_SAMPLES)]
    if array.dtype.kind == "f" and not (np.isfinite(sample).all() and np.abs(sample - np.rint(sample)).max() <= 1e-3):
        return 0
    if len(np.unique(sample)) > MOST_LABEL_VALUES or flat.min() < 0 or _uniform_share(array) < LEAST_UNIFORM_SHARE:
        return 0
    try:
        values = np.unique(whole_values(flat))
    except DataError:
        return 0
    is_plain = len(values) == 2 or values[-1] <= 255 or len(values) > FEW_LABEL_VALUES
    return len(values) if 2 <= len(values) <= MOST_LABEL_VALUES and values[0] == 0 and is_plain else 0


def _uniform_share(array: np.ndarray) -> float:
    """The share of neighbours within slices, both above 0, that are equal; 1 where there are none."""
    part = array[:: max(1, array.size // MOST_COMPARED)]
    pairs = ((part[:, 1:], part[:, :-1]), (part[:, :, 1:], part[:, :, :-1]))
    counts = [np.count_nonzero((one > 0) & (other > 0)) for one, other in pairs]
    equal = [np.count_nonzero((one > 0) & (one == other)) for one, other in pairs]
    return sum(equal) / sum(counts) if sum(counts) else 1.0


def label_map_doubt(array: np.ndarray) -> str:
    """Why a scan is probably a label map, see `label_map_values`; empty: no doubt."""
    n_values = label_map_values(array)
    if not n_values:
        return ""
    return f"{n_values} whole values from 0 to {array.max():g} in uniform regions: a label map or mask, not a scan"


def slicing_doubt(grid: Grid, axis_codes: str) -> str:
    """Why slices along the wanted axes are blurred: the scan has thick slices in another plane; empty: no doubt.

    Args:
        grid: of the scan as stored.
        axis_codes: directions of columns, rows and slices for the network; LAS is axial, "stored" as in the file.
    """
    patient_axes = io_orientation(grid.affine)[:, 0].astype(int).tolist()
    spacing_mm = dict(zip(patient_axes, grid.spacing_mm[::-1], strict=True))
    is_stored = axis_codes == STORED
    columns, rows, slices = patient_axes if is_stored else axcodes2ornt(tuple(axis_codes))[:, 0].astype(int).tolist()
    thick, thin = sorted((columns, rows), key=lambda axis: -spacing_mm[axis])
    if spacing_mm[thick] < THICK_RATIO * spacing_mm[thin]:
        return ""
    return (
        f"{PLANES[thick]} slices {spacing_mm[thick]:.3g} mm apart: the {PLANES[slices]} slices that the network sees "
        f"are cut across them and have pixels of {spacing_mm[columns]:.3g} x {spacing_mm[rows]:.3g} mm. Expect a lower "
        f"quality than with {PLANES[slices]} scans."
    )
