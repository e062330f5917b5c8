"""Pairs of scans: which are segmented, what is printed, and how confidence goes with Dice."""

import sys
from xml.etree import ElementTree

import numpy as np
import torch

from benchmarks import propagation_pairs
from benchmarks.propagation_pairs import confidence_table
from dataloaders.scans.normalise import Normalisation
from models.methods.propagation import Propagation
from models.training.average import AverageConfig
from models.training.optim import OptimConfig
from models.training.state import build_state
from util.results.confidence import measure_worth
from util.runtime import checkpoint

RUN = "propagation modelname=resnet18 encoder_weights=none"


def printed(monkeypatch, capsys, folder, *options):
    scans = [path.name.removeprefix("image_").removesuffix(".nii.gz") for path in sorted(folder.glob("image_*"))[:3]]
    argv = ["pairs", "--data", str(folder), "--support", *scans, "--query", *scans, "--device", "cpu", "--verbose"]
    monkeypatch.setattr(sys, "argv", [*argv, "--run", RUN, *options])
    propagation_pairs.main()
    return capsys.readouterr().out.splitlines()


def test_every_scan_is_segmented_with_every_other_one(monkeypatch, capsys, prepared_folder, tmp_path):
    picture = tmp_path / "confidence.svg"
    options = ("--confidence", "--reuse-features", "--picture", str(picture))
    first, *lines = printed(monkeypatch, capsys, prepared_folder, *options)
    assert first.startswith("6 pairs of CHAOST2")
    pairs = [line.split(":")[0].split(" to ") for line in lines if " to " in line and line.startswith("  ")]
    assert len({tuple(pair) for pair in pairs}) == 6
    assert all(support.strip() != query for support, query in pairs)
    rows = [line for line in lines if line.startswith(f"| {RUN}")]
    assert [row.split(" | ")[1] for row in rows] == ["blind", "reference"]
    assert any("Spearman's correlation of confidence and Dice" in line for line in lines)
    assert any(line.startswith("The same correlation of the mean probability within the mask: ") for line in lines)
    drawn = ElementTree.parse(picture).getroot()
    assert drawn.tag == "{http://www.w3.org/2000/svg}svg"
    (told,) = (line for line in lines if "Spearman" in line)
    assert len(list(drawn.iter("{http://www.w3.org/2000/svg}circle"))) == int(told.split()[0])


def test_several_shots_are_every_combination(monkeypatch, capsys, prepared_folder):
    first, *lines = printed(monkeypatch, capsys, prepared_folder, "--shots", "2")
    assert first.startswith("3 pairs of CHAOST2")
    assert sum(" + " in line for line in lines) == 3


def test_a_run_may_take_the_encoder_of_a_trained_network(tmp_path):
    settings = {"method": "alpnet", "modelname": "resnet18", "encoder_weights": "none", "dataset": "CHAOST2"}
    state = build_state(settings, 0, OptimConfig(), AverageConfig(), Normalisation(), torch.device("cpu"))
    checkpoint.save(tmp_path / "snapshot.pth", state.snapshot())
    method = propagation_pairs.method_of(f"propagation reload_model_path={tmp_path / 'snapshot.pth'}")
    assert isinstance(method, Propagation)
    assert method.config.use_projection
    for key, value in state.method.state_dict().items():
        torch.testing.assert_close(method.state_dict()[key], value, rtol=0, atol=0)


def test_the_table_of_confidences_by_hand():
    confidence, dice = np.array([np.nan, 0.0, 0.42, 0.6, 1.0, 0.8]), np.array([0.0, 0.1, 0.75, 0.8, 0.6, np.nan])
    worth = measure_worth(confidence, dice)
    lines = confidence_table(worth).splitlines()
    assert lines[: len(worth.sentences)] == worth.sentences
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| 0")]
    assert cells == [
        ["0 to 0.2", "1", "0.10", "0 %"],
        ["0.4 to 0.5", "1", "0.75", "100 %"],
        ["0.6 to 1", "2", "0.70", "50 %"],
    ]
