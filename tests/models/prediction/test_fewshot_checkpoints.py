"""Few-shot prediction with the checkpoint of a trained network: what it says of data and preparation."""

import numpy as np
import pytest
import torch

from dataloaders.catalog import dataset
from dataloaders.description import DatasetSpec, GridRule, IntensityRule
from dataloaders.samples import Volume
from dataloaders.scans.normalise import Normalisation
from dataloaders.scans.preprocess import parameters_of
from models.methods.alpnet import ALPNet
from models.prediction.fewshot import FewShotPredictor
from models.training.average import AverageConfig
from models.training.optim import OptimConfig
from models.training.state import build_state
from util.errors import CheckpointError, ConfigError
from util.runtime import checkpoint

CHAOST2 = dataset("CHAOST2")
SETTINGS = {"method": "alpnet", "modelname": "resnet18", "encoder_weights": "none", "temperature": 5.0}


@pytest.fixture
def write_checkpoint(tmp_path):
    """Writes the snapshot of an untrained network whose averaged weights are others."""

    def write(dataset, normalisation, preparation=None):
        settings = SETTINGS | {"dataset": dataset}
        state = build_state(
            settings, 0, OptimConfig(), AverageConfig(), normalisation, torch.device("cpu"), preparation
        )
        assert state.average
        for parameter in state.average.module.parameters():
            parameter.data.mul_(2)
        checkpoint.save(tmp_path / "snapshot.pth", state.snapshot())
        return tmp_path / "snapshot.pth"

    return write


def test_a_checkpoint_says_how_to_prepare_and_normalise(write_checkpoint):
    path = write_checkpoint("SABS", Normalisation(80.0, 60.0))
    last = FewShotPredictor.from_checkpoint(path, device="cpu")
    assert last.parameters.window_hu == (-125, 275)
    assert last.parameters.size_px == 256
    assert last.normalisation == Normalisation(80.0, 60.0)
    assert isinstance(last.segmenter.method, ALPNet)
    assert last.segmenter.method.config.temperature == 5
    assert not last.segmenter.method.training
    averaged = FewShotPredictor.from_checkpoint(path, "ema", "cpu", dataset="sabs")
    weight, twice = (p.segmenter.method.get_parameter("encoder.localconv.weight") for p in (last, averaged))
    torch.testing.assert_close(twice, 2 * weight)
    with pytest.raises(ConfigError, match="trained on SABS, not on chaost2"):
        FewShotPredictor.from_checkpoint(path, dataset="chaost2")


def test_the_description_in_a_checkpoint_comes_first(write_checkpoint):
    path = write_checkpoint("CHAOST2", Normalisation())
    own = DatasetSpec("mine", "scans", grid=GridRule(size_px=64), intensity=IntensityRule(window=(0.0, 9.0)))
    checkpoint.save(path, checkpoint.load(path) | {"dataset": own.to_dict()})
    predictor = FewShotPredictor.from_checkpoint(path, device="cpu")
    assert predictor.spec == own
    assert (predictor.parameters.size_px, predictor.parameters.window_hu) == (64, (0.0, 9.0))
    with pytest.raises(ConfigError, match="trained on mine, not on chaost2"):
        FewShotPredictor.from_checkpoint(path, dataset="chaost2")


def test_untrained_network_end_to_end_twice_the_same(write_checkpoint):
    path = write_checkpoint("CHAOST2", Normalisation(), parameters_of(CHAOST2, 64).to_json())
    rng, label = np.random.default_rng(0), np.zeros((12, 40, 40), np.uint8)
    label[3:9, 10:24, 12:30] = 1
    affine = np.diag([-8.0, 8.0, 16.0, 1.0])  # size of a body
    image = Volume((200 + 100 * label + rng.normal(0, 10, label.shape)).astype(np.float32), affine)
    results = []
    for _ in range(2):
        predictor = FewShotPredictor.from_checkpoint(path, device="cpu")
        assert predictor.parameters.size_px == 64
        predictor.set_support(image, Volume(label, affine))
        results.append(predictor.predict(image).array)
    assert results[0].any()
    np.testing.assert_array_equal(*results)


def test_released_checkpoints_must_be_told_about(tmp_path):
    path = tmp_path / "100000.pth"
    state = build_state(SETTINGS, 0, OptimConfig(), AverageConfig(), Normalisation(), torch.device("cpu"))
    checkpoint.save(path, dict(state.method.state_dict()))
    load = FewShotPredictor.from_checkpoint
    with pytest.raises(ConfigError, match=r"100000\.pth: does not contain its data set"):
        load(path)
    with pytest.raises(ConfigError, match=r"100000\.pth: does not contain the name of its encoder"):
        load(path, dataset="chaost2")
    with pytest.raises(ConfigError, match="give the mean and the standard deviation"):
        load(path, dataset="sabs", modelname="resnet18", device="cpu")
    with pytest.raises(CheckpointError, match="weights of another model"):
        load(path, dataset="chaost2", modelname="resnet34", device="cpu")
    assert load(path, dataset="chaost2", modelname="resnet18", device="cpu").normalisation == Normalisation()
    told = load(path, dataset="sabs", modelname="resnet18", device="cpu", normalisation=Normalisation(1.0, 2.0))
    assert told.normalisation == Normalisation(1.0, 2.0)
