"""Deformable registration of two scans on the host: affine by mutual information, then diffeomorphic demons."""

import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its usual name
from jaxtyping import Float

from models.networks.body import BodyBox
from util.schema import check_bounds, option

logger = logging.getLogger(__name__)

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class RegistrationSteps:
    """Settings of the two steps; usual values, not tuned."""

    shrink: int = option(2, ge=1)  # pixels in the plane per pixel that is registered
    bins: int = option(32, ge=8)  # of the histograms for mutual information
    sampled: float = option(0.2, gt=0, le=1)  # share of the voxels from which it is estimated
    affine_iterations: int = option(100, ge=0)  # at each of two resolutions; 0: body boxes only
    demons_iterations: int = option(60, ge=0)  # 0: no deformation
    smoothing: float = option(1.5, gt=0)  # width of the kernel that smooths the displacements, in voxels

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class RegisteredScan:
    """What is needed of a scan to register it.

    Attributes:
        image: normalised intensities.
        box: of the body in the plane.
        spacing_mm: along (z, y, x).
    """

    image: Float[np.ndarray, "D H W"]
    box: BodyBox
    spacing_mm: Spacing

    def on_grid(self, array: np.ndarray) -> sitk.Image:
        """An array of the scan in millimetres, with its first voxel at 0."""
        image = sitk.GetImageFromArray(array)
        image.SetSpacing(self.spacing_mm[::-1])
        return image

    @property
    def centre_mm(self) -> np.ndarray:
        """(3,) of the body box and of the slices; x, y, z."""
        middle = np.array([sum(self.box.columns) / 2, sum(self.box.rows) / 2, (len(self.image) - 1) / 2])
        return np.multiply(middle, self.spacing_mm[::-1])

    @property
    def extent_mm(self) -> np.ndarray:
        """(3,) size of the body box and length of the scan; x, y, z."""
        (top, bottom), (left, right) = self.box.rows, self.box.columns
        sides = np.array([right - left, bottom - top, len(self.image)])
        return np.multiply(sides, self.spacing_mm[::-1])


def register(fixed: RegisteredScan, moving: RegisteredScan, steps: RegistrationSteps) -> sitk.Transform:
    """The transform from millimetres of `fixed` to those of `moving`.

    It starts with the body boxes and equal relative heights. A step that fails, such as of scans of one slice, is left
    out with a warning.

    Source: mutual information: Mattes et al., IEEE TMI 2003; demons: Vercauteren et al., NeuroImage 2009; both as in
    SimpleITK.
    """
    target, source = (_shrunk(scan, steps.shrink) for scan in (fixed, moving))
    found: Any = sitk.AffineTransform(3)
    found.SetMatrix(np.diag(moving.extent_mm / fixed.extent_mm).ravel().tolist())
    found.SetCenter(fixed.centre_mm.tolist())
    found.SetTranslation((moving.centre_mm - fixed.centre_mm).tolist())
    if steps.affine_iterations:
        try:
            found = _affine(target, source, found, steps)
        except RuntimeError as error:
            logger.warning("affine registration failed; body boxes are used (%s).", _last_line(error))
    if steps.demons_iterations:
        try:
            return sitk.CompositeTransform([found, _demons(target, source, found, steps)])
        except RuntimeError as error:
            logger.warning("deformable registration failed; the affine one is used (%s).", _last_line(error))
    return found


def warp(
    maps: Float[np.ndarray, "K D H W"], fixed: RegisteredScan, moving: RegisteredScan, transform: sitk.Transform
) -> Float[np.ndarray, "K z y x"]:
    """Maps of `moving` on the grid of `fixed`, linearly interpolated; 0 outside."""
    grid = fixed.on_grid(fixed.image)
    warped = [
        sitk.GetArrayFromImage(sitk.Resample(moving.on_grid(each), grid, transform, sitk.sitkLinear, 0.0))
        for each in maps
    ]
    return np.stack(warped)


def _shrunk(scan: RegisteredScan, factor: int) -> sitk.Image:
    image = scan.on_grid(scan.image.astype(np.float32))
    return sitk.BinShrink(image, [factor, factor, 1]) if factor > 1 else image


def _affine(target: sitk.Image, source: sitk.Image, start: Any, steps: RegistrationSteps) -> Any:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(steps.bins)
    method.SetMetricSamplingStrategy(method.REGULAR)
    method.SetMetricSamplingPercentage(steps.sampled, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, steps.affine_iterations)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([2.0, 1.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOff()
    method.SetInitialTransform(start, inPlace=False)
    found = method.Execute(target, source)
    return sitk.AffineTransform(found.Downcast() if found.GetName() != "CompositeTransform" else _first(found))


def _first(composite: Any) -> Any:
    return sitk.CompositeTransform(composite).GetNthTransform(0).Downcast()


def _demons(target: sitk.Image, source: sitk.Image, affine: Any, steps: RegistrationSteps) -> Any:
    """The deformation of the fixed scan's space, from images of equal histograms."""
    low = float(sitk.GetArrayViewFromImage(source).min())
    moved = sitk.Resample(source, target, affine, sitk.sitkLinear, low)
    moved = sitk.HistogramMatching(moved, target, 256, 15, True)
    demons = sitk.DiffeomorphicDemonsRegistrationFilter()
    demons.SetNumberOfIterations(steps.demons_iterations)
    demons.SetStandardDeviations(steps.smoothing)
    field = demons.Execute(target, moved)
    return sitk.DisplacementFieldTransform(sitk.Cast(field, sitk.sitkVectorFloat64))


def _last_line(error: RuntimeError) -> str:
    return str(error).strip().splitlines()[-1]
