import urllib.error

import pytest
import torch

from models.networks import backbones
from models.networks.backbones import build_encoder
from util.errors import CheckpointError, ConfigError


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "dlfcn_res50", "timm:resnet10t", "timm:mobilenetv3_small_050"]
)
def test_every_encoder_has_stride_eight_and_the_asked_width(name):
    encoder = build_encoder(name, "none", channels=32)
    assert encoder(torch.randn(2, 1, 64, 48)).shape == (2, 32, 8, 6)


def test_the_dilated_resnet101_has_the_parameter_names_of_the_released_checkpoints():
    names = list(build_encoder("dlfcn_res101", "none").state_dict())
    assert sum(name.startswith("backbone.") for name in names) == 624
    assert [name for name in names if not name.startswith("backbone.")] == ["localconv.weight"]
    assert "backbone.layer4.2.bn3.running_var" in names


def test_the_mean_image_counts_three_times():
    encoder = build_encoder("resnet18", "none").eval()
    image = torch.randn(1, 1, 32, 32)
    direct = encoder.localconv(encoder.backbone(image.repeat(1, 3, 1, 1)))
    torch.testing.assert_close(encoder(image), direct)


def test_local_weights_are_loaded(tmp_path):
    source = build_encoder("resnet18", "none")
    torch.save(source.backbone.state_dict(), tmp_path / "weights.pt")
    encoder = build_encoder("resnet18", str(tmp_path / "weights.pt"))
    assert torch.equal(encoder.backbone.state_dict()["conv1.weight"], source.backbone.state_dict()["conv1.weight"])


def test_without_a_network_the_message_names_the_options(monkeypatch):
    def refuse(*_, **__):
        raise urllib.error.URLError("no route")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    with pytest.raises(CheckpointError, match=r"encoder_weights=PATH.*encoder_weights=none"):
        build_encoder("resnet18", "imagenet")


@pytest.mark.parametrize(
    ("name", "weights", "message"),
    [
        ("resnet19", "none", "expected one of dlfcn_res50"),
        ("timm:resnet10x", "none", "similar: .*resnet"),
        ("timm:vit_tiny_patch16_224", "none", "one of 8 is needed"),
        ("resnet18", "coco", "exists for dlfcn_res50"),
        ("resnet18", "nowhere.pt", "an existing file"),
    ],
)
def test_impossible_choices_are_named(name, weights, message):
    with pytest.raises(ConfigError, match=message):
        build_encoder(name, weights)


def test_foreign_weights_are_refused(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="entries missing"):
        build_encoder("resnet18", str(tmp_path / "other.pt"))
    (tmp_path / "text.pt").write_text("nothing")
    with pytest.raises(CheckpointError, match="not a readable state dict"):
        backbones.build_encoder("resnet18", str(tmp_path / "text.pt"))
