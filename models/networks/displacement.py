"""Where the structures of an annotated scan lie in the body that another scan shows: a shift of each, from features."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.networks.gaussian import blur_along
from models.networks.label_propagation import Cells
from models.networks.spread import spread
from util.schema import check_bounds, option

PLACES_AT_ONCE = 32  # that are compared together, so that memory is bounded
LEAST_SHARE = 0.5  # of a place that a structure takes up, relative to its fullest one, for the place to be compared
POWERS = (0.0, 0.5, 1.0)  # a structure keeps its share of the body (0), its size in mm (1), or half of either
FAR = 0.02  # shares around a place, below which structures are far and the place stays
# of the second placement, see `fit_displacements`; distances in units of `typical` and `typical_z_mm`
SHARPNESS = 50.0  # how sure the best shift of a structure is: factor on the mean cosine
LEAST_VARIANCE = 0.05  # of a structure's shift, so that none is trusted without limit
NEARBY = 3.0  # structures further away than this count less
ELSEWHERE = 0.6  # a structure that differs by less keeps its first shift


@dataclass(frozen=True)
class DisplacementConfig:
    """How far structures are looked for. Source: chosen on the twelve pairs among scans 8, 10, 13 and 15 of CHAOST2."""

    reach: float = option(0.35, ge=0)  # largest shift in the plane, in widths and heights of the body; 0: no shifts
    reach_z_mm: float = option(40.0, ge=0)  # largest shift along z
    # of the mean cosine: what a shift by `typical`, or along z by `typical_z_mm`, costs; twice as far costs four times
    cost: float = option(0.02, ge=0)
    typical: float = option(0.15, gt=0)
    typical_z_mm: float = option(40.0, gt=0)
    scale_cost: float = option(0.02, ge=0)  # of the logarithm of a scale, see `POWERS`
    # what a shift by `typical` away from the other structures' costs in the second placement; 0: no second one
    agreement: float = option(0.05, ge=0)
    n_places: int = option(256, ge=1)  # of a structure that are compared
    spread: float = option(0.1, gt=0)  # how far from a structure its shift holds, in widths and heights of the body
    spread_z_mm: float = option(20.0, gt=0)  # the same along z

    def __post_init__(self) -> None:
        check_bounds(self)

    @property
    def typical_shift(self) -> Float[Tensor, "3"]:
        """Along (z, row, column), in mm and in heights and widths of the body."""
        return torch.tensor([self.typical_z_mm, self.typical, self.typical])


class _Candidates(NamedTuple):
    """Shifts and scales, and how much the structures look like the query there, less what these cost."""

    score: Float[Tensor, "K P A"]
    shift: Float[Tensor, "A 3"]
    scale: Float[Tensor, "P 3"]
    centre: Float[Tensor, "K 3"]
    is_shown: Bool[Tensor, " K"]

    @property
    def best(self) -> "Displacement":
        """The most similar shift and scale of each structure."""
        best = self.score.flatten(1).argmax(1)
        power, step = best // len(self.shift), best % len(self.shift)
        return Displacement(self.shift[step], self.scale[power], self.centre)


class Displacement(NamedTuple):
    """Of each structure along (z, row, column); a place p lies at p + shift + (scale - 1) (p - centre). On the host."""

    shift: Float[Tensor, "K 3"]  # mm, and heights and widths of the body
    scale: Float[Tensor, "K 3"]
    centre: Float[Tensor, "K 3"]

    def at(self, places: Float[Tensor, "S h w 3"]) -> Float[Tensor, "K S h w 3"]:
        """What is added to each place, for each structure."""
        shift, scale, centre = (each.to(places)[:, None, None, None] for each in self)
        return shift + (scale - 1) * (places - centre)


def fit_displacements(
    query: Cells,
    support: Cells,
    label: Float[Tensor, "S h w M"],
    is_annotated: Bool[Tensor, " S"],
    config: DisplacementConfig,
    stretch: tuple[float, float] = (1.0, 1.0),
) -> tuple[Displacement, ...]:
    """For each structure the shift and scale at which its places look most like the query's there, on average.

    A structure as a whole is found where each of its places alone would be doubtful: people differ most in where an
    organ lies in the body (fat behind the kidneys), and less in how it is built. It keeps either its share of the body
    or its size.

    A structure that looks unlike itself in the query may be found where something else looks like it. In a second
    answer, structures move together: a shift costs the more, the further it is from the mean of the other structures'
    shifts, in which nearby and surely found ones count more. It is given if any structure lies elsewhere in it.

    Args:
        query: its z in the support's coordinates.
        support: the annotated scan.
        label: share of background and structures in each place of the support.
        is_annotated: slices of the support whose labels are known. On the host.
        config: reach and cost.
        stretch: height and width of the support's body divided by those of the query's, in mm.

    Returns:
        By features alone, and, where it differs, in agreement with the other structures. No shift for structures that
        are not shown.
    """
    steps, size = _steps(support, config), support.size
    shifts = steps * size
    cost = config.cost * (shifts / config.typical_shift).square().sum(1)
    there = query.sample(support.places())
    scales = torch.tensor([[1.0, *stretch]]) ** torch.tensor(POWERS)[:, None]  # (P, 3)
    worse = cost + config.scale_cost * scales.log().abs().amax(1, keepdim=True)  # (P, A)
    scores, centres, is_shown = [], [], []
    for places in _places_of(label, is_annotated, config.n_places):
        centre = places.float().mean(0) if len(places) else places.new_zeros(3, dtype=torch.float)
        goals = (centre + scales.to(centre)[:, None] * (places - centre)).round().long()  # (P, n, 3)
        scores.append(_mean_cosine(there, support.feature, places, goals, steps) - worse.to(there))
        centres.append(support.first + centre.cpu() * size)
        is_shown.append(len(places) > 0)
    scores = torch.stack(scores).float().cpu()
    return _placements(_Candidates(scores, shifts, scales, torch.stack(centres), torch.tensor(is_shown)), config)


def _placements(found: _Candidates, config: DisplacementConfig) -> tuple[Displacement, ...]:
    """The most similar one, and the one in agreement where it differs."""
    best = found.best
    if not config.agreement:
        return (best,)
    worse = config.agreement * _disagreement(found, config.typical_shift)
    agreeing = found._replace(score=found.score - worse[:, None]).best
    differs = ((agreeing.shift - best.shift) / config.typical_shift).norm(dim=1) > ELSEWHERE
    differs = (differs & found.is_shown)[:, None]
    if not differs.any():
        return (best,)
    shift, scale = (torch.where(differs, other, own) for other, own in zip(agreeing[:2], best[:2], strict=True))
    return best, Displacement(shift, scale, best.centre)


def _disagreement(found: _Candidates, typical: Float[Tensor, "3"]) -> Float[Tensor, "K A"]:
    """Squared distance of each shift to the one that the other structures let expect, in typical shifts."""
    shift, centre = found.shift / typical, found.centre / typical
    weight = torch.softmax(SHARPNESS * found.score.flatten(1), 1).view_as(found.score).sum(1)  # (K, A)
    mean = weight @ shift
    variance = (weight * torch.cdist(mean, shift).square()).sum(1)
    trust = torch.exp(-0.5 * (torch.cdist(centre, centre) / NEARBY).square()) / (variance + LEAST_VARIANCE)
    trust = trust.fill_diagonal_(0) * found.is_shown
    expected = trust @ mean / (trust.sum(1, keepdim=True) + 1)  # 1: for no shift
    return torch.cdist(expected, shift).square()


def shift_field(
    support: Cells, label: Float[Tensor, "S h w M"], found: Displacement, config: DisplacementConfig
) -> Float[Tensor, "S h w 3"]:
    """The shift of each place: a structure's own within it, a mean of those nearby around it, none far from all."""
    near = label[..., 1:].permute(3, 0, 1, 2)  # (K, S, h, w)
    widths = torch.tensor([config.spread_z_mm, config.spread, config.spread]) / support.size
    for axis, width in enumerate(widths.tolist(), start=1):
        near = blur_along(near, width, axis)
    near = near[..., None]
    return (near * found.at(support.places())).sum(0) / (near.sum(0) + FAR)


