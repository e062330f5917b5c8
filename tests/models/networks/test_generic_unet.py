"""Files with the U-Net of superpixel-guided learning and T-Loss: a network of the same layers gives the same logits."""

import pytest
import torch
from torch import nn

from models.networks.generic_unet import find_weights, read_generic_unet
from models.networks.unet import UNet


class Convolution(nn.Module):
    """One convolution with a bias, batch norm and leaky ReLU, by the names of the files."""

    def __init__(self, before, after, stride=(1, 1)):
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride, 1)
        self.instnorm = nn.BatchNorm2d(after)

    def forward(self, image):
        return nn.functional.leaky_relu(self.instnorm(self.conv(image)), 0.01)


class Stack(nn.Module):
    def __init__(self, *convolutions):
        super().__init__()
        self.blocks = nn.Sequential(*convolutions)

    def forward(self, image):
        return self.blocks(image)


class Theirs(nn.Module):
    """Levels with a stride each, the finest first; heads at every resolution."""

    def __init__(self, channels=3, n_classes=2, features=(4, 8, 12), strides=((2, 2), (1, 2))):
        super().__init__()
        before = [channels, *features]
        first = [(1, 1), *strides]
        *levels, deepest = [
            (Convolution(before[k], before[k + 1], first[k]), Convolution(before[k + 1], before[k + 1]))
            for k in range(len(features))
        ]
        bottleneck = nn.Sequential(*map(Stack, deepest))
        self.conv_blocks_context = nn.ModuleList([*(Stack(*pair) for pair in levels), bottleneck])
        upwards = range(len(strides) - 1, -1, -1)
        self.tu = nn.ModuleList(
            nn.ConvTranspose2d(features[k + 1], features[k], strides[k], strides[k], bias=False) for k in upwards
        )
        self.conv_blocks_localization = nn.ModuleList(
            nn.Sequential(
                Stack(Convolution(2 * features[k], features[k])), Stack(Convolution(features[k], features[k]))
            )
            for k in upwards
        )
        self.seg_outputs = nn.ModuleList(nn.Conv2d(features[k], n_classes, 1, bias=False) for k in upwards)

    def forward(self, image):
        skips = []
        for block in self.conv_blocks_context[:-1]:
            image = block(image)
            skips.append(image)
        image = self.conv_blocks_context[-1](image)
        for up, block, skip in zip(self.tu, self.conv_blocks_localization, reversed(skips), strict=True):
            image = block(torch.cat([up(image), skip], 1))
        return self.seg_outputs[-1](image)


def trained(**options):
    """A network whose batch norms have seen images."""
    torch.manual_seed(0)
    network = Theirs(**options)
    for norm in (each for each in network.modules() if isinstance(each, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight, 1, 0.2)
        nn.init.normal_(norm.bias, 0, 0.2)
    for _ in range(3):
        network(torch.randn(4, options.get("channels", 3), 16, 32))
    return network.eval()


@pytest.mark.parametrize(
    ("options", "halvings"),
    [
        ({}, (1, 2)),
        ({"channels": 1, "n_classes": 4, "features": (4, 8, 16, 16), "strides": ((2, 2),) * 3}, (3, 3)),
    ],
)
def test_the_same_logits(options, halvings):
    theirs = trained(**options)
    unet = read_generic_unet(theirs.state_dict())
    assert unet.config.halvings == halvings
    ours = UNet(unet.config)
    ours.load_state_dict(unet.state)
    image = torch.randn(2, options.get("channels", 3), 16, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(image), theirs(image), atol=1e-5, rtol=1e-5)


def test_weights_are_found_however_they_were_stored():
    state = trained().state_dict()
    parallel = {f"module.{name}": value for name, value in state.items()}
    for content in (state, parallel, {"net": state, "optimizer": {"state": {}}}, {"net": parallel}):
        assert list(find_weights(content) or ()) == list(state)
    for other in ({}, {"net": 3}, {"encoder.weight": torch.zeros(1)}, {"state": state, "step": 1}):
        assert find_weights(other) is None
