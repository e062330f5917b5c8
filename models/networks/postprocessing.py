"""What knows nothing of the method that made the maps: outlines that follow the image, and one piece per structure."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from models.networks.appearance import AppearanceConfig, follow_appearance
from models.networks.guided import guided_filter
from models.networks.passes import run_in_chunks
from util.schema import check_bounds, option

POSSIBLE, SURE = 0.3, 0.7  # probabilities of a voxel that may belong to a structure, and of one that surely does


@dataclass(frozen=True)
class GuideConfig:
    """The guided filter of probability maps. Source: chosen on folds 1 and 2 of CHAOST2."""

    radius_mm: float = option(12.5, gt=0)  # of the window
    epsilon: float = option(0.02, gt=0)  # variance of normalised intensities below which a region counts as flat
    low: float = -1.0  # normalised intensities are clipped to these bounds
    high: float = 4.0
    stride: int = option(2, ge=1)  # pixels per pixel of the filter's grid

    def __post_init__(self) -> None:
        check_bounds(self)


@dataclass(frozen=True)
class PostprocessConfig:
    """What is done to the maps and masks of a scan; everything is off by default, as published methods do none."""

    exclusive: bool = option(False, "practical")  # one structure a voxel, the most probable; else each on its own
    largest_component: bool = option(False, "practical")  # the largest piece of each structure only
    appearance: bool = option(False, "practical")  # maps follow how each structure looks, see `follow_appearance`
    guided_filter: bool = option(False, "practical")  # outlines follow the image, see `GuideConfig`
    # a structure whose outline is less firm, see `confidences`, counts as absent; 0: off
    min_confidence: float = option(0.0, "practical", ge=0, le=1)
    look: AppearanceConfig = option(AppearanceConfig, "practical")
    guide: GuideConfig = option(GuideConfig, "practical")

    @property
    def follows_image(self) -> bool:
        """Whether `follow_image` does anything but enlarge."""
        return self.appearance or self.guided_filter

    def __post_init__(self) -> None:
        check_bounds(self)


def follow_image(
    image: Float[Tensor, "D 1 H W"],
    maps: Float[Tensor, "D K h w"],
    spacing_mm: tuple[float, float, float],
    options: PostprocessConfig,
    slices_per_pass: int = 16,
) -> Float[Tensor, "D K H W"]:
    """Probability maps at the image's size that follow the image, as far as switched on; values in [0, 1].

    Args:
        image: normalised intensities.
        maps: of structures, on a coarser grid.
        spacing_mm: of the image along (z, y, x).
        options: the switches `appearance` and `guided_filter`; without either, maps are enlarged.
        slices_per_pass: of the image that are treated together.
    """
    if options.appearance:
        maps = follow_appearance(image, maps, spacing_mm, options.look, slices_per_pass)
    if not options.guided_filter:
        return F.interpolate(maps, image.shape[-2:], mode="bilinear", align_corners=False)
    config = options.guide
    rows, columns = (max(1, round(config.radius_mm / (mm * config.stride))) for mm in spacing_mm[1:])

    def filtered(images: Tensor, parts: Tensor) -> Tensor:
        guide = images.clamp(config.low, config.high)
        return guided_filter(guide, parts, (rows, columns), config.epsilon, config.stride).clamp_(0, 1)

    return torch.cat(list(run_in_chunks(filtered, slices_per_pass, image, maps)))


def postprocess_masks(
    masks: Bool[Tensor, "K D H W"], probabilities: Float[Tensor, "K D H W"], config: PostprocessConfig
) -> Bool[Tensor, "K D H W"]:
    """The largest piece of each structure, and none of one whose confidence is too low, where the switches are on."""
    if config.largest_component:
        masks = largest_components(masks)
    if config.min_confidence > 0:
        masks = masks & (confidences(masks, probabilities) >= config.min_confidence)[:, None, None, None]
    return masks


def confidences(masks: Bool[Tensor, "*K D H W"], probabilities: Float[Tensor, "*K D H W"]) -> Float[Tensor, "*K"]:
    """How firm the outline of each structure is: what surely belongs to it, as a share of what may belong to it.

    Voxels of the mask with a probability above `SURE`, divided by the number of those that are in the mask or have one
    above `POSSIBLE`. 1: moving the threshold between the two moves nothing. The levels were chosen by the rank
    correlation with Dice on the pairs among the CHAOS scans 8, 10, 13 and 15 (0.85; the mean probability within the
    mask has 0.65).

    Returns:
        0 to 1; NaN where the mask is empty.
    """
    surely = (masks & (probabilities > SURE)).flatten(-3).sum(-1)
    possibly = (masks | (probabilities > POSSIBLE)).flatten(-3).sum(-1)
    is_found = masks.flatten(-3).any(-1)
    return torch.where(is_found, surely / possibly, torch.nan)


def firmness(maps: Float[Tensor, "*K D H W"]) -> Float[Tensor, "*K"]:
    """The mean of the probabilities above 1/2 of each structure; 0 without any.

    Of two maps of a structure that differ in where it was looked for, the better one has the higher mean: so in all of
    the twelve pairs among the CHAOS scans 8, 10, 13 and 15 in which their Dice differed by more than 0.02.
    """
    is_likely = maps > 0.5
    return (maps * is_likely).flatten(-3).sum(-1) / is_likely.flatten(-3).sum(-1).clamp_min(1)


def largest_components(masks: Bool[Tensor, "K D H W"]) -> Bool[Tensor, "K D H W"]:
    """The largest connected piece of each mask in three dimensions; voxels are connected by faces. On the host."""
    kept = []
    for mask in masks.cpu().numpy():
        pieces = np.zeros(mask.shape, np.int32)
        ndimage.label(mask, output=pieces)
        sizes = np.bincount(pieces.ravel())[1:]  # without the background
        kept.append(pieces == 1 + sizes.argmax() if len(sizes) > 1 else mask)
    return torch.from_numpy(np.stack(kept)).to(masks.device)
