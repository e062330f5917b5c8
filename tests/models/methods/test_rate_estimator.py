import dataclasses
import logging
from typing import Any

import pytest
import torch

from models.methods.noisy import JoCoR, RefineConfig, SuperpixelGuided
from models.methods.peers import SelectionConfig
from models.methods.rate_estimator import RateEstimator, estimate_remember_rates
from tests.models.methods.noisy_helpers import METHODS, make, store

CPU = torch.device("cpu")


def blind(**changes):
    """Labels whose clean counterparts are unknown."""
    return dataclasses.replace(store(**changes), clean=None)


def knows(labels):
    """Predicts the clean labels of a store, in the order of its images."""
    queue = list(torch.from_numpy(labels.clean).long())

    def predict(image):
        clean = torch.stack([queue.pop(0) for _ in image])
        return torch.nn.functional.one_hot(clean, labels.n_classes).movedim(-1, 1) * 0.9 + 0.02

    return predict


@pytest.mark.parametrize("n_classes", [2, 4])
def test_networks_that_know_the_truth_give_about_the_measured_rates(n_classes, monkeypatch):
    monkeypatch.setattr("models.methods.rate_estimator.CHUNK", 4)
    labels = store(n_classes=n_classes, noise=0.05)
    rates = estimate_remember_rates(knows(labels), labels, n_classes, CPU)
    assert (rates < 1).all()
    torch.testing.assert_close(rates.float(), labels.clean_rates(), rtol=0, atol=0.08)


def test_networks_that_know_nothing_give_the_bound_and_a_warning(caplog):
    estimator = RateEstimator(2, CPU)
    label = torch.tensor([0] * 300 + [1] * 100).view(1, 20, 20)
    estimator.add(torch.tensor([0.9, 0.1]).view(1, 2, 1, 1).expand(1, 2, 20, 20), label)
    assert estimator.estimate().tolist() == pytest.approx([0.75, 0.5])
    assert "class 1: the networks agree with 25.0 % of its labels" in caplog.text
    assert "selection.estimate_after" in caplog.text
    assert "class 0" not in caplog.text


def train(method, labels, n_rounds, steps=4, lr=0.02):
    optimiser = torch.optim.Adam(method.parameters(), lr)
    batch = labels.batch(slice(None))
    logged = []
    for _ in range(n_rounds):
        for _ in range(steps):
            optimiser.zero_grad()
            method(batch)["loss"].backward()
            optimiser.step()
        logged.append(method.after_round(labels))
    return logged


def test_rates_are_estimated_after_the_warm_up_and_near_the_true_ones(caplog):
    caplog.set_level(logging.INFO)
    labels, truth = blind(), store().clean_rates()
    assert truth is not None
    method = make(JoCoR, selection=SelectionConfig(estimate_after=10)).train()
    method.before_training(labels)
    assert "unknown, there are no clean labels. They are estimated after round 10" in caplog.text
    logged = train(method, labels, 11)
    assert method.training
    assert [values["forget_1"] for values in logged[:10]] == [0] * 10
    assert [values for values in logged if "remember_1" in values] == [logged[9]]
    assert logged[10]["forget_1"] == 1 - logged[9]["remember_1"]
    assert "estimated after round 10" in caplog.text
    for value in range(2):
        assert method.remember_rates[value].item() == logged[9][f"remember_{value}"]
        assert method.remember_rates[value].item() == pytest.approx(truth[value].item(), abs=0.1)


@pytest.mark.parametrize(
    ("labels", "remember", "source"),
    [
        (store(), (0.9, 0.8), "0.9000, 0.8000; given by selection.remember"),
        (store(noise=0), None, "1.0000, 1.0000; measured against the clean labels"),
    ],
)
def test_given_or_measured_rates_are_not_estimated(labels, remember, source, caplog):
    caplog.set_level(logging.INFO)
    method = make(JoCoR, selection=SelectionConfig(remember=remember, estimate_after=1))
    method.before_training(labels)
    before = method.remember_rates.clone()
    assert "remember_0" not in method.after_round(labels)
    assert torch.equal(method.remember_rates, before)
    assert source in caplog.text


def test_no_labels_are_rewritten_before_the_estimate():
    labels = blind()
    settings = {"selection": SelectionConfig(estimate_after=4), "refine": RefineConfig(patience=1)}
    method = make(SuperpixelGuided, **settings).train()
    method.before_training(labels)
    logged = train(method, labels, 4)
    assert [values["n_refinements"] for values in logged] == [0] * 4
    method.after_round(labels)  # the first round that counts, without a gap
    assert method.n_refinements == 1


@pytest.mark.parametrize("method_type", METHODS)
def test_a_run_resumed_in_the_warm_up_estimates_the_same_rates(method_type):
    settings: dict[str, Any] = {"selection": SelectionConfig(estimate_after=3)}
    whole = make(method_type, **settings).train()
    whole.before_training(blind())
    optimiser = torch.optim.SGD(whole.parameters(), 0.05)
    other: Any = None
    for number in range(4):
        if number == 2:
            other = make(method_type, seed=1, **settings).train()
            other.load_state_dict(whole.state_dict())
            other_optimiser = torch.optim.SGD(other.parameters(), 0.05)
        for method, its in ((whole, optimiser), *([(other, other_optimiser)] if other else [])):
            its.zero_grad()
            method(blind().batch(slice(None)))["loss"].backward()
            its.step()
            method.after_round(blind())
    assert (whole.remember_rates < 1).any()
    for name, value in whole.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
