"""Scans, and images of several tasks: probabilities averaged over several networks and over flipped slices."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from dataloaders.samples import EvalCase, SupportScan, SupportSet
from dataloaders.scans.normalise import Normalisation
from dataloaders.scans.preprocess import PrepareParameters
from models.methods.alpnet import ALPNet, ALPNetConfig
from models.methods.calibration import CalibrationConfig
from models.methods.propagation import Propagation, PropagationConfig
from models.methods.second_look import SecondLookConfig
from models.networks.brightness import BrightnessConfig
from models.networks.deformation import DeformationConfig
from models.prediction.averaging import AveragedSegmenter, Intensities, averaged
from models.prediction.fewshot import FewShotPredictor
from models.prediction.partial import PartialPredictor
from models.prediction.propagation import PropagationPredictor
from models.prediction.segmenter import Segmenter
from tests.models.colours import TrainedColours
from tests.models.prediction.test_fewshot import AXIAL, GRIDS, patient
from tests.models.prediction.test_sources import Bands
from tests.models.prediction.test_sources import predictor as frames_predictor
from tests.partial_sets import open_sets, write_sets
from util.errors import CheckpointError

CPU = torch.device("cpu")
PARAMETERS = PrepareParameters("LAS", None, None, 0.0, (4.0, 2.0, 2.0), 32, "clean")
PLAIN = {
    "enlargements": (1.0,),
    "brightness": BrightnessConfig(levels=()),
    "calibration": CalibrationConfig(copies=0),
    "second_look": SecondLookConfig(below_cells=0.0),
    "deformation": DeformationConfig(reach=0.0),
}
BODY = Normalisation(120.0, 60.0)


def network(seed, kind=FewShotPredictor):
    torch.manual_seed(seed)
    if kind is PropagationPredictor:
        return Propagation(PropagationConfig("resnet18", "none", annotation="labelled", **PLAIN)).eval()
    return ALPNet(ALPNetConfig(modelname="resnet18", encoder_weights="none", proto_grid_size=2)).eval()


def few_shot(seed, normalisation=BODY, kind=FewShotPredictor):
    return kind(network(seed, kind), normalisation, PARAMETERS, 3)


def average_of(predictors, flips=False):
    named = {Path(f"network{number}"): each for number, each in enumerate(predictors)}
    return averaged(named.__getitem__, list(named), flips)


def maps(predictor, grid="oblique"):
    predictor.set_support(*patient(*AXIAL))
    found = predictor.segment(patient(*GRIDS[grid])[0], with_probabilities=True)
    return np.stack([each.array for each in found.probabilities.values()])


@pytest.mark.parametrize("second", [BODY, Normalisation(90.0, 25.0)])
@pytest.mark.parametrize("kind", [FewShotPredictor, PropagationPredictor])
def test_each_network_compares_with_the_annotated_scan_in_its_own_intensities(kind, second):
    def make():
        return [few_shot(0, BODY, kind), few_shot(1, second, kind)]

    single = [maps(each) for each in make()]
    assert np.abs(single[0] - single[1]).max() > 0.02  # networks that differ
    np.testing.assert_allclose(maps(average_of(make())), np.mean(single, 0), atol=2e-3)


def test_the_mean_does_not_depend_on_the_side():
    """Annotated and other slices turned round together: the probabilities are turned round, and nothing else."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(3, 1, 32, 32, generator=generator)
    label = torch.zeros(3, 32, 32, dtype=torch.uint8)
    label[:, 4:20, 6:14] = 1
    scan = SupportScan(image, label, (4.0, 2.0, 2.0), torch.tensor([[1]]))
    support = SupportSet((1,), image[None, 1:2, None], label[None, 1:2, None] == 1, (scan,))
    case = EvalCase("a", (1,), torch.randn(2, 1, 32, 32, generator=generator), torch.zeros(1, 2, dtype=torch.int64))
    turned_scan = dataclasses.replace(scan, image=image.flip(-1), label=label.flip(-1))
    turned = SupportSet((1,), support.image.flip(-1), support.mask.flip(-1), (turned_scan,))

    def found(segmenter, given, image):
        segmenter.set_support(given)
        return segmenter.segment(dataclasses.replace(case, image=image)).probabilities

    method = network(0)
    both = AveragedSegmenter([method], CPU, flips=True)
    as_is, other = found(both, support, case.image), found(both, turned, case.image.flip(-1))
    torch.testing.assert_close(as_is, other.flip(-1), atol=1e-5, rtol=0)
    assert (found(Segmenter(method, CPU), support, case.image) - as_is).abs().max() > 1e-3


def test_frames_are_averaged_and_their_mask_follows_from_the_mean():
    image, _ = patient(*AXIAL)
    made = [frames_predictor(), frames_predictor()]
    second = made[1].segmenter.method
    assert isinstance(second, Bands)
    second.edges.data = torch.tensor([0.5, 0.7, 0.9])

    def shares(predictor):
        (found,) = predictor.segment([image], with_probabilities=True)
        return np.stack([each.array for each in found.probabilities.values()]), found.label_map.array

    single = [shares(each) for each in made]
    assert (single[0][1] != single[1][1]).any()
    mean, label = shares(average_of(made))
    np.testing.assert_allclose(mean, np.mean([each for each, _ in single], 0), atol=1e-6)
    assert not label[(single[0][1] != 10) | (single[1][1] != 10)].tolist().count(10)  # above 1/2 of two: in both


def test_networks_of_several_tasks_see_their_own_intensities(tmp_path):
    config = open_sets(write_sets(tmp_path, 1, 0)).config
    tasks = config.facts.tasks
    method = TrainedColours(TrainedColours.Config(tasks))
    made = [
        PartialPredictor(method, config.joined, tasks, intensities)
        for intensities in (((90.0, 80.0, 70.0), (50.0, 40.0, 30.0)), ((0.0, 10.0, 20.0), (200.0, 100.0, 80.0)))
    ]
    picture = np.random.default_rng(0).integers(0, 256, (60, 60, 3)).astype(np.uint8)

    def shares(predictor):
        return np.stack(list(predictor.predict(picture).probabilities.values())).astype(float)

    single = [shares(each) for each in made]
    assert np.abs(single[0] - single[1]).max() > 500
    np.testing.assert_allclose(shares(average_of(made)), np.mean(single, 0), atol=1.5)


def test_intensities_are_converted():
    image = torch.rand(2, 3, 4, 4)
    one, other = Intensities((1.0, 2.0, 3.0), (2.0, 3.0, 4.0)), Intensities((0.0, 5.0, 1.0), (1.0, 7.0, 2.0))
    raw = image * torch.tensor(one.sd).view(-1, 1, 1) + torch.tensor(one.mean).view(-1, 1, 1)
    wanted = (raw - torch.tensor(other.mean).view(-1, 1, 1)) / torch.tensor(other.sd).view(-1, 1, 1)
    torch.testing.assert_close(one.to(other, image), wanted)
    assert one.to(one, image) is image


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (
            few_shot(0),
            few_shot(1, Normalisation()),
            "network1: statistics of each scan, but of the training",
        ),
        (
            frames_predictor(),
            frames_predictor(crop_px=32),
            r"network1: slices .*32.*, but .*48.* in network0",
        ),
    ],
)
def test_scans_that_are_prepared_in_another_way_are_refused(first, second, message):
    with pytest.raises(CheckpointError, match=message):
        average_of([first, second])
