"""The values that travel between disk, samplers, methods and scores. Frozen, typed, without behaviour of their own.

Axes, everywhere in this project: B batch, S support shots, Q queries, N prototypes, K classes, P parts of an organ
along z, C channels, D slices (z), H rows, W columns, h w feature grid.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Volume:
    """A scan and where it lies in the patient.

    Attributes:
        array: (D, H, W), any dtype; `array[z, y, x]`.
        affine: (4, 4) float64; maps a voxel's (column x, row y, slice z, 1) to RAS+ millimetres, as NIfTI does.
    """

    array: np.ndarray
    affine: np.ndarray

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along (z, y, x), in millimetres."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)


Sample = TypeVar("Sample")


class _OnDevice:
    """Moves every tensor field of a frozen dataclass at once."""

    def to(self: Sample, device: torch.device, non_blocking: bool = False) -> Sample:
        """The same sample with its tensors on `device`."""
        return _map_tensors(self, lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self: Sample) -> Sample:
        """The same sample in page-locked memory (called by `DataLoader(pin_memory=True)`)."""
        return _map_tensors(self, Tensor.pin_memory)


def _map_tensors(sample: Sample, function: Callable[[Tensor], Tensor]) -> Sample:
    values = {field.name: getattr(sample, field.name) for field in fields(sample)}  # type: ignore[arg-type]
    return type(sample)(**{name: function(v) if isinstance(v, Tensor) else v for name, v in values.items()})


@dataclass(frozen=True)
class Episode(_OnDevice):
    """B independent 1-way episodes: segment in the query what the mask marks in the support.

    Images are normalised intensities with one channel; the encoder repeats it where it needs three.
    """

    support_image: Float[Tensor, "B S 1 H W"]
    support_mask: Bool[Tensor, "B S H W"]
    query_image: Float[Tensor, "B Q 1 H W"]
    query_mask: Bool[Tensor, "B Q H W"]

    def __len__(self) -> int:
        return len(self.query_image)


@dataclass(frozen=True)
class SupportSet(_OnDevice):
    """The annotated slices that tell a few-shot method what to look for: K classes, P parts along z, S shots each."""

    classes: tuple[int, ...]  # label values, K of them
    image: Float[Tensor, "K P S 1 H W"]
    mask: Bool[Tensor, "K P S H W"]


@dataclass(frozen=True)
class EvalCase(_OnDevice):
    """One scan to be segmented, without its ground truth.

    `part` tells for each class and slice which part of the support set is nearest along z.
    """

    scan_id: str
    classes: tuple[int, ...]
    image: Float[Tensor, "D 1 H W"]
    part: Int[Tensor, "K D"]


@dataclass(frozen=True)
class DenseBatch(_OnDevice):
    """B images with a class value per pixel: what dense methods train on.

    Images are normalised. Labels are 0 (background) to K - 1, as the method is meant to learn them: noisy, refined or
    clean. Superpixel ids start at 0 in every image; None where the method needs none.
    """

    image: Float[Tensor, "B C H W"]
    label: Int[Tensor, "B H W"]
    superpixel: Int[Tensor, "B H W"] | None = None

    def __len__(self) -> int:
        return len(self.image)


@dataclass(frozen=True)
class ImageCase(_OnDevice):
    """D images to be segmented together into K classes, without their ground truth; each is a case of its own."""

    ids: tuple[str, ...]  # D of them
    classes: tuple[int, ...]  # the K foreground values
    image: Float[Tensor, "D C H W"]
    patients: tuple[str, ...] = ()  # D of them; empty: unknown
