"""Slices of a tested scan: how they are normalised, and each frame with its ground truth."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dataloaders.io.geometry import Grid
from dataloaders.samples import ImageCase, Origin, StoredGeometry, Volume
from dataloaders.sources.store import normalise_slices, slice_quantiles
from dataloaders.transforms.histogram import match


@dataclass(frozen=True)
class SliceRule:
    """How raw slices become the network's input; a checkpoint holds it, so that prediction does the same.

    Attributes:
        percentiles: of a slice, which become 0 and 1.
        crop_px: rows and columns in the middle of the prepared slice that the network sees.
        reference: quantiles to which intensities are matched; empty: they are not matched.
    """

    percentiles: tuple[float, float]
    crop_px: int
    reference: tuple[float, ...] = ()

    def apply(self, array: np.ndarray) -> Float[Tensor, "D 1 h w"]:
        """Normalised crops of the slices of a prepared scan (D, H, W)."""
        image = torch.from_numpy(normalise_slices(array, self.percentiles))
        if self.reference:
            reference = torch.tensor(self.reference).expand(len(image), -1)
            own = torch.from_numpy(slice_quantiles(array, self.percentiles))
            image = torch.where(image > 0, match(image, own, reference), 0.0)
        rows, columns = self.window(array.shape[1:])
        return image[:, None, rows, columns]

    def window(self, shape: tuple[int, ...]) -> tuple[slice, slice]:
        """Rows and columns of the crop."""
        rows, columns = ((side - self.crop_px) // 2 for side in shape)
        return slice(rows, rows + self.crop_px), slice(columns, columns + self.crop_px)

    def in_full(self, part: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Pads (..., h, w) maps of the crop to the prepared slice with 0."""
        full = np.zeros((*part.shape[:-2], *shape), part.dtype)
        full[..., *self.window(shape)] = part
        return full


@dataclass(frozen=True)
class ScoredFrame:
    """A frame of a tested scan with its ground truth; the method is given `case` only.

    Attributes:
        scan: id of the prepared scan.
        phase: of the frame; may be empty.
        case: its slices.
        truth: (D, H, W) uint8 class values of the prepared slices, whole.
        counts: (D,) bool: slices that are scored.
        prepared: the frame as prepared, for pictures and geometry.
        original: the grid of the frame before preparation; None: unknown.
        stored: the header's geometry there, where it holds more than an affine.
        original_truth: class values on that grid; None: not stored.
    """

    scan: str
    phase: str
    origin: Origin
    case: ImageCase
    truth: np.ndarray
    counts: np.ndarray
    prepared: Volume
    original: Grid | None
    stored: StoredGeometry | None
    original_truth: np.ndarray | None

    @property
    def id(self) -> str:
        """Scan and phase, as files are named; an id that ends in the phase is not given it again."""
        has_phase = not self.phase or self.scan.endswith(f"_{self.phase}")
        return self.scan if has_phase else f"{self.scan}_{self.phase}"
