"""Dense networks: probabilities averaged over several checkpoints and over flipped images."""

from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from dataloaders.catalog import dataset
from dataloaders.io.png import write_png
from dataloaders.scans.normalise import Normalisation
from models.predict import main
from models.prediction.averaging import averaged
from models.prediction.dense import DensePredictor
from models.training.average import AverageConfig
from models.training.optim import OptimConfig
from models.training.state import build_state
from util.errors import CheckpointError, ConfigError
from util.runtime import checkpoint

SIDE = 32
UNET = {"base_features": 4, "max_features": 8, "halvings": [2, 2]}
JSRT = {"dataset": "JSRT", "structures": ["lung", "heart"]}


def save(path, seed, **changes):
    """An untrained network with weights that depend on the seed."""
    settings = {"method": "supervised", "size_px": SIDE, "unet": UNET} | JSRT | changes
    sizes = {"in_channels": dataset(settings["dataset"]).channels, "n_classes": len(settings["structures"]) + 1}
    settings["unet"] = settings["unet"] | sizes
    state = build_state(
        *(settings, seed, OptimConfig(), AverageConfig(), Normalisation(), torch.device("cpu"), None),
        spec=dataset(settings["dataset"]),
    )
    checkpoint.save(path, state.snapshot())
    return path


@pytest.fixture(scope="module")
def folds(tmp_path_factory):
    folder = tmp_path_factory.mktemp("folds")
    return [save(folder / f"fold{seed}.pt", seed) for seed in range(3)]


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)


def probabilities(predictor, image):
    return np.stack(list(predictor.predict(image).probabilities.values())).astype(float)


def load(paths, flips=False):
    return averaged(partial(DensePredictor.from_checkpoint, device="cpu"), paths, flips)


def test_probabilities_of_checkpoints_are_averaged(folds, picture):
    single = [probabilities(load([path]), picture) for path in folds]
    assert np.abs(single[0] - single[1]).mean() > 100  # of 65535: networks that differ
    predictor = load(folds)
    np.testing.assert_allclose(probabilities(predictor, picture), np.mean(single, 0), atol=1.5)
    masks = np.stack(list(predictor.predict(picture).masks.values()))
    rule = load(folds[:1]).segmenter.method.masks(torch.from_numpy(np.mean(single, 0)[:, None] / 65_535).float())
    assert (masks != rule[:, 0].numpy()).mean() < 0.01  # but for rounding


def test_flips_are_averaged_and_turned_back(folds, picture):
    predictor = load(folds[:1])
    flips = [(), (0,), (1,), (0, 1)]
    each = [
        np.flip(probabilities(predictor, np.flip(picture, axes).copy()), tuple(axis + 1 for axis in axes))
        for axes in flips
    ]
    assert np.abs(each[0] - each[1]).mean() > 100
    found = load(folds[:1], flips=True)
    np.testing.assert_allclose(probabilities(found, picture), np.mean(each, 0), atol=1.5)
    turned = probabilities(found, picture[:, ::-1].copy())[:, :, ::-1]
    np.testing.assert_allclose(turned, probabilities(found, picture), atol=1.5)


def test_the_command_averages(folds, picture, tmp_path):
    write_png(tmp_path / "in/a.png", picture)
    options = [f"--out={tmp_path / 'out'}", "--device=cpu", "--probabilities", "--flips", f"--images={tmp_path / 'in'}"]
    assert main(["--checkpoint", *map(str, folds[:2]), *options]) == 0
    wanted = probabilities(load(folds[:2], flips=True), picture)
    for place, name in enumerate(("lung", "heart")):
        with Image.open(tmp_path / f"out/a_{name}_probability.png") as image:
            np.testing.assert_array_equal(np.asarray(image), wanted[place])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"structures": ["lung"]}, r"other\.pt: classes \{'lung': 1\}, but \{'lung': 1, 'heart': 2\} in .*fold0\.pt"),
        ({"method": "jocor"}, r"other\.pt: method JoCoR, but Supervised in"),
        ({"size_px": 64}, r"other\.pt: size_px 64, but 32 in"),
        ({"dataset": "SHENZHEN", "structures": ["lung"]}, r"other\.pt: classes"),
    ],
)
def test_networks_that_disagree_are_refused(folds, tmp_path, changes, message):
    with pytest.raises(CheckpointError, match=message):
        load([folds[0], save(tmp_path / "other.pt", 0, **changes)])


def test_a_network_of_another_family_is_refused(folds, tmp_path):
    settings = {"method": "alpnet", "modelname": "resnet18", "encoder_weights": "none", "dataset": "CHAOST2"}
    state = build_state(settings, 0, OptimConfig(), AverageConfig(), Normalisation(), torch.device("cpu"), None)
    checkpoint.save(tmp_path / "few.pt", state.snapshot())
    with pytest.raises(CheckpointError, match=r"few\.pt: method alpnet is few-shot.*expected one that is dense"):
        load([folds[0], tmp_path / "few.pt"])
    options = [f"--out={tmp_path / 'out'}", "--device=cpu", "--support-image=a", "--support-label=b", "--scans=c"]
    with pytest.raises(ConfigError, match=r"--flips: not with --propagate.*the same in mirrored scans"):
        main([f"--checkpoint={tmp_path / 'few.pt'}", "--flips", "--propagate", *options])
    with pytest.raises(ConfigError, match=r"--flips: not for a segmentation without --checkpoint"):
        main(["--flips", *options])


def test_a_checkpoint_given_twice_is_refused(folds, tmp_path):
    with pytest.raises(ConfigError, match=r"fold0\.pt was given twice"):
        main(["--checkpoint", str(folds[0]), str(folds[0]), f"--out={tmp_path}", "--images=x"])
