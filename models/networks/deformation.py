"""How a scan is deformed relative to an annotated one: a smooth field of shifts, from features."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from models.networks.gaussian import blur_along, reach_of
from models.networks.label_propagation import Cells
from util.schema import check_bounds, option

SLICES_AT_ONCE = 16  # of the support whose shifts are found together, so that memory is bounded;
VALUES_AT_ONCE = 2**24  # fewer where they have more places or steps: cosines that are kept together, 64 MiB


@dataclass(frozen=True)
class DeformationConfig:
    """How far places are looked for. Source: chosen on the twelve pairs among scans 8, 10, 13 and 15 of CHAOST2."""

    reach: float = option(0.13, ge=0)  # largest shift in the plane, in widths and heights of the body; 0: no shifts
    reach_z_mm: float = option(16.0, ge=0)  # largest shift along z
    width: float = option(0.04, gt=0)  # of the neighbourhood that is compared, in widths and heights of the body
    width_z_mm: float = option(6.0, gt=0)  # the same along z
    sharpness: float = option(40.0, gt=0)  # how much better shifts count more: factor on the mean cosine
    cost: float = option(0.025, ge=0)  # of the mean cosine: what a shift by the reach costs; half as far a quarter

    def __post_init__(self) -> None:
        check_bounds(self)


def fit_deformation(query: Cells, support: Cells, config: DeformationConfig) -> Float[Tensor, "S h w 3"]:
    """The shift of each place of the support, refined by what the query shows around there.

    Structures as a whole were found before (`models.networks.displacement`); what remains is how they and their
    surroundings are bent. For each place and each step, the cosines of a small neighbourhood and of the query, one step
    further, are averaged; the mean of all steps, weighted by the softmax of these averages, is added to the shift.

    Args:
        query: its z in the support's coordinates.
        support: the annotated scan, with the shifts so far; None: no shifts.
        config: reach, neighbourhood and cost.

    Returns:
        Shifts along (z, row, column), in mm and in heights and widths of the body.

    Source: our own. Related: Heinrich, "Closing the gap between deep and conventional image registration using
    probabilistic dense displacement networks", MICCAI 2019 (mean displacement over a softmax of a cost volume).
    """
    size, (depth, height, width) = support.size, support.feature.shape[:3]
    reach = (torch.tensor([config.reach_z_mm, config.reach, config.reach]) / size + 1e-4).floor().long()
    reach = torch.minimum(reach, torch.tensor([depth, height, width]) - 1)
    steps = torch.cartesian_prod(*(torch.arange(-n, n + 1) for n in reach.tolist())).float()
    widths = (torch.tensor([config.width_z_mm, config.width, config.width]) / size).tolist()
    cost = (config.cost * (steps / reach.clamp_min(1)).square().sum(1)).to(support.feature)
    margin = int(reach[0]) + reach_of(widths[0])
    at_once = max(1, min(SLICES_AT_ONCE, VALUES_AT_ONCE // (len(steps) * height * width)))
    found = []
    for first in range(0, depth, at_once):
        last = min(first + at_once, depth)
        near = slice(max(0, first - margin), min(last + margin, depth))
        cosine = _cosines(support.feature[near], query.sample(support.places(near)), reach.tolist())
        for dim, sigma in enumerate(widths, start=1):
            cosine = blur_along(cosine, sigma, dim)
        cosine = cosine[:, first - near.start : last - near.start]
        weight = torch.softmax(config.sharpness * (cosine - cost[:, None, None, None]), 0)
        found.append(torch.einsum("azyx,ac->zyxc", weight, (steps * size).to(weight)))
    refined = torch.cat(found)
    return refined if support.shift is None else refined + support.shift


def _cosines(
    feature: Float[Tensor, "S h w C"], there: Float[Tensor, "S h w C"], reach: list[int]
) -> Float[Tensor, "A S h w"]:
    """Of each place and the places up to `reach` steps further along each axis; 0 with those outside."""
    depth, height, width, _ = feature.shape
    n_z, n_rows, n_columns = reach
    there = F.pad(there, (0, 0, n_columns, n_columns, n_rows, n_rows, n_z, n_z))
    columns = torch.arange(width)[:, None] + torch.arange(2 * n_columns + 1)
    columns = columns.to(feature.device).expand(depth * height, -1, -1)
    found = []
    for z in range(2 * n_z + 1):
        for row in range(2 * n_rows + 1):
            lines = there[z : z + depth, row : row + height].flatten(0, 1)  # (S h, w + 2 n_columns, C)
            cosine = feature.flatten(0, 1) @ lines.transpose(1, 2)
            found.append(cosine.gather(2, columns).movedim(2, 0))
    return torch.cat(found).unflatten(1, (depth, height))
