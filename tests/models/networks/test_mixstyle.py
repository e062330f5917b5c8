import copy

import pytest
import torch
from scipy.stats import beta
from torch import nn

from models.networks.deeplab import SegmentorConfig, build_segmentor
from models.networks.mixstyle import MixStyle, MixStyleConfig, beta_quantile, encoder_stages, mix_statistics
from models.networks.unet import UNetConfig
from util.errors import ConfigError

UNET = SegmentorConfig("unet", unet=UNetConfig(halvings=(2, 2), base_features=4, max_features=8))


def test_an_image_takes_the_statistics_of_its_neighbour():
    torch.manual_seed(0)
    features = torch.randn(3, 2, 8, 8) * torch.rand(3, 2, 1, 1) + torch.randn(3, 2, 1, 1)
    mixed = mix_statistics(features, torch.tensor([0.0, 1.0, 0.5]))
    torch.testing.assert_close(mixed[1], features[1])
    torch.testing.assert_close(mixed[0].mean((1, 2)), features[2].mean((1, 2)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(mixed[0].std((1, 2)), features[2].std((1, 2)), atol=1e-4, rtol=1e-4)
    expected = (features[2].mean((1, 2)) + features[1].mean((1, 2))) / 2
    torch.testing.assert_close(mixed[2].mean((1, 2)), expected, atol=1e-5, rtol=1e-5)


def test_statistics_carry_no_gradient():
    features = torch.randn(2, 3, 4, 4, requires_grad=True)
    mix_statistics(features, torch.tensor([1.0, 1.0])).sum().backward()
    torch.testing.assert_close(features.grad, torch.ones_like(features))


def test_half_precision_stays():
    features = torch.randn(2, 3, 4, 4).bfloat16()
    assert mix_statistics(features, torch.rand(2)).dtype == torch.bfloat16


@pytest.mark.parametrize(("alpha", "error"), [(0.1, 0.03), (0.5, 0.1), (1.0, 1e-6)])
def test_the_quantile_is_nearly_that_of_the_beta_distribution(alpha, error):
    probability = torch.linspace(0, 1, 201, dtype=torch.float64)
    value = beta_quantile(probability, alpha)
    assert (value.diff() >= 0).all()
    found = torch.from_numpy(beta.cdf(value.numpy(), alpha, alpha))
    assert (found - probability).abs().max() < error
    torch.testing.assert_close(value + value.flip(0), torch.ones_like(value))


def test_an_image_is_mixed_with_the_given_probability():
    uniform = torch.tensor([[0.2, 0.3, 0.5, 0.9], [0.8, 0.3, 0.5, 0.9]])
    share = MixStyleConfig(probability=0.5).shares(uniform)
    torch.testing.assert_close(share[0], beta_quantile(uniform[0, 1:], 0.1))
    assert share[1].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("config", "channels"),
    [
        (SegmentorConfig(encoder="resnet10t"), [64, 128, 256]),
        (SegmentorConfig("deeplab_reference", encoder="resnet10t"), [64, 128, 256]),
        (UNET, [4, 8, 8]),
    ],
    ids=["deeplab", "deeplab_reference", "unet"],
)
def test_the_first_stages_of_every_segmentor_are_found_and_mixed(config, channels):
    torch.manual_seed(0)
    network = build_segmentor(config).eval()
    names, found = list(network.state_dict()), []
    for stage in encoder_stages(network):
        stage.register_forward_hook(lambda module, inputs, output: found.append(output.shape[1]))
    mixer, image = MixStyle(network, 3), torch.rand(2, 1, 32, 32)
    plain = network(image)
    assert found == channels
    assert list(network.state_dict()) == names
    with mixer.mixing(torch.ones(2, 3)):
        torch.testing.assert_close(network(image), plain)
    share = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    with mixer.mixing(share):
        assert not torch.allclose(network(image)[0], plain[0])
        assert not torch.allclose(copy.deepcopy(network)(image)[0], plain[0])
    torch.testing.assert_close(network(image), plain)


def test_fewer_stages():
    network = build_segmentor(UNET)
    MixStyle(network, 1)
    assert [len(stage._forward_hooks) for stage in encoder_stages(network)] == [1, 0, 0]


def test_other_networks_are_refused():
    with pytest.raises(ConfigError, match="ResNet encoder or a U-Net"):
        MixStyle(nn.Conv2d(1, 1, 1), 3)
