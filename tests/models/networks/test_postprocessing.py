import math

import torch
import torch.nn.functional as F

from models.networks.appearance import AppearanceConfig, follow_appearance
from models.networks.postprocessing import (
    PostprocessConfig,
    confidences,
    firmness,
    follow_image,
    largest_components,
    postprocess_masks,
)


def two_pieces():
    masks = torch.zeros(3, 3, 6, 6, dtype=torch.bool)
    masks[0, :, :2, :2] = True  # 12 voxels
    masks[0, 0, 4:, 2:] = True  # 8, touching the edge
    masks[1, :2, 3, 3] = masks[1, 2, 4, 4] = True  # two voxels and one, which share a corner only
    return masks


def test_the_largest_piece_is_kept():
    kept = largest_components(two_pieces())
    assert kept.flatten(1).sum(1).tolist() == [12, 2, 0]
    assert kept[0, :, :2, :2].all()


def test_a_structure_of_low_confidence_is_absent():
    masks = two_pieces()
    probabilities = torch.tensor([0.9, 0.55, 0.2])[:, None, None, None].expand(3, 3, 6, 6).clone()
    probabilities[0, ~masks[0]] = 0.1
    probabilities[0, 1, 2, :5] = 0.4  # may be of the structure, beside its 20 voxels
    expected = torch.tensor([20 / 25, 0.0, math.nan])
    torch.testing.assert_close(confidences(masks, probabilities), expected, equal_nan=True)
    torch.testing.assert_close(confidences(masks[:, None], probabilities[:, None])[:, 0], expected, equal_nan=True)
    kept = postprocess_masks(masks, probabilities, PostprocessConfig(min_confidence=0.6))
    assert kept.flatten(1).any(1).tolist() == [True, False, False]


def test_a_map_is_as_firm_as_what_is_likely_in_it():
    maps = torch.tensor([0.9, 0.5, 0.45])[:, None, None, None].expand(3, 3, 6, 6).clone()
    maps[1, 0, 0, :4] = torch.tensor([0.6, 0.8, 1.0, 0.2])
    torch.testing.assert_close(firmness(maps), torch.tensor([0.9, 0.8, 0.0]))


def test_nothing_is_done_by_default():
    masks = two_pieces()
    assert postprocess_masks(masks, torch.zeros(3, 3, 6, 6), PostprocessConfig()) is masks


def test_maps_follow_the_image_as_far_as_switched_on():
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    organ = ((y - 30) ** 2 + (x - 34) ** 2 <= 200).float().expand(2, 1, 64, 64)
    image = 2 * organ + 0.1 * torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    maps = F.interpolate(0.1 + 0.7 * organ.roll(4, -1), (8, 8), mode="area")
    spacing_mm, neither = (5.0, 1.5, 1.5), PostprocessConfig()
    look, edges = PostprocessConfig(appearance=True), PostprocessConfig(guided_filter=True)
    both = PostprocessConfig(appearance=True, guided_filter=True)
    assert [each.follows_image for each in (neither, look, edges, both)] == [False, True, True, True]
    found = [follow_image(image, maps, spacing_mm, each) for each in (neither, look, edges, both)]
    torch.testing.assert_close(found[0], F.interpolate(maps, (64, 64), mode="bilinear"))
    small = follow_appearance(image, maps, spacing_mm, AppearanceConfig())
    torch.testing.assert_close(found[1], F.interpolate(small, (64, 64), mode="bilinear"))
    torch.testing.assert_close(found[3], follow_image(image, small, spacing_mm, edges))
    errors = [float((each - organ).abs().mean()) for each in found]
    assert errors[1] < errors[0] - 0.01
