"""Labels of one scan for another: each place takes those of places that look alike and lie at about the same place."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from util.schema import check_bounds, option

ROWS_AT_ONCE = 4  # of the query that are compared together; more on a GPU, where each block costs a launch
PAIRS_AT_ONCE = 2**26  # of places that are compared together on a GPU, so that memory is bounded: 256 MiB


@dataclass(frozen=True)
class KernelConfig:
    """How much of a place's label another place takes.

    Source: temperature and band were chosen on folds 1 and 2 of CHAOST2, the widths (once structures are found, see
    `models.networks.displacement`) on the twelve pairs among its scans 8, 10, 13 and 15.
    """

    temperature: float = option(20.0, gt=0, le=40)  # factor on the cosine of two features
    sigma_xy: float = option(0.055, gt=0)  # width of the place prior in the plane, in widths and heights of the body
    sigma_z_mm: float = option(22.0, gt=0)  # the same along z
    window_z_mm: float = option(55.0, ge=0)  # slices further apart are not compared, except the nearest
    band: float = option(2.5, gt=0)  # rows further apart are not compared; in units of `sigma_xy`

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class Cells:
    """A scan as places to compare: features of unit length, and where the rows, columns and slices are.

    Attributes:
        feature: on a device.
        row, column: relative to the body, see `models.networks.body`; on the host.
        z_mm: of the slices, in the coordinates of the support; on the host.
        inside: which places are compared, see `models.networks.body.find_inside`; None: all. On the host.
        shift: added to (z, row, column) of each place of a support, see `models.networks.displacement`; None: nothing.
    """

    feature: Float[Tensor, "D h w C"]
    row: Float[Tensor, " h"]
    column: Float[Tensor, " w"]
    z_mm: Float[Tensor, " D"]
    inside: Bool[Tensor, "D h w"] | None = None
    shift: Float[Tensor, "D h w 3"] | None = None

    @property
    def axes(self) -> tuple[Tensor, Tensor, Tensor]:
        """Z in mm, rows and columns."""
        return self.z_mm, self.row, self.column

    @property
    def first(self) -> Float[Tensor, "3"]:
        """The first place (z, row, column), without its shift; on the host."""
        return torch.stack([axis[0] for axis in self.axes])

    @property
    def size(self) -> Float[Tensor, "3"]:
        """Distance between neighbours along (z, row, column); 1 along an axis of one place. On the host."""
        return torch.stack([axis[1] - axis[0] if len(axis) > 1 else axis.new_ones(()) for axis in self.axes])

    def places(self, slices: slice = slice(None)) -> Float[Tensor, "d h w 3"]:
        """(z, row, column) of each place of these slices, after its shift; on the device."""
        z_mm, row, column = self.axes
        places = torch.stack(torch.meshgrid(z_mm[slices], row, column, indexing="ij"), -1).to(self.feature)
        return places if self.shift is None else places + self.shift[slices]

    def sample(self, places: Float[Tensor, "d y x 3"]) -> Float[Tensor, "d y x C"]:
        """Features at any places (z, row, column), interpolated linearly; zeros outside."""
        lengths = torch.tensor(self.feature.shape[:3])
        first, size, lengths = (each.to(places) for each in (self.first, self.size, lengths))
        grid = (2 * (places - first) / size + 1) / lengths - 1
        found = F.grid_sample(self.feature.permute(3, 0, 1, 2)[None], grid.flip(-1)[None], align_corners=False)
        return found[0].permute(1, 2, 3, 0)


def propagate(
    query: Cells,
    support: Cells,
    label: Float[Tensor, "S h w M"],
    is_annotated: Bool[Tensor, " S"],
    config: KernelConfig,
) -> Float[Tensor, "D y x M"]:
    """For each place q of the query, the sum of K(q, n) label(n) over the places n of the support.

    K(q, n) = exp(temperature (cos - 1) - |difference of places|^2 / 2), places in units of the prior's widths. Divided
    by its sum over all M classes, the background included, the result is a probability; sums of several supports add
    up. Places within the window along z and the band of rows are compared, after the support's shift; without any in
    the window those of the nearest annotated slice. Places outside the support's rows and columns count as being at its
    edge.

    The exponent is one matrix product of features that are extended by the places; it is computed for a few rows of a
    slice of the query at a time, so that memory does not grow with the scans.

    Args:
        query: the scan to label; places that are not inside get zeros.
        support: the annotated scan.
        label: share of each class in each place; places whose label is unknown have zeros, or less than 1 in all.
        is_annotated: slices of the support whose labels are known; at least one. On the host.
        config: widths, window and band.
    """
    keys = _support_keys(support, config)
    rows = query.row.clamp(support.row.min(), support.row.max())
    queries = _query_keys(query, support, rows, is_annotated, config)
    found = label.new_zeros(*query.feature.shape[:3], label.shape[-1])
    asked, known = _inside(query), (_inside(support) & is_annotated[:, None, None]).nonzero()  # (n, 3)
    z_mm, row = _moved(support, known)
    nearest = known[:, 0] == _nearest(query.z_mm, support.z_mm, is_annotated)[:, None]  # (D, n)
    band = _band(config, support)
    for z, z_query in enumerate(query.z_mm):
        is_near = (z_mm - z_query).abs() <= config.window_z_mm + 1e-3
        places, own_row = (each[is_near if is_near.any() else nearest[z]] for each in (known, row))
        at_once = _rows_at_once(label.device, len(query.column) * len(places))
        for first in range(0, len(rows), at_once):
            block = slice(first, first + at_once)
            counts = (rows[block, None] - own_row).abs() <= band  # (r, n)
            is_needed = counts.any(0)
            near = _Places(keys, label, places[is_needed], counts[:, is_needed])
            found[z, block] = _votes(queries[z, block], asked[z, block], near)
    return found


def _rows_at_once(device: torch.device, pairs_per_row: int) -> int:
    return ROWS_AT_ONCE if device.type == "cpu" else max(ROWS_AT_ONCE, PAIRS_AT_ONCE // max(1, pairs_per_row))


class _Places(NamedTuple):
    """Places of the support that are compared with some rows of a slice of the query."""

    keys: Float[Tensor, "S h w E"]
    label: Float[Tensor, "S h w M"]
    index: Int[Tensor, "n 3"]
    counts: Bool[Tensor, "r n"]  # for which of the rows


def _votes(queries: Float[Tensor, "r x E"], asked: Bool[Tensor, "r x"], near: _Places) -> Float[Tensor, "r x M"]:
    """Sums for a few rows of a slice."""
    cells = asked.flatten().nonzero()[:, 0]
    index, counts, cells, own_row = (
        each.to(near.keys.device, non_blocking=True)
        for each in (near.index.T, near.counts, cells, cells // asked.shape[1])
    )
    weight = (queries.flatten(0, 1)[cells] @ near.keys[tuple(index)].T).exp_()  # (q, n)
    labels = counts.T[:, :, None] * near.label[tuple(index)][:, None]  # (n, r, M), for each row of the query
    votes = (weight @ labels.flatten(1)).unflatten(1, labels.shape[1:])
    votes = votes.take_along_dim(own_row[:, None, None], 1)[:, 0]
    return votes.new_zeros(asked.numel(), votes.shape[-1]).index_copy(0, cells, votes).unflatten(0, asked.shape)


def _inside(cells: Cells) -> Bool[Tensor, "D h w"]:
    return torch.ones(cells.feature.shape[:3], dtype=torch.bool) if cells.inside is None else cells.inside


def _moved(support: Cells, places: Int[Tensor, "n 3"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Z in mm and row of places of the support, after its shift; on the host."""
    z, row, _ = places.T
    moved = (support.z_mm[z], support.row[row])
    if support.shift is None:
        return moved
    shift = support.shift[..., :2].cpu()[tuple(places.T)]
    return moved[0] + shift[:, 0], moved[1] + shift[:, 1]


