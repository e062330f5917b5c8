"""How a structure looks in the scan at hand: maps of where structures lie learn it, and follow it."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.networks.gaussian import blur_along
from models.networks.passes import run_in_chunks
from util.schema import check_bounds, option

POSSIBLE = 0.3  # probability of a place that may belong to a structure; such places give the histograms their range
NEAR = 0.05  # share of a structure around a place, from which on the place is near it
N_BINS = 24  # of the histograms, along each of their two axes
RANGE = 6.0  # standard deviations on either side of the mean that the bins cover
LEAST_SD = 0.05  # is added to a standard deviation; of normalised intensities
UNSURE = 50.0  # places of both kinds alike that are added to either histogram, so that few places prove little
COUNTS_PER_PLACE = 2**16  # histograms count in whole numbers, so that the order of summation does not matter


@dataclass(frozen=True)
class AppearanceConfig:
    """What is compared, and how near. Source: chosen on the twelve pairs among scans 8, 10, 13 and 15 of CHAOST2."""

    reach_mm: float = option(10.0, gt=0)  # of the neighbourhood from which a structure is told apart
    texture_mm: float = option(2.5, gt=0)  # half the side of the window whose standard deviation is the texture
    stride: int = option(2, ge=1)  # pixels per place

    def __post_init__(self) -> None:
        check_bounds(self)


def follow_appearance(
    image: Float[Tensor, "D 1 H W"],
    maps: Float[Tensor, "D K h w"],
    spacing_mm: tuple[float, float, float],
    config: AppearanceConfig,
    slices_per_pass: int = 16,
) -> Float[Tensor, "D K y x"]:
    """Probabilities of structures, corrected by how each looks in this scan.

    Nearby, the joint histograms of brightness and texture within a structure and around it are estimated from the maps
    themselves; by Bayes' rule, the odds of each place are multiplied by the ratio of the two. A part that looks like
    the rest of the structure is added, and what looks like its surroundings is taken away. Each structure is treated on
    its own, against everything around it, other structures included.

    Args:
        image: normalised intensities.
        maps: on a coarser grid; values in [0, 1].
        spacing_mm: of the image along (z, y, x).
        config: what is compared.
        slices_per_pass: of the image that are measured together.

    Returns:
        On a grid of `config.stride` pixels; unchanged where a structure is not near.

    Source: our own. Related: Ashburner and Friston, "Unified segmentation", NeuroImage 2005 (intensities of each tissue
    that are fitted to the image, with an atlas as prior).
    """
    size = [max(1, side // config.stride) for side in image.shape[-2:]]
    window = [max(1, round(config.texture_mm / (mm * config.stride))) for mm in spacing_mm[1:]]
    looks = torch.cat(list(run_in_chunks(lambda images: _looks(images, size, window), slices_per_pass, image)), 1)
    near = F.interpolate(_near(maps, image.shape, spacing_mm, config.reach_mm).float(), size, mode="nearest") > 0
    maps = F.interpolate(maps, size, mode="bilinear", align_corners=False)
    for structure, is_near in zip(maps.unbind(1), near.unbind(1), strict=True):
        share = structure[is_near]
        ratio = _likelihood_ratio(looks[:, is_near], share)
        structure[is_near] = share * ratio / (share * ratio + 1 - share)
    return maps


def _looks(image: Float[Tensor, "B 1 H W"], size: list[int], window: list[int]) -> Float[Tensor, "2 B y x"]:
    """Brightness, and its standard deviation in a window of places."""
    moments = F.interpolate(torch.cat([image, image.square()], 1), size, mode="area")
    sides = [2 * radius + 1 for radius in window]
    mean, square = F.avg_pool2d(moments, sides, 1, window, count_include_pad=False).unbind(1)
    return torch.stack([moments[:, 0], (square - mean.square()).clamp_min(0).sqrt()])


def _near(
    maps: Float[Tensor, "D K h w"], shape: torch.Size, spacing_mm: tuple[float, float, float], reach_mm: float
) -> Bool[Tensor, "D K h w"]:
    """Where a structure, or a part of it, is nearby; shape: of the image."""
    rows, columns = (
        mm * side / cells for mm, side, cells in zip(spacing_mm[1:], shape[2:], maps.shape[2:], strict=True)
    )
    for dim, mm in ((0, spacing_mm[0]), (2, rows), (3, columns)):
        maps = blur_along(maps, reach_mm / mm, dim)
    return maps > NEAR


def _likelihood_ratio(looks: Float[Tensor, "2 N"], share: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """Of how each place looks, within the structure and around it; 1 if no place is possible."""
    weight = share * (share > POSSIBLE)
    total = weight.sum()
    mean = (looks * weight).sum(1, keepdim=True) / total
    sd = ((looks - mean).square() * weight).sum(1, keepdim=True).div(total).sqrt() + LEAST_SD
    bins = ((looks - mean) / sd + RANGE) * (N_BINS / (2 * RANGE))
    bins = bins.nan_to_num().clamp(0, N_BINS - 1).long()  # no place is possible: all in one bin
    place = bins[0] * N_BINS + bins[1]
    counts = _histograms(place, share)
    overall = counts.sum(0) / counts.sum()
    inside, around = (counts + UNSURE * overall) / (counts.sum(1, keepdim=True) + UNSURE)
    return (inside / around)[place].to(share)


def _histograms(place: Int[Tensor, " N"], share: Float[Tensor, " N"]) -> Float[Tensor, "2 M"]:
    """Places in each bin within a structure and around it, blurred by a bin along each axis."""
    inside = (share * COUNTS_PER_PLACE).round().long()
    counts = inside.new_zeros(2, N_BINS**2)
    counts.index_add_(1, place, torch.stack([inside, COUNTS_PER_PLACE - inside]))
    maps = counts.double().unflatten(1, (N_BINS, N_BINS)) / COUNTS_PER_PLACE
    return blur_along(blur_along(maps, 1.0, 1), 1.0, 2).flatten(1)
