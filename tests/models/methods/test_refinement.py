import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from models.losses.refinement import correction_ratio, refine_labels
from models.losses.superpixels import superpixel_mean
from models.methods.noisy import CoTeaching, GapMonitor, RefineConfig, SuperpixelGuided
from models.methods.peers import SelectionConfig
from tests.models.methods.noisy_helpers import METHODS, make, store

FIELDS = ("image", "label", "clean", "superpixel")


def test_the_share_left_out_grows_from_round_to_round():
    method = make(CoTeaching, selection=SelectionConfig(remember=(0.9, 0.8)))
    method.before_training(None)
    rounds = [method.after_round(None) for _ in range(5)]
    assert [r["forget_1"] for r in rounds] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2])
    assert [r["forget_0"] for r in rounds] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])


def trained_on_gaps(gaps, labels, **refine):
    """A method to which each round brought a given gap, and what it logged."""
    method = make(SuperpixelGuided, refine=RefineConfig(**refine))
    method.before_training(labels)
    logged = []
    for gap in gaps:
        for change in (-0.5, 0.5):
            method.monitor.add(torch.tensor(gap + change))
        logged.append(method.after_round(labels))
    return method, logged


def test_labels_are_rewritten_once_the_gap_has_not_widened_for_five_rounds():
    labels = store()
    gaps = [1.0, 2.0, 1.5, 2.0, 1.9, 2.5, 2.4, 2.5, 2.3, 2.2, 2.1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    method, logged = trained_on_gaps(gaps, labels)
    assert [r["round_gap"] for r in logged] == pytest.approx(gaps)
    # A draw is no widening: rounds 7 to 11 are the five after the widest gap of round 6.
    assert [int(r["n_refinements"]) for r in logged] == [0] * 10 + [1] * 8
    assert "labels_changed" in logged[10]
    assert labels.n_replaced == 1
    assert method.round_number == 19


def test_labels_can_be_rewritten_again_after_another_wait():
    _, logged = trained_on_gaps([1.0, 0.5, 0.5, 0.4, 0.3, 0.3, 0.3, 0.3], store(), patience=2, max_refinements=2)
    assert [int(r["n_refinements"]) for r in logged] == [0, 0, 1, 1, 1, 2, 2, 2]


def test_a_gap_that_never_opens_counts_from_the_start():
    _, logged = trained_on_gaps([-1.0, 0.0], store(), patience=2)
    assert [int(r["n_refinements"]) for r in logged] == [0, 1]


def test_no_warm_up_after_labels_were_rewritten():
    labels = store()
    method, logged = trained_on_gaps([0.0], labels, patience=1, thr_bg=0.99, thr_fg=0.9, factor=1.1)
    rates = store().clean_rates()
    assert rates is not None
    background, foreground = rates.tolist()
    raised = [max(background, min(1.1 * background, 0.99)), max(foreground, min(1.1 * foreground, 0.9))]
    assert method.remember_rates.tolist() == pytest.approx(raised)
    assert method.forget_rates().tolist() == pytest.approx([1 - rate for rate in raised])
    assert logged[0]["forget_1"] == pytest.approx((1 - foreground) / 4)


@pytest.mark.parametrize(("thr_bg", "expected"), [(None, 0.84), (1.0, 0.88), (0.86, 0.86)])
def test_the_bound_of_the_background_can_be_that_of_the_foreground(thr_bg, expected):
    refine = RefineConfig(patience=1, thr_bg=thr_bg, thr_fg=0.84)
    method = make(SuperpixelGuided, refine=refine, selection=SelectionConfig(remember=(0.8, 0.8)))
    method.before_training(store())
    method.monitor.best.fill_(100.0)
    method.after_round(store())
    assert method.remember_rates.tolist() == pytest.approx([expected, 0.84])


@pytest.mark.parametrize("style", ["mean", "pixel"])
def test_refinement_corrects_the_labels_of_what_was_learned(style):
    labels = store(n_images=10, noise=0.1)
    method = make(SuperpixelGuided, refine=RefineConfig(patience=1, chunk=4, style=style), images_per_pass=3).train()
    method.before_training(labels)
    rates, given = method.remember_rates.clone(), labels.label
    optimiser = torch.optim.Adam(method.parameters(), lr=0.01)
    for _ in range(40):
        optimiser.zero_grad()
        method(labels.batch(slice(None)))["loss"].backward()
        optimiser.step()
    method.monitor.best.fill_(100.0)
    logged = method.after_round(labels)
    assert method.training
    assert labels.label is not given
    assert logged["labels_right_before"] == pytest.approx((given == labels.clean).mean())
    assert logged["labels_right_after"] == pytest.approx((labels.label == labels.clean).mean())
    assert logged["labels_changed"] == pytest.approx((given != labels.label).mean())
    assert logged["labels_right_after"] > logged["labels_right_before"] + 0.02
    assert (method.remember_rates >= rates).all()


def test_refinement_needs_no_clean_labels_and_leaves_the_mode():
    labels = dataclasses.replace(store(), clean=None)
    method = make(SuperpixelGuided, selection=SelectionConfig(remember=(0.9, 0.8))).eval()
    method.before_training(labels)
    assert set(method.refine(labels)) == {"labels_changed"}
    assert not method.training


@pytest.mark.parametrize("style", ["mean", "pixel"])
def test_refinement_asks_both_networks_in_evaluation_mode(style):
    labels = store(noise=0.4)
    method = make(SuperpixelGuided, refine=RefineConfig(style=style, decay=0.9)).train()
    method(labels.batch(slice(None)))  # moves the running means of the batch norm
    method.before_training(labels)
    refined = method.refined(labels)
    batch = labels.batch(slice(None))
    with torch.no_grad():
        first, second = (network.eval()(batch.image).softmax(1) for network in method.networks)
    probability = (first + second) / 2
    if style == "mean":
        assert batch.superpixel is not None
        probability = superpixel_mean(probability, batch.superpixel)
    ratio = correction_ratio(method.remember_rates, 0.9)
    np.testing.assert_array_equal(refined, refine_labels(probability, batch.label, ratio))
    assert (refined != labels.label).any()


def test_refinement_ranks_the_images_of_a_chunk_together():
    labels = store()
    proposals = {}
    for chunk in (1, 6):
        method = make(SuperpixelGuided, refine=RefineConfig(chunk=chunk, style="pixel"))
        method.before_training(labels)
        proposals[chunk] = method.refined(labels)
    alone = [dataclasses.replace(labels, **{name: getattr(labels, name)[[i]] for name in FIELDS}) for i in range(6)]
    one_by_one = np.concatenate([method.refined(image) for image in alone])
    np.testing.assert_array_equal(proposals[1], one_by_one)
    assert (proposals[1] != proposals[6]).any()


def run(method, labels, optimiser, steps):
    generator = torch.Generator().manual_seed(7)
    order = [torch.randperm(len(labels), generator=generator)[:4].numpy() for _ in range(12)]
    for n in steps:
        optimiser.zero_grad()
        method(labels.batch(order[n]))["loss"].backward()
        optimiser.step()
        if n % 3 == 2:
            method.after_round(labels)


@pytest.mark.parametrize("method_type", METHODS)
def test_resuming_in_the_middle_of_a_round_changes_nothing(method_type):
    settings: dict[str, Any] = {"refine": RefineConfig(patience=1)} if method_type is SuperpixelGuided else {}

    def fresh(seed, labels):
        method = make(method_type, seed=seed, **settings).train()
        return method, torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9), labels

    whole, optimiser, labels = fresh(0, store())
    whole.before_training(labels)
    run(whole, labels, optimiser, range(12))

    begun, optimiser, labels = fresh(0, store())
    begun.before_training(labels)
    run(begun, labels, optimiser, range(7))
    resumed, other, _ = fresh(1, labels)
    resumed.load_state_dict(begun.state_dict())
    other.load_state_dict(optimiser.state_dict())
    run(resumed, labels, other, range(7, 12))

    assert whole.state_dict().keys() == resumed.state_dict().keys()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0, msg=name)
    assert whole.round_number == 5


def test_the_state_of_a_round_is_saved():
    names = {"remember_rates", "round_number", "n_refinements"}
    names |= {f"monitor.{name}" for name in ("total", "count", "best", "n_stalled")}
    assert names <= make(SuperpixelGuided).state_dict().keys()


def test_testing_adds_nothing_to_the_running_round():
    method = make(SuperpixelGuided)
    batch = store().batch(slice(None))
    method.eval()(batch)
    assert method.monitor.count == 0
    method.train()(batch)
    assert method.monitor.count == 1


def test_the_monitor_means_over_the_round_and_starts_again():
    monitor = GapMonitor()
    monitor.add(torch.tensor(1.0))
    monitor.add(torch.tensor(4.0))
    assert monitor.close_round() == 2.5
    assert monitor.close_round() == 0.0
    assert (monitor.best, monitor.n_stalled) == (2.5, 1)
