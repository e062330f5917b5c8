import pytest
import torch
from torch import nn

from models.networks.deeplab import SegmentorConfig, build_segmentor
from models.networks.unet import UNetConfig
from util.errors import ConfigError

KINDS = {
    "deeplab": SegmentorConfig(encoder="resnet10t"),
    "deeplab_reference": SegmentorConfig("deeplab_reference", encoder="resnet10t", in_channels=3),
    "unet": SegmentorConfig("unet", unet=UNetConfig(halvings=(2, 2), base_features=4, max_features=8)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_logits_have_the_size_of_the_images_and_reach_all_weights(kind):
    torch.manual_seed(0)
    config = KINDS[kind]
    network = build_segmentor(config)
    size = (40, 52) if kind != "unet" else (40, 56)  # no multiple of 16
    logits = network(torch.rand(2, config.in_channels, *size))
    assert logits.shape == (2, 4, *size)
    logits.square().mean().backward()
    assert all(weight.grad is not None for weight in network.parameters())
    assert next(network.parameters()).grad.any()


def test_the_reference_network_sees_far_at_a_sixteenth_of_the_size():
    network = build_segmentor(SegmentorConfig("deeplab_reference"))
    stage = next(module for name, module in network.named_modules() if name.endswith("layer4"))
    middle = [m.dilation for m in stage.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert middle == [(2, 2), (4, 4), (8, 8)]
    assert network.encoder(torch.zeros(1, 1, 64, 64))[-1].shape[-2:] == (4, 4)
    assert 35e6 < sum(weight.numel() for weight in network.parameters()) < 45e6


@pytest.mark.parametrize(
    "values", [{"encoder": "resnet5o"}, {"n_classes": 1}, {"in_channels": 0}, {"dropout": 1.0}], ids=str
)
def test_impossible_networks_are_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        SegmentorConfig(**values)
