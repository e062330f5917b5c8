"""What one file holds, read once: grid, intensities, the few values or colours of a label map."""

import hashlib
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nibabel import imageglobals
from nibabel.orientations import aff2axcodes

from data.describe.folder import Item
from dataloaders.description import LARGEST_VALUE
from dataloaders.io import pictures
from dataloaders.io.dicom import describe, read_dicom_slices
from dataloaders.io.dicom.frame import quiet
from dataloaders.io.geometry import Grid
from dataloaders.io.nifti import read_nifti, voxel_hash
from dataloaders.samples import Volume
from util.errors import DataError

PERCENTILES = (0.0, 0.5, 50.0, 99.5, 100.0)
MOST_SAMPLES = 2_000_000  # voxels from which percentiles are taken, evenly spaced
MOST_VALUES = 255  # of a label map, background included
MOST_COLOURS = 64  # of a colour-coded mask
FEW_VALUES = 32  # so few values make a file look like a label map, whatever it is called
WHOLE_WITHIN = 0.01  # label maps resampled or scaled by other programs: 0.999 is 1
SOFT_WITHIN, SOFT_SHARE = 48, 0.98  # greys so near to black or white, in that share of the pixels: a mask saved as JPEG

EXIF_NOTE = "stored turned, with an EXIF orientation, and read upright, as viewers show it"
PLAUSIBLE_MM = (0.05, 30.0)  # distances between voxels

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class FileFacts:
    """What a file holds.

    Attributes:
        shape: (D, H, W) or (H, W).
        dtype: as stored.
        percentiles: intensities at `PERCENTILES`; of the grey version of colour images.
        digest: equal for equal content, however it is compressed.
        values: value -> number of voxels, of what has at most `MOST_VALUES` whole values; else empty.
        colours: colour -> number of pixels, of colour images with at most `MOST_COLOURS`; else empty.
        affine: scans: rows of the (4, 4) affine; else empty.
        axis_codes: scans: directions in which columns, rows and slices are counted; else empty.
        channels: 1, or 3 for images that hold colour.
        modality: as DICOM says it; else empty.
        patient: digest of DICOM's PatientID; else empty.
        notes: what is unusual, in words.
    """

    shape: tuple[int, ...]
    dtype: str
    percentiles: tuple[float, ...]
    digest: str
    values: dict[int, int]
    colours: dict[Colour, int]
    affine: tuple[tuple[float, ...], ...] = ()
    axis_codes: str = ""
    channels: int = 1
    modality: str = ""
    patient: str = ""
    notes: tuple[str, ...] = ()

    @property
    def grid(self) -> Grid:
        """Where the voxels of a scan are."""
        return Grid.from_json({"shape": self.shape, "affine": self.affine})

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Scans: distance between neighbouring voxel centres along (z, y, x)."""
        return self.grid.spacing_mm

    @property
    def is_label_like(self) -> bool:
        """Whether it can be a label map or mask: whole values not below 0, few enough to be classes; or few colours."""
        return bool(self.colours) or (bool(self.values) and min(self.values) >= 0)

    @property
    def content(self) -> str:
        """The values in words."""
        low, high = self.percentiles[0], self.percentiles[-1]
        kind = f"{len(self.values)} whole values" if self.values else "colours" if self.channels == 3 else "values"
        return f"{kind} from {low:.4g} to {high:.4g}"

    @property
    def is_surely_label_like(self) -> bool:
        """Whether it looks like a label map whatever its name: very few values or colours, with background 0."""
        if self.colours:
            return len(self.colours) <= FEW_VALUES
        return self.is_label_like and 2 <= len(self.values) <= FEW_VALUES and 0 in self.values

    @property
    def is_binary(self) -> bool:
        """Whether it is a mask: 0 and at most one other value."""
        return self.is_label_like and not self.colours and len(set(self.values) - {0}) <= 1


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read, and the reason."""

    reason: str


def read_facts(root: Path, item: Item) -> FileFacts | Unreadable:
    """Reads a file or series; never raises, so that no file stops the others."""
    path = root / item.path
    imageglobals.logger.setLevel(logging.CRITICAL)  # nibabel's own remarks; what it raises is reported
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pillow and pydicom, on oddities that do not matter here
            if item.format == "nifti":
                return _volume_facts(read_nifti(path))
            return _series_facts(path) if item.format == "dicom" else _picture_facts(path)
    except Exception as error:  # noqa: BLE001  (the boundary: any failure becomes this file's reason)
        reason = " ".join(str(error).split()) or type(error).__name__
        return Unreadable(reason.removeprefix(f"{path}: ").replace(f"{root}/", ""))


def _series_facts(folder: Path) -> FileFacts:
    """The facts of a DICOM series.

    Raises:
        DataError: no image series, or one that `read_dicom_slices` refuses.
    """
    series = read_dicom_slices(folder)
    first = series.slices[0].frame
    with quiet():
        modality, identity = first.text("Modality"), first.text("PatientID")
    patient = hashlib.sha256(identity.encode()).hexdigest()[:12] if identity else ""
    skipped = [f"in the folder, and no slices of the scan: {describe(series.skipped)}"] * bool(series.skipped)
    return _volume_facts(series.volume, modality, patient, skipped)


