from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from models.networks.backbones import load_timm_weights
from models.networks.deeplab import SegmentorConfig, build_segmentor
from models.networks.unet import UNetConfig
from util.errors import CheckpointError, ConfigError

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
    first = next(network.parameters()).grad
    assert first is not None
    assert first.any()


def test_the_reference_network_sees_far_at_a_sixteenth_of_the_size():
    network: Any = build_segmentor(SegmentorConfig("deeplab_reference"))
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


def test_the_default_network_has_its_published_size_and_stem():
    network = build_segmentor(SegmentorConfig())
    assert sum(weight.numel() for weight in network.parameters()) == pytest.approx(26.8e6, rel=1e-3)
    first = [m for m in network.modules() if isinstance(m, nn.Conv2d)][:3]
    assert [(m.in_channels, m.out_channels) for m in first] == [(1, 64), (64, 64), (64, 128)]
    assert {m.kernel_size for m in first} == {(3, 3)}


@pytest.fixture(scope="module")
def rgb_weights():
    torch.manual_seed(1)
    return timm.create_model("resnet10t").state_dict()  # of colour images, with a classifier


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("kind", ["deeplab", "deeplab_reference"])
def test_pretrained_kernels_are_summed_over_colours(tmp_path, rgb_weights, kind, suffix):
    path = tmp_path / f"weights{suffix}"
    if suffix == ".pth":
        torch.save(rgb_weights, path)
    else:
        save_file(rgb_weights, path)
    network = build_segmentor(SegmentorConfig(kind, encoder="resnet10t"), str(path))
    found = {name.partition("encoder.model.")[2]: value for name, value in network.state_dict().items()}
    torch.testing.assert_close(found["conv1.0.weight"], rgb_weights["conv1.0.weight"].sum(1, keepdim=True))
    torch.testing.assert_close(found["layer4.0.conv1.weight"], rgb_weights["layer4.0.conv1.weight"])
    colour = build_segmentor(SegmentorConfig(kind, 3, encoder="resnet10t"), str(path)).state_dict()
    name = next(name for name in colour if name.endswith("conv1.0.weight"))
    torch.testing.assert_close(colour[name], rgb_weights["conv1.0.weight"])


def test_unsuitable_pretrained_weights_are_refused(tmp_path, rgb_weights, monkeypatch):
    config = SegmentorConfig(encoder="resnet18")
    with pytest.raises(ConfigError, match="imagenet, none, or an existing file"):
        build_segmentor(config, "coco")
    torch.save(rgb_weights, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="not the backbone of resnet18"):
        build_segmentor(config, str(tmp_path / "other.pth"))
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="not a readable state dict"):
        build_segmentor(config, str(tmp_path / "torn.safetensors"))
    with pytest.raises(ConfigError, match=r"timm has none for network.encoder='resnet200'"):
        build_segmentor(SegmentorConfig(encoder="resnet200"), "imagenet")

    def fails(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("models.networks.deeplab.timm.create_model", fails)
    with pytest.raises(CheckpointError, match=r"resnet18: its pretrained weights.*encoder_weights=none"):
        load_timm_weights(nn.Identity(), "resnet18", 1, "imagenet")


def test_the_unet_starts_from_random_weights():
    assert build_segmentor(KINDS["unet"], "imagenet")
