import pytest
import torch

from dataloaders.scans.normalise import Normalisation
from models.training.average import AverageConfig
from models.training.state import OptimConfig, make_learner
from util.runtime import checkpoint

CPU = torch.device("cpu")
SETTINGS = {"method": "alpnet", "modelname": "resnet18", "encoder_weights": "none"}


def learner(optim, channels_last):
    return make_learner(SETTINGS, 0, optim, AverageConfig(), Normalisation(), CPU, channels_last=channels_last)


def take_steps(learner, number):
    """Steps along gradients that depend on the weights alone."""
    for _ in range(number):
        for weight in learner.method.parameters():
            weight.grad = torch.empty_like(weight).copy_(weight.detach().sin())
        learner.optimisers["main"].step()
        learner.averaged.update(learner.method)


@pytest.mark.parametrize("optim", [OptimConfig("sgd", 0.1), OptimConfig("adam", 0.1)], ids=lambda optim: optim.name)
@pytest.mark.parametrize(("first", "then"), [("off", "on"), ("on", "off")])
def test_training_goes_on_in_another_memory_order(tmp_path, optim, first, then):
    unbroken, broken, other = (learner(optim, order) for order in (first, first, then))
    take_steps(unbroken, 5)
    take_steps(broken, 3)
    checkpoint.save(tmp_path / "checkpoint.pt", broken.state())
    other.restore(checkpoint.load(tmp_path / "checkpoint.pt"))
    take_steps(other, 2)
    weight = other.method.get_parameter("encoder.backbone.layer1.0.conv1.weight")
    assert weight.is_contiguous(memory_format=torch.channels_last) == (then == "on")
    expected = unbroken.method.state_dict()
    for name, value in other.method.state_dict().items():
        torch.testing.assert_close(value, expected[name], msg=lambda text, name=name: f"{name}: {text}")
    fresh = learner(optim, "off").method.get_parameter("encoder.backbone.layer1.0.conv1.weight")
    assert (weight - fresh).abs().mean() > 0.01


def test_weights_and_averages_lie_in_the_order_asked_for():
    for order in ("on", "off"):
        made = learner(OptimConfig(), order)
        for method in (made.method, made.averaged.module):
            weight = method.get_parameter("encoder.backbone.layer1.0.conv1.weight")
            assert weight.is_contiguous(memory_format=torch.channels_last) == (order == "on")
