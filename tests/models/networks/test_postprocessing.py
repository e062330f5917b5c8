import math

import torch

from models.networks.postprocessing import PostprocessConfig, confidences, largest_components, postprocess_masks


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
    probabilities = torch.tensor([0.9, 0.55, 0.2])[:, None, None, None].expand(3, 3, 6, 6)
    torch.testing.assert_close(confidences(masks, probabilities), torch.tensor([0.9, 0.55, math.nan]), equal_nan=True)
    kept = postprocess_masks(masks, probabilities, PostprocessConfig(min_confidence=0.6))
    assert kept.flatten(1).any(1).tolist() == [True, False, False]


def test_nothing_is_done_by_default():
    masks = two_pieces()
    assert postprocess_masks(masks, torch.zeros(3, 3, 6, 6), PostprocessConfig()) is masks
