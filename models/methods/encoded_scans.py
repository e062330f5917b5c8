"""What label propagation keeps of scans: features, labels, and where scans lie in each other."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from models.methods.whole_scans import Spacing
from models.networks.backbones import OUTPUT_STRIDE
from models.networks.body import BodyBox, relative_places
from models.networks.label_propagation import Cells, KernelConfig
from models.networks.similarity import own_similarity

UNKNOWN = 255  # in label maps


@dataclass(frozen=True)
class EncodedScan:
    """What is compared of a scan."""

    feature: Float[Tensor, "D h w C"]  # of unit length, without the scan's mean
    description: Float[Tensor, "D N"]  # see models.networks.alignment
    box: BodyBox
    spacing_mm: Spacing
    inside: Bool[Tensor, "D h w"]  # the body, see `find_inside`; on the host

    def cells(self, stride: int, z_mm: Tensor | None = None, shift: Tensor | None = None) -> Cells:
        """The features with their places; z_mm: of the slices, by default from the first one; shift: see `Cells`."""
        row, column = relative_places(self.box, (self.feature.shape[1], self.feature.shape[2]), stride)
        return Cells(self.feature, row, column, self.z_mm if z_mm is None else z_mm, self.inside, shift)

    def of_slices(self, slices: Int[Tensor, " N"]) -> "EncodedScan":
        """What is compared of some slices; `z_mm` does not hold for them."""
        feature, description = (each[slices.to(each.device)] for each in (self.feature, self.description))
        return replace(self, feature=feature, description=description, inside=self.inside[slices])

    @property
    def body_mm(self) -> tuple[float, float]:
        """Height and width of the body."""
        (top, bottom), (left, right) = self.box.rows, self.box.columns
        return (bottom - top) * self.spacing_mm[1], (right - left) * self.spacing_mm[2]

    @property
    def z_mm(self) -> Float[Tensor, " D"]:
        """Of the slices, from the first one; on the host."""
        return torch.arange(len(self.feature)) * self.spacing_mm[0]


@dataclass(frozen=True)
class EncodedSupport:
    """An annotated scan, encoded once for all queries."""

    scan: EncodedScan
    label: Float[Tensor, "D h w M"]  # share of background and classes in each cell
    is_annotated: Bool[Tensor, " D"]  # slices that are used; on the host
    copies: tuple["EncodedSupport", ...] = ()  # structures of other brightness, which vote too
    kernels: tuple[KernelConfig, ...] = ()  # one per class, the same in all annotated scans; (): that of the config

    @cached_property
    def own_similarity(self) -> float | None:
        """See `models.networks.similarity`."""
        return own_similarity(self.scan.cells(OUTPUT_STRIDE))


class PlacedSupport(NamedTuple):
    """Where a case and its structures lie in an annotated scan."""

    support: EncodedSupport
    z_mm: Float[Tensor, " D"]  # of the case's slices, in the annotated scan's coordinates; on the host
    shift: Float[Tensor, "S h w 3"] | None  # see `Cells`

    def of_slices(self, slices: Int[Tensor, " N"]) -> "PlacedSupport":
        """The same for some slices of the case."""
        return self._replace(z_mm=self.z_mm[slices])


def shrink_labels(
    label: UInt8[Tensor, "D H W"], classes: tuple[int, ...], size: tuple[int, int]
) -> Float[Tensor, "D h w M"]:
    """Share of the background and of each class in each cell; other classes count as background, unknown pixels not."""
    known = label != UNKNOWN
    masks = [label == value for value in classes]
    background = known.clone()
    for mask in masks:
        background &= ~mask
    return torch.stack(
        [F.interpolate(mask[:, None].float(), size, mode="area")[:, 0] for mask in [background, *masks]], -1
    )
