"""Structures are found in patients of another build than the annotated one."""

import importlib.util
from dataclasses import replace

import pytest

from data.phantom import make_patient
from data.phantom.bodies.build import Build
from dataloaders.scans import guess
from models.methods.calibration import CalibrationConfig
from models.methods.propagation import Propagation
from models.networks import packaged
from models.networks.displacement import DisplacementConfig
from models.prediction import propagation
from models.prediction.annotated import Annotated
from models.prediction.propagation import PropagationPredictor

LITE0 = packaged.PACKAGES["efficientnet_lite0"]
needs_package = pytest.mark.skipif(importlib.util.find_spec(LITE0.module) is None, reason=f"{LITE0.package} is absent")
LEAN = Build(side_mm=5.0, front_mm=4.0, back_mm=4.0)
OBESE = Build(side_mm=85.0, front_mm=10.0, back_mm=85.0, perirenal_mm=70.0, visceral_mm=5.0)
ORGANS = {"right kidney": 2, "left kidney": 3, "liver": 1}


@needs_package
def test_organs_are_found_in_thick_fat(monkeypatch):
    """Kidneys lie a quarter of the body's height further in front: more than four widths of the place prior.

    The liver keeps its size, and so takes up less of the body.
    """
    patients = ((3, LEAN), (4, OBESE))
    annotated, query = (make_patient("chaost2", seed, size_px=96, build=build) for seed, build in patients)
    monkeypatch.setattr(guess, "SIZE_PX", 192)

    def dice(**displacement):
        def make(config):
            quick = replace(config, calibration=CalibrationConfig(copies=0), enlargements=(1.0,))
            return Propagation(replace(quick, displacement=DisplacementConfig(**displacement)))

        monkeypatch.setattr(propagation, "Propagation", make)
        predictor = PropagationPredictor.from_scan(annotated[0], "cpu")
        predictor.set_supports([Annotated(*annotated, "annotated")], ORGANS)
        found, truth = predictor.segment(query[0]).label_map.array, query[1].array
        masks = [(found == value, truth == value) for value in ORGANS.values()]
        return [2 * (one & other).sum() / (one.sum() + other.sum()) for one, other in masks]

    assert min(dice()) > 0.75
    assert min(dice(reach=0.0)) < 0.4
