"""Batch norms folded into convolutions: the same output, and the network itself where that is not so."""

import pytest
import torch
from torch import nn

from models.networks.backbones import build_encoder
from models.networks.folding import FoldedForm, folded


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def with_statistics(network):
    """The network in evaluation mode, its batch norms with statistics and weights that do something."""
    for norm in norms(network):
        for name, value in norm.state_dict().items():
            if name in ("running_mean", "bias"):
                value.normal_(std=0.1)
            elif name in ("running_var", "weight"):
                value.uniform_(0.5, 2)
    return network.eval()


def norms(network):
    return [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", ["efficientnet_lite0", "resnet18", "dlfcn_res50"])
def test_every_norm_of_an_encoder_is_folded_and_its_output_stays(name):
    network, image = with_statistics(build_encoder(name, "none")), torch.randn(2, 1, 64, 72)
    fast = folded(network, image[:1])
    assert norms(network)
    assert not norms(fast)
    with torch.no_grad():
        expected = network(image)
        torch.testing.assert_close(fast(image), expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


class CalledInAnotherOrder(nn.Module):
    """Its norm comes before the convolution, though it is registered after it."""

    def __init__(self):
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, image):
        return self.convolution(self.norm(image))


def test_a_network_that_calls_its_modules_in_another_order_stays_as_it_is():
    network = with_statistics(CalledInAnotherOrder())
    assert folded(network, torch.randn(1, 3, 8, 8)) is network


def test_norms_that_follow_the_batch_are_not_folded():
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).train()
    assert norms(folded(network, torch.randn(2, 1, 8, 8)))


def test_the_folded_form_is_kept_until_the_weights_change():
    network, image, form = (
        with_statistics(nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))),
        torch.ones(1, 1, 4, 4),
        FoldedForm(),
    )
    first = form.of(network, image)
    assert form.of(network, image) is first
    network.load_state_dict({name: 2 * value for name, value in network.state_dict().items()})
    assert form.of(network, image) is not first
    torch.testing.assert_close(form.of(network, image)(image), network(image))
