import pytest
import torch

from dataloaders.scans.normalise import Normalisation
from models.methods.supervised import Supervised
from models.training.average import AverageConfig
from models.training.load import load_trained
from models.training.optim import OptimConfig
from models.training.state import build_state
from util.errors import CheckpointError
from util.runtime import checkpoint

CPU = torch.device("cpu")
SETTINGS = {"method": "supervised", "unet": {"in_channels": 1, "halvings": [2, 2], "base_features": 4}}


def snapshot(**settings):
    state = build_state(SETTINGS, 0, OptimConfig(), AverageConfig(), Normalisation(), CPU)
    content = state.snapshot()
    return content | {"settings": content["settings"] | settings}


@pytest.mark.parametrize("name", ["supervised", "baseline"])
def test_a_snapshot_is_loaded_under_the_present_and_the_former_name_of_its_method(tmp_path, name):
    content = snapshot(method=name)
    checkpoint.save(tmp_path / "snapshot.pth", content)
    for weights in ("last", "ema"):
        trained = load_trained(tmp_path / "snapshot.pth", SETTINGS, weights, CPU)
        assert isinstance(trained.method, Supervised)
        assert all(value.equal(content["method"][key]) for key, value in trained.method.state_dict().items())


def test_averaged_weights_that_are_not_there_are_an_error(tmp_path):
    content = snapshot()
    del content["ema"]
    checkpoint.save(tmp_path / "snapshot.pth", content)
    load_trained(tmp_path / "snapshot.pth", SETTINGS, "last", CPU)
    with pytest.raises(CheckpointError, match=r"no averaged weights.*use weights=last"):
        load_trained(tmp_path / "snapshot.pth", SETTINGS, "ema", CPU)
