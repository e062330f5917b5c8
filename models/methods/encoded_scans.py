"""What label propagation keeps of scans: features, labels, and where scans lie in each other."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from dataloaders.samples import SupportScan
from models.methods.whole_scans import Spacing
from models.networks.backbones import OUTPUT_STRIDE
from models.networks.body import BodyBox, relative_places
from models.networks.displacement import Displacement
from models.networks.label_propagation import Cells, KernelConfig
from models.networks.similarity import own_similarity
from util.errors import DataError

UNKNOWN = 255  # in label maps

Annotation = Literal["all", "labelled", "parts"]


@dataclass(frozen=True)
class EncodedScan:
    """What is compared of a scan."""

    feature: Float[Tensor, "D h w C"]  # of unit length, without the scan's mean
    description: Float[Tensor, "D N"]  # see models.networks.alignment
    box: BodyBox
    spacing_mm: Spacing
    inside: Bool[Tensor, "D h w"]  # the body, see `find_inside`; on the host
    n_sizes: int = 1  # at which slices were encoded; their features follow one another in `feature`

    def of_first_size(self, z_mm: Tensor | None = None) -> Cells:
        """The places with features of the first size only, which are of equal length, but not of unit length."""
        cells = self.cells(OUTPUT_STRIDE, z_mm)
        return replace(cells, feature=cells.feature[..., : cells.feature.shape[-1] // self.n_sizes])

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
    details: tuple["Detail | None", ...] = ()  # one per class, see `models.methods.second_look`; None: no second look

    @cached_property
    def own_similarity(self) -> float | None:
        """See `models.networks.similarity`."""
        return own_similarity(self.scan.of_first_size())


class PlacedSupport(NamedTuple):
    """Where a case and its structures lie in an annotated scan."""

    support: EncodedSupport
    z_mm: Float[Tensor, " D"]  # of the case's slices, in the annotated scan's coordinates; on the host
    found: Displacement | None  # of its structures; None: they were not looked for
    shift: Float[Tensor, "S h w 3"] | None  # see `Cells`

    def fade(self, votes: Float[Tensor, "D h w M"], sigma_mm: float) -> Float[Tensor, "D h w M"]:
        """The votes of the annotated scan, in which those for structures fade to background beyond its slices.

        How a structure goes on where the annotated slices end, is not known. At a distance d from the last one, where
        the structure was found, its votes count exp(-d^2 / 2 sigma^2).

        Args:
            votes: of background and structures.
            sigma_mm: width of the place prior along z.
        """
        known = self.support.scan.z_mm[self.support.is_annotated]
        shift = 0.0 if self.found is None else self.found.shift[:, 0]
        z_mm = self.z_mm[:, None] - shift  # (D, K) or (D, 1)
        beyond = torch.maximum(known.min() - z_mm, z_mm - known.max()).clamp_min(0)
        kept = torch.exp(-0.5 * (beyond / sigma_mm).square()).to(votes)[:, None, None]
        structures = kept * votes[..., 1:]
        background = votes[..., :1] + (votes[..., 1:] - structures).sum(-1, keepdim=True)
        return torch.cat([background, structures], -1)

    def of_slices(self, slices: Int[Tensor, " N"]) -> "PlacedSupport":
        """The same for some slices of the case."""
        return self._replace(z_mm=self.z_mm[slices])


@dataclass(frozen=True)
class Detail:
    """The surroundings of a structure in an annotated scan."""

    box: BodyBox  # its edges, in pixels of the scan
    size: tuple[int, int]  # height and width of the enlarged part, in its own pixels
    support: EncodedSupport  # the enlarged part; the structure is its only one

    def box_in(self, query: EncodedScan, placed: PlacedSupport, number: int) -> BodyBox:
        """Where this part lies in another scan, in its pixels.

        Args:
            query: the other scan.
            placed: it, in the annotated one.
            number: of the structure, from 0.
        """
        axes, own = (1, 2), placed.support.scan.box
        edges = []
        for axis, sides in zip(axes, zip(self.box, own, query.box, strict=True), strict=True):
            (first, last), (start, end), (there, there_end) = sides
            places = (torch.tensor([first, last]) - start) / (end - start)
            if placed.found is not None:
                shift, scale, centre = (each[number, axis] for each in placed.found)
                places = places + shift + (scale - 1) * (places - centre)
            edges.append(tuple((there + places * (there_end - there)).tolist()))
        return BodyBox(*edges)


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


def annotated_slices(scan: SupportScan, classes: tuple[int, ...], annotation: Annotation) -> Bool[Tensor, " D"]:
    """Those whose labels are used; on the host.

    Raises:
        DataError: they show none of the classes.
    """
    shows_any = torch.isin(scan.label, scan.label.new_tensor(classes)).flatten(1).any(1).cpu()
    is_annotated = torch.ones_like(shows_any)
    if annotation == "labelled":
        is_annotated = shows_any
    elif annotation == "parts":
        is_annotated = torch.zeros_like(shows_any)
        is_annotated[scan.slices.flatten().cpu()] = True
    if not (shows_any & is_annotated).any():
        raise DataError(
            f"the annotated scan shows none of the classes {', '.join(map(str, classes))} on its "
            f"{int(is_annotated.sum())} annotated slices. Choose another support scan, or other classes."
        )
    return is_annotated
