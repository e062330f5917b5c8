from typing import Any

import pytest
import torch
from torch import nn

from dataloaders.description import ClassSpec, DatasetSpec
from dataloaders.scans.normalise import Normalisation
from models.methods.base import Method
from models.training import state as state_module
from models.training.average import AverageConfig
from models.training.optim import OptimConfig
from models.training.state import build_state
from util.runtime import checkpoint

CPU = torch.device("cpu")
SETTINGS = {"method": "alpnet", "modelname": "resnet18", "encoder_weights": "none"}
WEIGHT = "encoder.backbone.layer1.0.conv1.weight"


def fresh(optim, channels_last: Any = "off"):
    return build_state(SETTINGS, 0, optim, AverageConfig(), Normalisation(), CPU, channels_last=channels_last)


def take_steps(state, number):
    """Steps along gradients that depend on the weights alone."""
    for _ in range(number):
        for weight in state.method.parameters():
            weight.grad = torch.empty_like(weight).copy_(weight.detach().sin())
        state.optimisers.step(state.step)
        state.average.update(state.method)


@pytest.mark.parametrize("optim", [OptimConfig("sgd", 0.1), OptimConfig("adam", 0.1)], ids=lambda optim: optim.name)
@pytest.mark.parametrize(("first", "then"), [("off", "on"), ("on", "off")])
def test_a_run_is_resumed_in_another_memory_order(tmp_path, optim, first, then):
    unbroken, broken, other = (fresh(optim, order) for order in (first, first, then))
    take_steps(unbroken, 5)
    take_steps(broken, 3)
    broken.save(tmp_path / "checkpoint.pt")
    other.load_state_dict(checkpoint.load(tmp_path / "checkpoint.pt"))
    take_steps(other, 2)
    weight = other.method.get_parameter(WEIGHT)
    assert weight.is_contiguous(memory_format=torch.channels_last) == (then == "on")
    expected = unbroken.method.state_dict()
    for name, value in other.method.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=lambda text, name=name: f"{name}: {text}")
    assert (weight - fresh(optim).method.get_parameter(WEIGHT)).abs().mean() > 0.01


def test_weights_and_averages_have_the_requested_memory_order():
    for order in ("on", "off"):
        state = fresh(OptimConfig(), order)
        assert state.average
        for method in (state.method, state.average.module):
            weight = method.get_parameter(WEIGHT)
            assert weight.is_contiguous(memory_format=torch.channels_last) == (order == "on")


class Run:
    """Records what is logged, as a Sacred run does."""

    def __init__(self):
        self.logged = []

    def log_scalar(self, name, value, step):
        self.logged.append((name, value, step))


def test_metrics_are_logged_under_both_names_and_replayed_after_a_restart():
    run, again, state = Run(), Run(), fresh(OptimConfig())
    state.step = 7
    state.log({"train/query_ce": 0.5, "val/dice": 1.0}, run)
    assert run.logged == [("train/query_ce", 0.5, 7), ("loss", 0.5, 7), ("val/dice", 1.0, 7)]
    other = fresh(OptimConfig())
    other.load_state_dict(state.state_dict())
    other.replay_log(again)
    assert again.logged == run.logged


def test_the_description_of_the_data_is_saved():
    spec = DatasetSpec("mine", "scans", classes=(ClassSpec("cyst", value=7),))
    state = build_state(SETTINGS, 0, OptimConfig(), AverageConfig(), Normalisation(), CPU, spec=spec)
    for content in (state.snapshot(), state.state_dict()):
        assert DatasetSpec.from_dict(content["dataset"]) == spec
    assert fresh(OptimConfig()).snapshot()["dataset"] is None


class Parts(Method):
    """A method that averages one of its two parts, or nothing."""

    batch_type = None

    def __init__(self, averages: bool):
        super().__init__()
        self.student, self.critic = nn.Linear(1, 1), nn.Linear(1, 1)
        self.averages = averages

    def averaged(self):
        return self.student if self.averages else None

    def forward(self, batch):
        return {}

    def probabilities(self, case, support=None):
        raise NotImplementedError


def state_of(monkeypatch, averages) -> Any:
    monkeypatch.setattr(state_module, "build_method", lambda settings: Parts(averages))
    return build_state({}, 0, OptimConfig(), AverageConfig(0.5, 1), Normalisation(), CPU)


def test_averaged_weights_of_a_part_are_saved_among_the_others(monkeypatch):
    state = state_of(monkeypatch, averages=True)
    for value in (1.0, 2.0):
        for parameter in state.method.parameters():
            parameter.data.fill_(value)
        state.average.update(state.method.averaged())
    weights = state.snapshot()["ema"]
    assert weights.keys() == state.method.state_dict().keys()
    average = 2 / 11 * 1 + 9 / 11 * 2
    assert [weights[f"{name}.bias"].item() for name in ("student", "critic")] == pytest.approx([average, 2])
    other = state_of(monkeypatch, averages=True)
    other.load_state_dict(state.state_dict())
    assert other.average.module.bias.item() == pytest.approx(average)
    assert other.average.count == 2


def test_a_method_that_averages_nothing_has_no_such_weights(monkeypatch):
    state = state_of(monkeypatch, averages=False)
    assert state.average is None
    assert "ema" not in state.state_dict()
    state_of(monkeypatch, averages=False).load_state_dict(state.state_dict())
