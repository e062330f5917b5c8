import pytest
import torch

from dataloaders.scans.normalise import Normalisation
from models.training.average import AverageConfig
from models.training.load import load_with_encoder
from models.training.optim import OptimConfig
from models.training.state import build_state
from util.errors import CheckpointError, ConfigError
from util.runtime import checkpoint

CPU = torch.device("cpu")
ALPNET = {"method": "alpnet", "modelname": "resnet18", "encoder_weights": "none"}
PROPAGATION = {"method": "propagation", "modelname": "efficientnet_lite0", "encoder_weights": "package"}


def save(path, settings):
    content = build_state(settings, 0, OptimConfig(), AverageConfig(), Normalisation(2.0, 3.0), CPU).snapshot()
    checkpoint.save(path, content)
    return content


def test_propagation_takes_the_encoder_of_a_few_shot_checkpoint(tmp_path):
    content = save(tmp_path / "alpnet.pth", ALPNET)
    trained = load_with_encoder(tmp_path / "alpnet.pth", PROPAGATION | {"use_projection": False}, "last", CPU)
    state = trained.method.state_dict()
    assert state["encoder.localconv.weight"].equal(content["method"]["encoder.localconv.weight"])
    assert state.keys() == {key for key in content["method"] if key.startswith("encoder.")}
    assert trained.normalisation == Normalisation(2.0, 3.0)


def test_other_checkpoints_and_methods_without_an_encoder_are_refused(tmp_path):
    save(tmp_path / "dense.pth", {"method": "supervised", "unet": {"in_channels": 1, "halvings": [2, 2]}})
    with pytest.raises(CheckpointError, match="no encoder of a few-shot network"):
        load_with_encoder(tmp_path / "dense.pth", PROPAGATION | {"use_projection": False}, "last", CPU)
    with pytest.raises(ConfigError, match="nothing to load"):
        load_with_encoder(tmp_path / "dense.pth", {"method": "threshold"}, "last", CPU)