def _band(config: KernelConfig, support: Cells) -> float:
    """How far rows are compared: at least with the nearest one, however far apart the support's rows are."""
    step = float(support.row[1] - support.row[0]) if len(support.row) > 1 else 0.0
    return max(config.band * config.sigma_xy, step / 2) + 1e-6


def _nearest(query_mm: Tensor, support_mm: Tensor, is_annotated: Tensor) -> Int[Tensor, " D"]:
    """The nearest annotated slice."""
    return (query_mm[:, None] - support_mm).abs().masked_fill(~is_annotated, torch.inf).argmin(1)


def _places(cells: Cells, row: Tensor, column: Tensor, z_mm: Tensor, config: KernelConfig) -> Float[Tensor, "D h w 3"]:
    """Places in units of the prior's widths, about the body's centre."""
    depth, height, width = cells.feature.shape[:3]
    axes = (
        z_mm[:, None, None].expand(depth, height, width),
        (row - 0.5)[:, None].expand(depth, height, width),
        (column - 0.5).expand(depth, height, width),
    )
    places = torch.stack(axes, -1).to(cells.feature.device)
    places = places if cells.shift is None else places + cells.shift
    return places / places.new_tensor([config.sigma_z_mm, config.sigma_xy, config.sigma_xy])


def _support_keys(support: Cells, config: KernelConfig) -> Float[Tensor, "S h w E"]:
    """Features with the places' terms of the exponent."""
    centre = support.z_mm.mean()
    place = _places(support, support.row, support.column, support.z_mm - centre, config)
    constant = -0.5 * place.square().sum(-1, keepdim=True) - config.temperature
    return torch.cat([support.feature, place, torch.ones_like(constant), constant], -1)


def _query_keys(
    query: Cells, support: Cells, rows: Tensor, is_annotated: Tensor, config: KernelConfig
) -> Float[Tensor, "D h w E"]:
    """The same of the query, whose places are moved to the support's nearest edge where they lie outside."""
    columns = query.column.clamp(support.column.min(), support.column.max())
    known_mm = support.z_mm[is_annotated]
    z_mm = query.z_mm.clamp(known_mm.min() - config.window_z_mm, known_mm.max() + config.window_z_mm)
    place = _places(query, rows, columns, z_mm - support.z_mm.mean(), config)
    constant = -0.5 * place.square().sum(-1, keepdim=True)
    return torch.cat([config.temperature * query.feature, place, constant, torch.ones_like(constant)], -1)
