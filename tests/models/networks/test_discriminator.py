import pytest
import torch
from torch import nn

from models.networks.discriminator import PatchDiscriminator
from util.errors import ConfigError


@pytest.mark.parametrize(("size", "expected"), [((512, 512), (16, 16)), ((64, 96), (2, 3)), ((32, 32), (1, 1))])
def test_patches_of_a_thirty_second(size, expected):
    assert PatchDiscriminator(4, 2)(torch.rand(1, 4, *size)).shape == (1, 1, *expected)


def test_layers_are_the_published_ones():
    layers = list(PatchDiscriminator(2))
    convolutions = layers[::2]
    assert [type(each) for each in layers] == [nn.Conv2d, nn.LeakyReLU] * 4 + [nn.Conv2d]
    widths = [(each.in_channels, each.out_channels) for each in convolutions if isinstance(each, nn.Conv2d)]
    assert widths == [(2, 64), (64, 128), (128, 256), (256, 512), (512, 1)]
    assert {each.negative_slope for each in layers if isinstance(each, nn.LeakyReLU)} == {0.2}


def test_smaller_views_are_refused():
    with pytest.raises(ConfigError, match="31 x 40 px; discriminators need at least 32"):
        PatchDiscriminator(1)(torch.rand(1, 1, 31, 40))
