"""Preparation of a scan for the networks, and the way back for their masks; used in preparation and in prediction.

The way back, `paste_back`, needs only the affines, which every step keeps correct.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dataloaders.description import DatasetSpec
from dataloaders.io.dtypes import portable
from dataloaders.io.geometry import Grid as Grid
from dataloaders.io.geometry import SizeRule, crop_or_pad, remove_border, reorient, resample_image, resample_label
from dataloaders.io.geometry import paste_back as paste_back
from dataloaders.samples import Volume
from dataloaders.scans.labels import whole_values
from dataloaders.scans.plausibility import (
    hounsfield_doubt,
    is_hounsfield,
    modality_doubt,
    require_contrast,
    slicing_doubt,
)
from util.errors import ConfigError, DataError


@dataclass(frozen=True)
class PrepareParameters:
    """All parameters of the preparation of a scan.

    Source: SSL-ALPNet, released notebooks.
    """

    axis_codes: str  # directions in which columns, rows, slices are counted; LAS as dcm2niix makes axial scans
    clip_percentile: float | None  # of the scan's intensities; higher ones are set to it; None: no clipping
    window_hu: tuple[float, float] | None  # mapped to 0..255 and clipped there; None: intensities stay
    border_fraction: float  # of rows and of columns, removed on each side; 1/16 is 32 of 512 px
    spacing_mm: tuple[float, float, float] | None  # (z, y, x); None: z stays, rows and columns become `size_px`
    size_px: int  # rows and columns
    size_rule: SizeRule  # clean: no slice, row or column outside the scan; reference: floor(n * old / new + 1) of them
    in_plane_mm: float | None = None  # size of a pixel; z stays, then rows and columns are cropped to `size_px`

    def __post_init__(self) -> None:
        if self.size_px < 1 or self.size_rule not in ("clean", "reference"):
            raise ConfigError(
                f"size_px={self.size_px}, size_rule={self.size_rule!r}: expected a positive number, and clean or "
                "reference."
            )
        if self.spacing_mm is not None and not all(0 < value < np.inf for value in self.spacing_mm):
            raise ConfigError(f"spacing_mm={self.spacing_mm}: expected three positive distances (z, y, x).")
        if self.in_plane_mm is not None and (self.spacing_mm is not None or not 0 < self.in_plane_mm < np.inf):
            raise ConfigError(f"in_plane_mm={self.in_plane_mm}: expected a positive distance, and no spacing_mm.")

    def to_json(self) -> dict[str, Any]:
        """The parameters in lists and numbers; `in_plane_mm` only where it is used, as earlier folders lack it."""
        content = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        if self.in_plane_mm is None:
            del content["in_plane_mm"]
        return content

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "PrepareParameters":
        """The parameters that `to_json` described."""
        tuples = {key: tuple(map(float, value)) for key, value in content.items() if isinstance(value, list)}
        arguments: dict[str, Any] = content | tuples
        return cls(**arguments)


def parameters_of(
    spec: DatasetSpec,
    size_px: int | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
    size_rule: SizeRule = "clean",
) -> PrepareParameters:
    """The parameters of a data set, as its description has them.

    Args:
        spec: the data set.
        size_px: rows and columns; without a `spacing_mm` the field of view stays and the pixel size changes.
        spacing_mm: (z, y, x); default: the data set's.
        size_rule: see `PrepareParameters`.
    """
    grid, intensity = spec.grid, spec.intensity
    size_px = grid.size_px if size_px is None else size_px
    if spacing_mm is None and grid.spacing_mm is not None and size_px > 0:
        z, y, x = grid.spacing_mm
        spacing_mm = (z, y * grid.size_px / size_px, x * grid.size_px / size_px)
    is_in_plane = spacing_mm is None and grid.in_plane_mm is not None and size_px > 0
    return PrepareParameters(
        axis_codes=grid.axis_codes,
        clip_percentile=intensity.clip_percentile,
        window_hu=intensity.window,
        border_fraction=grid.border_fraction,
        spacing_mm=spacing_mm,
        size_px=size_px,
        size_rule=size_rule,
        in_plane_mm=grid.in_plane_mm * grid.size_px / size_px if is_in_plane and grid.in_plane_mm else None,
    )


def scan_doubts(volume: Volume, parameters: PrepareParameters, modality: str) -> list[str]:
    """What is doubtful about a raw scan, one sentence each; the file is not named.

    Args:
        volume: raw scan.
        parameters: how it will be prepared.
        modality: of the data set, such as CT; empty: unknown.

    Raises:
        DataError: intensities that certainly are no Hounsfield units, where these are expected.
    """
    doubts = [slicing_doubt(Grid.of(volume), parameters.axis_codes)]
    if is_hounsfield(modality, parameters.window_hu) and np.ptp(volume.array):
        doubts.append(hounsfield_doubt(float(volume.array.min()), float(volume.array.max())))
    elif not is_hounsfield(modality, parameters.window_hu):
        doubts.append(modality_doubt(float(volume.array.min()), modality))
    return [doubt for doubt in doubts if doubt]


def prepare_image(volume: Volume, parameters: PrepareParameters) -> Volume:
    """Brings a scan to the grid and the intensities of training.

    Args:
        volume: raw scan; CT in Hounsfield units.
        parameters: see `parameters_of`.

    Returns:
        float32 (D, H, W), intensities not normalised.

    Raises:
        DataError: the scan holds NaN or infinite values, is constant, has nothing within the window, or would have too
            many voxels.
    """
    return prepare_frames([volume], parameters)


def prepare_frames(frames: Sequence[Volume], parameters: PrepareParameters) -> Volume:
    """Brings all frames of a scan to the grid and the intensities of training.

    Args:
        frames: of one grid, one or more; what is measured in the scan, such as a percentile, is measured in all.
        parameters: see `parameters_of`.

    Returns:
        float32 (T D, H, W): the frames, one after the other along z, with the affine of the first.

    Raises:
        DataError: see `prepare_image`.
    """
    arrays = [portable(frame.array) for frame in frames]
    array = np.stack(arrays) if len(arrays) > 1 else arrays[0][None]  # (T, D, H, W)
    if not np.isfinite(array).all():
        raise DataError("the scan holds NaN or infinite values; expected numbers. Convert or copy the scan again.")
    require_contrast(array)
    if parameters.clip_percentile is not None:
        array = clip_percentile(array, parameters.clip_percentile)
    if parameters.window_hu is not None:
        array = apply_window(array, parameters.window_hu)
    resampled = [_resample(Volume(each, frame.affine), parameters) for each, frame in zip(array, frames, strict=True)]
    fill = min(float(frame.array.min()) for frame in resampled)
    fitted = [_fit_in_plane(frame, parameters, fill) for frame in resampled]
    return Volume(np.concatenate([frame.array.astype(np.float32) for frame in fitted]), fitted[0].affine)


def _resample(frame: Volume, parameters: PrepareParameters) -> Volume:
    """A frame on the spacing of training; whole numbers are truncated, but not with `in_plane_mm`."""
    volume = reorient(frame, parameters.axis_codes)
    if parameters.in_plane_mm is not None:
        volume = Volume(volume.array.astype(np.float32), volume.affine)
    volume = remove_border(volume, parameters.border_fraction)
    return resample_image(volume, _target_spacing(volume, parameters), parameters.size_rule)


def prepare_label(volume: Volume, parameters: PrepareParameters) -> Volume:
    """Brings a label map to the grid of its prepared image.

    Returns:
        uint8 (D, H, W).

    Raises:
        DataError: the values are not whole numbers from 0 to 255.
    """
    array = whole_values(volume.array)
    if array.min() < 0 or array.max() > np.iinfo(np.uint8).max:
        raise DataError(
            f"the label map holds values from {array.min()} to {array.max()}; expected whole numbers from 0 to 255. "
            "Convert it again."
        )
    volume = reorient(Volume(array.astype(np.uint8), volume.affine), parameters.axis_codes)
    volume = remove_border(volume, parameters.border_fraction)
    volume = resample_label(volume, _target_spacing(volume, parameters), parameters.size_rule)
    return _fit_in_plane(volume, parameters, 0.0)


def _target_spacing(volume: Volume, parameters: PrepareParameters) -> tuple[float, float, float]:
    if parameters.spacing_mm is not None:
        return parameters.spacing_mm
    z, y, x = volume.spacing_mm
    if parameters.in_plane_mm is not None:
        return z, parameters.in_plane_mm, parameters.in_plane_mm
    _, rows, columns = volume.array.shape
    return z, y * (rows / parameters.size_px), x * (columns / parameters.size_px)


def _fit_in_plane(volume: Volume, parameters: PrepareParameters, fill: float) -> Volume:
    """Crops or pads, unless the spacing was chosen for the size.

    Enlarged scans are padded in any case: their samples end at the outer face of the last pixel, before the size.
    """
    is_free = parameters.spacing_mm is None and parameters.in_plane_mm is None
    is_fitted = is_free and min(volume.array.shape[1:]) >= parameters.size_px
    return volume if is_fitted else crop_or_pad(volume, parameters.size_px, fill)


def clip_percentile(array: np.ndarray, percentile: float) -> np.ndarray:
    """Sets values above the percentile of all voxels to it; for integers the limit is truncated."""
    limit = np.percentile(array, percentile)
    return np.minimum(array, array.dtype.type(limit))


def apply_window(array: np.ndarray, window_hu: tuple[float, float]) -> np.ndarray:
    """Maps the window linearly to 0..255, float32, and clips there.

    Raises:
        DataError: all voxels are on one side of the window.

    Note: the reference stretches each scan's own clipped range to 0..255. The two agree where both ends of the window
        occur, as with air and bone in every CT; the fixed window also means the same in a cropped scan.
    """
    low, high = window_hu
    if array.max() <= low or array.min() >= high:
        raise DataError(
            f"intensities from {array.min():g} to {array.max():g}, none between {low:g} and {high:g} HU; expected a CT "
            "in Hounsfield units. Apply the rescale slope and intercept when converting."
        )
    return ((np.clip(array, low, high) - low) * (255 / (high - low))).astype(np.float32)
