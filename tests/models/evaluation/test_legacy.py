"""Scores of the first publications, by hand and against reference values."""

import numpy as np
import pytest

from models.evaluation.legacy import joint_dice, vector_distance
from util.results.metrics import score_volume


def masks(*rows):
    """(K, 1, 1, 4) masks of one slice."""
    return np.array(rows, bool)[:, None, None]


def test_classes_count_together_and_an_empty_slice_found_empty_is_perfect():
    found, wanted = masks([1, 1, 0, 0], [0, 0, 1, 0]), masks([1, 0, 0, 0], [0, 1, 1, 0])
    # shared: 1 + 1, predicted 2 + 1, true 1 + 2
    assert joint_dice(found, wanted) == pytest.approx([(4 + 1e-4) / (6 + 1e-4)])
    empty = np.zeros_like(found)
    assert joint_dice(empty, empty) == [1.0]
    assert joint_dice(found, empty) == pytest.approx([1e-4 / 3.0001])


def test_every_slice_has_its_own_value():
    found = np.zeros((1, 3, 2, 2), bool)
    found[0, 1] = True
    assert joint_dice(found, found).tolist() == [1, 1, 1]
    assert vector_distance(found, np.zeros_like(found)).tolist() == [0, 2, 0]


def test_joint_dice_of_thresholded_probabilities(golden_file):
    golden = golden_file("semi_dg/dice.npz")
    logits, labels = golden["logits"], golden["labels"]  # (B, 4, H, W) with the background last, (B, H, W)
    exponents = np.exp(logits - logits.max(1, keepdims=True))
    found = (exponents / exponents.sum(1, keepdims=True) > 0.5)[:, :3]
    wanted = np.stack([labels == value for value in range(3)], 1)
    expected = [
        (2 * np.logical_and(a, b).sum() + 1e-4) / (a.sum() + b.sum() + 1e-4) for a, b in zip(found, wanted, strict=True)
    ]
    assert joint_dice(found.swapaxes(0, 1), wanted.swapaxes(0, 1)) == pytest.approx(expected, rel=1e-12)


def test_distances_against_reference_values(golden_file):
    golden = golden_file("semi_dg/hausdorff.npz")
    found, wanted = (golden[name].astype(bool) for name in ("pred", "gt"))  # (1, 3, H, W)
    assert vector_distance(found.swapaxes(0, 1), wanted.swapaxes(0, 1)) == pytest.approx([8.485281], abs=1e-6)
    hd95 = [score_volume(found[0, k][None], wanted[0, k][None], (1.0, 1.0, 1.0)).hd95_mm for k in range(3)]
    assert hd95 == pytest.approx(golden["hd95_px"])
