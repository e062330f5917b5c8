"""How like two scans are: whether places of the body find what looks most like them at the same place of the other."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from models.networks.label_propagation import Cells
from models.networks.spread import spread

# Chosen on the 56 pairs of eight CHAOS scans and their halves, against other body parts and planes
# (`benchmarks.similarity`).
SAME_PLACE = 0.15  # distance in widths and heights of the body
N_SLICES = 8  # of the query that are compared
NEAR_MM = 24.0  # they are compared with slices of the support so near, or the nearest where slices are further apart
EVERY = 2  # row and column of the query's features
LEFT_OUT_MM = 24.0  # slices so near do not count where a scan is compared with itself,
LEFT_OUT_SHARE = 1 / 3  # or so near in extents of the scan, if that is less
UNLIKE = 0.65  # of the support's similarity with itself: the former are all above, most of the latter below


@dataclass(frozen=True)
class Likeness:
    """How like an annotated scan a case is, 0 to 1, and how like itself that scan is; see `similarity`."""

    case: float
    support: float

    @property
    def relative(self) -> float:
        """The first divided by the second."""
        return self.case / max(self.support, 1e-6)

    @property
    def is_low(self) -> bool:
        """Whether the case hardly shows the same part of the body in the same way."""
        return self.relative < UNLIKE


def similarity(query: Cells, support: Cells) -> float:
    """The share of places in the query's body whose most similar place in the support is about the same one.

    Most similar: by the cosine of the features, among the slices of the support at about the same height. 1: all of
    them; about 0.1: chance. Slices of the query beyond those of the support do not count.

    Args:
        query: slices of any number, with their z in the support's coordinates.
        support: a whole scan.

    Returns:
        The share; 0 where no slice of the query lies at the height of one of the support.
    """
    first, last = float(support.z_mm.min()), float(support.z_mm.max())
    between_mm = (last - first) / max(len(support.z_mm) - 1, 1)
    margin_mm = between_mm / 2
    common = ((query.z_mm >= first - margin_mm) & (query.z_mm <= last + margin_mm)).nonzero()[:, 0]
    if not len(common):
        return 0.0
    slices = common[spread(len(common), N_SLICES)]
    distance = (query.z_mm[slices, None] - support.z_mm).abs()
    return _share_in_place(query, support, slices, distance <= max(NEAR_MM, between_mm))


def own_similarity(scan: Cells) -> float | None:
    """The same of a scan with itself, without each slice's neighbourhood; None: it has too few slices."""
    slices = spread(len(scan.feature), N_SLICES)
    distance = (scan.z_mm[slices, None] - scan.z_mm).abs()
    extent = float(scan.z_mm.max() - scan.z_mm.min())
    is_compared = distance > min(LEFT_OUT_MM, LEFT_OUT_SHARE * extent) + 1e-3
    return _share_in_place(scan, scan, slices, is_compared) if is_compared.any(1).all() else None


def _within(places: Float[Tensor, " N"], step: int = 1, margin: float = 0.0) -> Tensor:
    """Every `step`-th index within the body; all where none is."""
    inside = ((places > -margin) & (places < 1 + margin)).nonzero()[:, 0][::step]
    return inside if len(inside) else torch.arange(len(places))


def _share_in_place(query: Cells, support: Cells, slices: Tensor, is_compared: Tensor) -> float:
    """See `similarity`; is_compared (n, S): slices of the support for each of the n `slices` of the query."""
    rows, columns = _within(query.row, EVERY), _within(query.column, EVERY)
    near_rows, near_columns = _within(support.row, margin=0.05), _within(support.column, margin=0.05)
    known = support.feature[:, near_rows][:, :, near_columns]  # (S, r, c, C)
    row_distance = query.row[rows, None] - support.row[near_rows]
    column_distance = query.column[columns, None] - support.column[near_columns]
    distance = (row_distance[:, None, :, None].square() + column_distance[None, :, None].square()).sqrt()
    is_same = (distance < SAME_PLACE).flatten(2).flatten(0, 1)  # (q, r c)
    hits = 0.0
    for number, z in enumerate(slices.tolist()):
        looked_for = query.feature[z, rows][:, columns].flatten(0, 1)  # (q, C)
        found = looked_for @ known[is_compared[number].to(known.device)].flatten(0, 2).T  # (q, s r c)
        best = found.argmax(1).cpu() % is_same.shape[1]
        hits += float(is_same.gather(1, best[:, None]).float().mean())
    return hits / len(slices)
