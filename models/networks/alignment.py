"""Which slices of two scans of a body part show the same height: a shift and a scale along z, found from features."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from models.networks.body import BodyBox
from models.networks.prototypes import inverse_norm
from util.errors import ConfigError
from util.schema import check_bounds, option


@dataclass(frozen=True)
class AlignmentConfig:
    """How two scans are aligned along z.

    Source: chosen on folds 1 to 4 of CHAOST2; `min_overlap` on stretches of these scans and on a CT scan of the chest
    with one of the abdomen.
    """

    scales: tuple[float, ...] = option((0.9, 1.0, 1.1), gt=0)  # candidates: millimetres of the support per millimetre
    step: float = option(0.5, gt=0)  # between candidate shifts, in slices of the support
    min_overlap: float = option(0.15, gt=0, le=1)  # least share of the shorter scan that the other one must cover
    short_overlap_mm: float = option(61.6, ge=0)  # overlaps of about this length or less count less
    grid: int = option(8, ge=2)  # features a side that describe a slice
    margin: float = option(0.05, ge=0, lt=0.5)  # of the body box, left out on each side

    def __post_init__(self) -> None:
        check_bounds(self)
        if not self.scales:
            raise ConfigError("alignment.scales: empty; expected at least one, such as 1.0.")


@dataclass(frozen=True)
class Alignment:
    """z of the support = `shift_mm` + `scale` * z of the query, both in millimetres from the first slice's centre."""

    shift_mm: float
    scale: float

    def of(self, z_mm: Float[Tensor, " D"]) -> Float[Tensor, " D"]:
        """Heights in the query as heights in the support."""
        return self.shift_mm + self.scale * z_mm


def describe_slices(
    features: Float[Tensor, "D C h w"], box: BodyBox, stride: int, config: AlignmentConfig
) -> Float[Tensor, "D N"]:
    """Each slice as one vector: its features, smoothed and sampled on a regular grid within the body."""
    smooth = F.avg_pool2d(features, 3, stride=1, padding=1, count_include_pad=False)
    share = torch.linspace(config.margin, 1 - config.margin, config.grid, device=features.device)
    rows, columns = (
        2 * (first + share * (last - first) + 0.5) / (stride * number) - 1
        for (first, last), number in zip((box.rows, box.columns), features.shape[-2:], strict=True)
    )
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1)  # (grid, grid, 2): column, row
    grid = grid.to(features.dtype).expand(len(features), -1, -1, -1)
    return F.grid_sample(smooth, grid, padding_mode="border", align_corners=False).flatten(1)


def align_slices(
    query: Float[Tensor, "Q N"],
    support: Float[Tensor, "S N"],
    query_mm: float,
    support_mm: float,
    config: AlignmentConfig,
) -> Alignment:
    """The shift and the scale at which overlapping slices are most similar.

    The mean vector of each scan is subtracted first (of a single slice: that of the other scan), so that similarity
    says which slice it is and not which scan. The score of a candidate is the sum of the similarities, divided by the
    overlap plus `short_overlap_mm`.

    Args:
        query: descriptions of its slices, see `describe_slices`.
        support: likewise.
        query_mm: distance between its slices.
        support_mm: likewise.
        config: candidates and weights.
    """
    means = query.mean(0), support.mean(0)
    query = query - (means[0] if len(query) > 1 else means[1])
    support = support - (means[1] if len(support) > 1 else means[0])
    similarity = (query * inverse_norm(query, 1)) @ (support * inverse_norm(support, 1)).T  # (Q, S)
    return _best(similarity.float().cpu(), query_mm, support_mm, config)


def _best(similarity: Float[Tensor, "Q S"], query_mm: float, support_mm: float, config: AlignmentConfig) -> Alignment:
    n_query, n_support = similarity.shape
    shorter_mm = min(n_query * query_mm, n_support * support_mm)
    best, found = -torch.inf, Alignment(0.0, 1.0)
    rows = torch.arange(n_query)
    for scale in config.scales:
        reach = scale * (n_query - 1) * query_mm / support_mm  # of the query, in slices of the support
        shift = torch.arange(-reach, n_support - 1 + 1e-6, config.step)
        shift = torch.cat([shift, shift.new_tensor([0.0])]) if n_support > 1 else shift.new_tensor([0.0])
        place = shift[:, None] + scale * rows * query_mm / support_mm  # (A, Q), in slices of the support
        is_inside = (place >= -0.25) & (place <= n_support - 0.75)
        below = place.floor().clamp(0, n_support - 1).long()
        above = (below + 1).clamp_max(n_support - 1)
        part = (place - below).clamp(0, 1)
        value = similarity[rows, below] * (1 - part) + similarity[rows, above] * part
        overlap_mm = is_inside.sum(1) * query_mm
        score = (value * is_inside).sum(1) * query_mm / (overlap_mm + config.short_overlap_mm)
        score[overlap_mm * min(scale, 1.0) < config.min_overlap * shorter_mm - 1e-6] = -torch.inf
        if score.max() > best:
            best = float(score.max())
            found = Alignment(float(shift[score.argmax()]) * support_mm, scale)
    return found


def relative_alignment(n_query: int, query_mm: float, n_support: int, support_mm: float) -> Alignment:
    """The alignment of scans that show the same stretch of the body: equal relative heights."""
    scale = n_support * support_mm / (n_query * query_mm)
    return Alignment(0.5 * (scale * query_mm - support_mm), scale)
