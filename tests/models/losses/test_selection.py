import math

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode

from models.losses.selection import (
    CERTAIN,
    approximate_rates,
    ce_map,
    class_bounds,
    forget_rate,
    jocor_score,
    kl_map,
    small_loss_selection,
    smoothed_log_probability,
)


@pytest.fixture(scope="module")
def golden(golden_file):
    return golden_file("noisy/sp_guided.npz")


@pytest.fixture(scope="module")
def log_probability(golden):
    return [torch.from_numpy(golden[f"logits{i}"]).log_softmax(1) for i in (1, 2, 3)]


@pytest.fixture(scope="module")
def noisy(golden):
    return torch.from_numpy(golden["noisy"]).long()


@pytest.fixture(scope="module")
def forget(golden):
    return torch.from_numpy(golden["forget_rate_bg_fg"])


def test_maps_equal_the_reference(golden, log_probability, noisy):
    for i, log_p in enumerate(log_probability, start=1):
        np.testing.assert_allclose(ce_map(log_p, noisy), golden[f"ce_map{i}"], atol=2e-6)
    one, two, _ = log_probability
    np.testing.assert_allclose(kl_map(one, two), golden["kl_a1_b2"], rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(kl_map(two, one), golden["kl_a2_b1"], rtol=1e-5, atol=2e-6)


def test_smoothed_maps_equal_the_reference(golden, log_probability, noisy):
    superpixel = torch.from_numpy(golden["superpixel"])
    one, two = (smoothed_log_probability(x, superpixel) for x in log_probability[:2])
    np.testing.assert_allclose(ce_map(one, noisy), golden["sp_ce_map1"], rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(ce_map(two, noisy), golden["sp_ce_map2"], rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(kl_map(one, two), golden["kl_sp_a1_b2"], rtol=1e-5, atol=5e-6)
    np.testing.assert_allclose(kl_map(two, one), golden["kl_sp_a2_b1"], rtol=1e-5, atol=5e-6)


def test_selection_by_each_score_equals_the_reference(golden, log_probability, noisy, forget):
    one, two, _ = log_probability
    superpixel = torch.from_numpy(golden["superpixel"])
    smooth_one, smooth_two = (smoothed_log_probability(x, superpixel) for x in (one, two))
    scores = {
        "sel_coteach_1": ce_map(one, noisy),
        "sel_coteach_2": ce_map(two, noisy),
        "sel_jocor_pixel": jocor_score(one, two, noisy, 0.65),
        "sel_jocor_superpixel": jocor_score(smooth_one, smooth_two, noisy, 0.65),
    }
    for name, score in scores.items():
        np.testing.assert_array_equal(small_loss_selection(score, noisy, forget), golden[name], err_msg=name)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_selection_keeps_exactly_n_minus_k_of_each_class_without_ties(n_classes):
    generator = torch.Generator().manual_seed(n_classes)
    score = torch.randperm(3 * 20 * 20, generator=generator).view(3, 20, 20).float()
    label = torch.randint(0, n_classes, (3, 20, 20), generator=generator)
    share = torch.linspace(0.05, 0.8, n_classes, dtype=torch.float64)
    kept = small_loss_selection(score, label, share)
    for value in range(n_classes):
        n = int((label == value).sum())
        of_class = kept[label == value]
        assert int(of_class.sum()) == n - int(float(share[value]) * n)
        assert score[label == value][of_class].max() < score[label == value][~of_class].min()


def test_bounds_worked_by_hand():
    score = torch.tensor([[[5.0, 1.0, 4.0, 2.0, 3.0, 9.0]]])
    label = torch.tensor([[[0, 0, 0, 0, 0, 2]]])
    kth, smallest = class_bounds(score, label, torch.tensor([0.4, 0.4, 0.4]).double())
    assert kth.tolist() == [4.0, math.inf, math.inf]
    assert smallest.tolist() == [1.0, math.inf, 9.0]


def test_shares_are_rounded_as_written():
    """0.29 * 100 is 28.999999999999996 in double precision: 28 go, as in the reference."""
    kept = small_loss_selection(
        torch.arange(100.0).view(1, 10, 10), torch.zeros(1, 10, 10).long(), torch.tensor([0.29, 0.5]).double()
    )
    assert int(kept.sum()) == 72


def test_equal_scores_at_the_threshold_go_together():
    score = torch.tensor([[[1.0, 2.0, 2.0, 2.0, 3.0]]])
    kept = small_loss_selection(score, torch.zeros(1, 1, 5).long(), torch.tensor([0.4, 0.0]).double())
    assert kept.tolist() == [[[True, False, False, False, False]]]


def test_nothing_to_leave_out_keeps_all_even_what_is_not_finite():
    score = torch.tensor([[[1.0, math.nan, math.inf, 2.0]]])
    kept = small_loss_selection(score, torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([0.4, 0.4]).double())
    assert kept.all()


def test_scores_that_are_not_finite_count_as_the_largest():
    score = torch.tensor([[[1.0, math.nan, 2.0, math.inf, 3.0]]])
    kept = small_loss_selection(score, torch.zeros(1, 1, 5).long(), torch.tensor([0.4, 0.4]).double())
    assert kept.tolist() == [[[True, False, True, False, True]]]


def test_a_class_of_which_nothing_would_be_left_is_kept_whole():
    score = torch.tensor([[[1.0, 2.0, 7.0, 7.0]]])
    kept = small_loss_selection(score, torch.tensor([[[0, 0, 1, 1]]]), torch.tensor([0.5, 0.5]).double())
    assert kept.tolist() == [[[True, False, True, True]]]
    assert small_loss_selection(score, torch.zeros(1, 1, 4).long(), torch.ones(2).double()).all()


def test_certain_superpixels_give_finite_scores():
    certain = torch.tensor([0.0, -200.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    smoothed = smoothed_log_probability(certain, torch.zeros(1, 4, 4).long())
    assert smoothed[0, 1, 0, 0].item() == pytest.approx(math.log(CERTAIN), abs=1e-5)
    assert jocor_score(smoothed, smoothed.flip(1), torch.ones(1, 4, 4).long(), 0.65).isfinite().all()


def test_nothing_waits_for_the_device():
    """Tensors without values would betray any read-back and any shape that depends on values."""
    with FakeTensorMode():
        log_p = torch.randn(2, 3, 8, 8).log_softmax(1)
        label = torch.randint(0, 3, (2, 8, 8))
        smoothed = smoothed_log_probability(log_p, label)
        forget = forget_rate(torch.tensor(3), torch.ones(3, dtype=torch.float64), 5)
        assert small_loss_selection(jocor_score(log_p, smoothed, label, 0.65), label, forget).shape == (2, 8, 8)
        with pytest.raises(DynamicOutputShapeException):
            label[label > 0]


@pytest.mark.parametrize(("value", "name", "rate"), [(0, "bg", "0.9796"), (1, "fg", "0.9335")])
def test_forget_rates_equal_the_reference(golden, value, name, rate):
    rates = torch.ones(2, dtype=torch.float64)
    rates[value] = float(rate)
    schedule = torch.stack([forget_rate(e, rates) for e in range(201)])
    np.testing.assert_allclose(schedule[:, value], golden[f"forget_sched_{name}_R{rate}"], atol=1e-12)
    assert (schedule[:, 1 - value] == 0).all()


@pytest.mark.parametrize(
    ("warmup", "expected"), [(0, [0.4, 0.4, 0.4]), (1, [0.0, 0.4, 0.4]), (2, [0.0, 0.4, 0.4]), (3, [0.0, 0.2, 0.4])]
)
def test_short_warm_ups(warmup, expected):
    rates = torch.tensor([0.6]).double()
    assert [forget_rate(torch.tensor(e), rates, warmup).item() for e in range(3)] == pytest.approx(expected)


def test_approximate_rates_are_near_the_published():
    background, foreground = approximate_rates(alpha=0.3, beta=0.5, foreground_share=0.21)
    assert foreground == pytest.approx(0.925)
    assert background == pytest.approx(0.9796, abs=0.001)
