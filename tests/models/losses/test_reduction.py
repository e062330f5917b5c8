import pytest
import torch
import torch.nn.functional as F

from models.losses.reduction import class_weights, weighted_mean

LABEL = torch.tensor([[[1, 0], [0, 0]]])
LOSS = torch.tensor([[[4.0, 1.0], [2.0, 3.0]]])


def test_golden_weight_and_loss(golden_file):
    golden = golden_file("noisy/sp_guided.npz")
    label = torch.from_numpy(golden["noisy"]).long()
    loss_map = F.cross_entropy(torch.from_numpy(golden["logits1"]), label, reduction="none")
    weights = class_weights(label, None, 2)
    assert weights.tolist() == pytest.approx([1, float(golden["class_weight_fg"])], rel=1e-6)
    assert weighted_mean(loss_map, label, None, 2).item() == pytest.approx(float(golden["ce_classweighted"]), rel=1e-6)


def test_by_hand():
    assert class_weights(LABEL, None, 2).tolist() == pytest.approx([1, 3], rel=1e-5)
    assert weighted_mean(LOSS, LABEL).item() == pytest.approx((3 * 4 + 1 + 2 + 3) / (3 + 3), rel=1e-5)


def test_only_kept_pixels_are_counted_and_averaged():
    is_kept = torch.tensor([[[True, True], [True, False]]])
    loss_map = LOSS.clone()
    loss_map[0, 1, 1] = torch.nan
    loss_map.requires_grad_()
    loss = weighted_mean(loss_map, LABEL, is_kept, 2)
    assert loss.item() == pytest.approx((2 * 4 + 1 + 2) / (2 + 2), rel=1e-5)
    loss.backward()
    assert loss_map.grad is not None
    assert loss_map.grad.flatten().tolist() == pytest.approx([0.5, 0.25, 0.25, 0], rel=1e-5)


def test_every_foreground_class_is_weighed_against_the_background():
    label = torch.tensor([[[0, 0, 0, 0], [0, 0, 1, 1], [2, 3, 3, 3], [3, 3, 3, 3]]])  # 6, 2, 1 and 7 pixels; no class 4
    assert class_weights(label, None, 5).tolist() == pytest.approx([1, 3, 6, 1, 1e6], rel=1e-5)
    means = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = (6 * 1 + 6 * 2 + 6 * 3 + 7 * 4) / (6 + 6 + 6 + 7)
    assert weighted_mean(means[label], label, None, 5).item() == pytest.approx(expected, rel=1e-5)


def test_without_foreground_it_is_the_plain_mean():
    assert weighted_mean(LOSS, torch.zeros_like(LABEL)).item() == pytest.approx(2.5)


def test_a_large_foreground_has_weight_one():
    assert weighted_mean(LOSS, 1 - LABEL).item() == pytest.approx(2.5)


def test_an_empty_kept_set_gives_zero_with_a_graph():
    loss_map = LOSS.clone().requires_grad_()
    loss = weighted_mean(loss_map, LABEL, torch.zeros_like(LABEL, dtype=torch.bool), 2)
    loss.backward()
    assert loss.item() == 0
    assert loss_map.grad is not None
    assert not loss_map.grad.any()