def _volume_facts(volume: Volume, modality: str = "", patient: str = "", known: Sequence[str] = ()) -> FileFacts:
    array, notes = volume.array, list(known)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        notes.append(f"{np.count_nonzero(~np.isfinite(array))} voxels are not finite (NaN or infinite)")
        array = np.nan_to_num(array, posinf=0, neginf=0)
    if not all(PLAUSIBLE_MM[0] <= spacing <= PLAUSIBLE_MM[1] for spacing in volume.spacing_mm):
        spacings = " x ".join(f"{spacing:.3g}" for spacing in volume.spacing_mm)
        notes.append(f"a spacing of {spacings} mm, is the header's unit (metre, micrometre) or voxel size wrong?")
    values = _values(array)
    if values and array.dtype.kind == "f" and (array % 1).any():
        notes.append("values that are not exactly whole, which label maps must have: round them")
    return FileFacts(
        shape=volume.array.shape,
        dtype=str(volume.array.dtype),
        percentiles=_percentiles(array),
        digest=voxel_hash(volume.array),
        values=values,
        colours={},
        affine=tuple(map(tuple, volume.affine.tolist())),
        axis_codes="".join(aff2axcodes(volume.affine)),
        modality=modality,
        patient=patient,
        notes=tuple(notes),
    )


def _picture_facts(path: Path) -> FileFacts:
    """The facts of a picture, upright.

    Raises:
        DataError: several pages, or a GIF that is no mask.
    """
    array, indices = pictures.read_pixels(path)
    notes = [EXIF_NOTE] if pictures.orientation(path) != pictures.UPRIGHT else []
    notes += ["transparency, which is not used"] * (array.shape[2:] == (4,))
    array = pictures.without_transparency(array)
    is_colour = array.ndim == 3 and bool((array != array[..., :1]).any())
    grey = array.mean(axis=2).astype(np.float32) if is_colour else array[..., 0] if array.ndim == 3 else array
    uses_indices = indices is not None and (is_colour or not grey.any())
    values = _values(indices) if indices is not None and uses_indices else {} if is_colour else _values(grey)
    if not is_colour and len(values) != 2 and path.suffix.lower() in (".jpg", ".jpeg") and _is_soft_mask(grey):
        values = {0: int((grey <= 127).sum()), 255: int((grey > 127).sum())}
        notes.append("a mask with greys from JPEG compression, split at half of 255")
    facts = FileFacts(
        shape=grey.shape,
        dtype=str(array.dtype),
        percentiles=_percentiles(grey),
        digest=voxel_hash(array),
        values=values,
        colours=_colours(array) if is_colour and not uses_indices else {},
        channels=3 if is_colour else 1,
        notes=tuple(notes),
    )
    if path.suffix.lower() == ".gif" and not facts.is_surely_label_like:
        raise DataError("a GIF, which is read as mask only; convert it to PNG.")
    return facts


def _percentiles(array: np.ndarray) -> tuple[float, ...]:
    flat = array.reshape(-1)
    sample = flat[:: max(1, flat.size // MOST_SAMPLES)]
    inner = np.percentile(sample, PERCENTILES[1:-1])
    return (float(array.min()), *map(float, inner), float(array.max()))


def _values(array: np.ndarray) -> dict[int, int]:
    """Value -> number of voxels; empty for what is not whole or has more than `MOST_VALUES` values."""
    flat = array.reshape(-1)
    sample = np.rint(flat[:: max(1, flat.size // 20_000)])
    if len(np.unique(sample)) > MOST_VALUES or np.abs(array).max() > LARGEST_VALUE:
        return {}
    if array.dtype.kind == "f":
        if np.abs(flat - np.rint(flat)).max() > WHOLE_WITHIN:
            return {}
        flat = np.rint(flat).astype(np.int32)
    if flat.min() >= 0 and flat.max() <= 65_535:  # counting is faster than sorting
        every = np.bincount(flat)
        values = np.flatnonzero(every)
        counts = every[values]
    else:
        values, counts = np.unique(flat, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True)) if len(values) <= MOST_VALUES else {}


def _is_soft_mask(grey: np.ndarray) -> bool:
    return bool(grey.dtype == np.uint8 and ((grey <= SOFT_WITHIN) | (grey >= 255 - SOFT_WITHIN)).mean() >= SOFT_SHARE)


def _colours(array: np.ndarray) -> dict[Colour, int]:
    """Colour -> number of pixels; empty where there are more than `MOST_COLOURS`."""
    if array.dtype != np.uint8:
        return {}
    codes = (array.astype(np.int32) @ np.array([65536, 256, 1], np.int32)).reshape(-1)
    if len(np.unique(codes[:: max(1, codes.size // 20_000)])) > MOST_COLOURS:
        return {}
    values, counts = np.unique(codes, return_counts=True)
    if len(values) > MOST_COLOURS:
        return {}
    return {
        (code >> 16, code >> 8 & 255, code & 255): count
        for code, count in zip(values.tolist(), counts.tolist(), strict=True)
    }
