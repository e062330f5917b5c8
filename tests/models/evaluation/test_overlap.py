import numpy as np
import pytest
import torch
from torch import tensor

from models.evaluation.overlap import compute_dice, compute_iou, count_overlap, surface_distances_px


def masks(*pixels, size=8):
    """(1, N, size, size): the first so many pixels of each image."""
    return (torch.arange(size**2) < tensor(pixels)[:, None]).reshape(1, -1, size, size)


def test_overlap_by_hand():
    # 6 of 10 marked are right, 4 of 8 true ones are missed; nothing where nothing is; 5 marked where nothing is.
    prediction, truth = masks(6, 0, 5), masks(10, 0, 0)
    counts = count_overlap(prediction, truth)
    assert counts[:, :, 0].tolist() == [[6, 0, 0], [6, 0, 5], [10, 0, 0]]
    assert compute_dice(counts)[:, 0].tolist() == pytest.approx([12 / 16, 1, 0], abs=1e-8)
    assert compute_iou(counts)[:, 0].tolist() == pytest.approx([6 / 10, 1, 0], abs=1e-8)
    assert compute_dice(counts.sum(1)).tolist() == pytest.approx([12 / 21])


def test_classes_do_not_mix():
    first, second = masks(6, 3), masks(2, 8)
    counts = count_overlap(torch.cat([first, second]), torch.cat([second, second]))
    assert counts.shape == (3, 2, 2)  # what, image, class
    assert compute_dice(counts).flatten().tolist() == pytest.approx([4 / 8, 1, 6 / 11, 1])


def test_dice_equals_the_references(golden_file):
    golden = golden_file("noisy/sp_guided.npz")
    found = torch.from_numpy(golden["logits1"]).softmax(1)[:, 1] > 0.5
    counts = count_overlap(found[None], torch.from_numpy(golden["clean"]).bool()[None])
    np.testing.assert_allclose(compute_dice(counts)[:, 0], golden["dice_per_image"], rtol=1e-6)
    assert compute_dice(counts).mean().item() == pytest.approx(float(golden["dice_mean"]), rel=1e-6)
    assert compute_dice(counts.sum(1)).item() == pytest.approx(float(golden["dice_global"]), rel=1e-6)
    empty = torch.zeros_like(found[None])
    assert compute_dice(count_overlap(empty, empty))[0, 0] == pytest.approx(float(golden["dice_both_empty"]))
    false_alarm = compute_dice(count_overlap(found[None], empty))[0, 0]
    assert false_alarm == pytest.approx(float(golden["dice_false_alarm"]), abs=1e-6)


def test_surface_distances_are_of_images_and_classes():
    truth = np.zeros((2, 3, 16, 16), bool)
    truth[0, :, 4:8, 4:8] = True
    prediction = np.roll(truth, 2, axis=3)
    prediction[0, 1] = False
    found = surface_distances_px(prediction, truth)
    assert found.shape == (2, 3, 2)  # convention, image, class
    assert found[:, [0, 2], 0].tolist() == [[2, 2], [2, 2]]
    assert np.isnan(found[:, 1, 0]).all()
    assert np.isnan(found[:, :, 1]).all()
