import pytest
import torch
from torch import nn

from models.networks.unet import UNetConfig, build_unet, halvings_of
from util.errors import ConfigError

SMALL = UNetConfig(in_channels=1, n_classes=3, halvings=(1, 2), base_features=4, max_features=12)


# Parameters of the reference, its unused heads included.
@pytest.mark.parametrize(
    ("in_channels", "halvings", "reference"),
    [(3, (5, 5), 18_670_368), (1, (6, 6), 29_966_112), (1, (4, 5), 18_208_992)],
)
def test_parameters_are_those_of_the_reference_but_for_idle_ones(in_channels, halvings, reference):
    config = UNetConfig(in_channels=in_channels, halvings=halvings)
    with torch.device("meta"):
        network = build_unet(config)
    features = config.features
    idle_biases = 2 * sum(features) + 2 * sum(features[:-1])  # of two convolutions a stage, down and up
    unused_heads, head_bias = 2 * sum(features[1:-1]), 2
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count == reference - idle_biases - unused_heads + head_bias


def test_stages_are_those_of_the_reference():
    network = build_unet(SMALL)
    convolutions = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert SMALL.features == (4, 8, 12)
    assert [c.stride for c in convolutions if c.stride != (1, 1)] == [(2, 2), (1, 2)]
    ups = [module for module in network.modules() if isinstance(module, nn.ConvTranspose2d)]
    assert sorted((up.in_channels, up.out_channels, up.kernel_size, up.stride) for up in ups) == [
        (8, 4, (2, 2), (2, 2)),
        (12, 8, (1, 2), (1, 2)),
    ]
    assert all(up.bias is None for up in ups)
    slopes = {module.negative_slope for module in network.modules() if isinstance(module, nn.LeakyReLU)}
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert slopes == {0.01}
    assert len(norms) == 2 * 3 + 2 * 2
    assert {norm.eps for norm in norms} == {1e-5}


def test_weights_start_as_in_the_reference():
    torch.manual_seed(0)
    network = build_unet(UNetConfig(halvings=(2, 2)))
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            fan_in = module.weight[0].numel()
            assert module.weight.std().item() == pytest.approx((2 / (1 + 0.01**2) / fan_in) ** 0.5, rel=0.1)
            assert module.bias is None
    assert not network.get_parameter("head.conv.conv.bias").any()


def test_logits_have_the_size_of_the_image_and_gradients_reach_every_weight():
    network = build_unet(SMALL)
    logits = network(torch.randn(2, 1, 8, 12))
    assert logits.shape == (2, 3, 8, 12)
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_no_weight_is_saved_twice():
    network = build_unet(SMALL)
    assert {name for name, _ in network.named_parameters()} < set(network.state_dict())
    pointers = [value.data_ptr() for value in network.state_dict().values()]
    assert len(set(pointers)) == len(pointers)


@pytest.mark.parametrize(
    ("rows", "columns", "expected"),
    [(256, 256, (6, 6)), (128, 128, (5, 5)), (96, 224, (4, 5)), (16, 8, (2, 1)), (7, 3, (0, 0))],
)
def test_halvings_of_an_image(rows, columns, expected):
    assert halvings_of(rows, columns) == expected


def test_ill_fitting_images_are_refused_with_a_remedy():
    network = build_unet(SMALL)
    with pytest.raises(ConfigError, match=r"unet.halvings=\(1, 2\): the images have 7 x 10 .* Prepare them at 8 x 12"):
        network(torch.zeros(2, 1, 7, 10))
    with pytest.raises(ConfigError, match=r"unet.in_channels=1: the images have 3 channels; set unet.in_channels=3"):
        network(torch.zeros(2, 3, 8, 12))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_channels": 0}, "in_channels=0"),
        ({"n_classes": 1}, "n_classes=1: expected a value from 2"),
        ({"halvings": (1, 1)}, r"halvings=\(1, 1\)"),
        ({"halvings": (-1, 4)}, r"halvings\[0\]=-1"),
        ({"base_features": 0}, "base_features=0"),
        ({"max_features": 16}, "max_features=16"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        UNetConfig(**settings)