def _steps(support: Cells, config: DisplacementConfig) -> Int[Tensor, "A 3"]:
    """Candidate shifts in places along (z, row, column); no shift is first, so that it wins where all are equal."""
    reach = torch.tensor([config.reach_z_mm, config.reach, config.reach]) / support.size
    steps = torch.cartesian_prod(*(torch.arange(-n, n + 1) for n in reach.floor().long().tolist()))
    return steps[steps.abs().sum(1).argsort(stable=True)]


def _places_of(label: Tensor, is_annotated: Tensor, n_places: int) -> list[Int[Tensor, "n 3"]]:
    """Up to `n_places` places (z, row, column) of each structure, spread evenly."""
    is_known = is_annotated.to(label.device)[:, None, None]
    found = []
    for share in label[..., 1:].unbind(-1):
        share = share * is_known
        places = (share > LEAST_SHARE * share.max()).nonzero()
        found.append(places[spread(len(places), n_places).to(places.device)])
    return found


def _mean_cosine(
    there: Float[Tensor, "S h w C"],
    feature: Float[Tensor, "S h w C"],
    places: Int[Tensor, "n 3"],
    goals: Int[Tensor, "P n 3"],
    steps: Int[Tensor, "A 3"],
) -> Float[Tensor, "P A"]:
    """Of the features at `places` and those of the query at their goals, each step further; outside the query 0."""
    total, size = there.new_zeros(len(goals), len(steps)), goals.new_tensor(there.shape[:3])
    for some, goals_of_some in zip(places.split(PLACES_AT_ONCE), goals.split(PLACES_AT_ONCE, 1), strict=True):
        cosine = feature[tuple(some.T)] @ there.flatten(0, 2).T  # (n, S h w)
        for number, goal in enumerate(goals_of_some):
            reached = goal[:, None] + steps.to(goal)  # (n, A, 3)
            is_inside = ((reached >= 0) & (reached < size)).all(-1)
            z, row, column = torch.minimum(reached.clamp_min(0), size - 1).unbind(-1)
            total[number] += (cosine.gather(1, (z * size[1] + row) * size[2] + column) * is_inside).sum(0)
    return total / max(1, len(places))
