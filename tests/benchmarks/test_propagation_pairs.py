"""Pairs of scans: which are segmented, what is printed, and how confidence goes with Dice."""

import sys

import numpy as np

from benchmarks import propagation_pairs
from benchmarks.propagation_pairs import confidence_table

RUN = "propagation modelname=resnet18 encoder_weights=none"


def printed(monkeypatch, capsys, folder, *options):
    scans = [path.name.removeprefix("image_").removesuffix(".nii.gz") for path in sorted(folder.glob("image_*"))[:3]]
    argv = ["pairs", "--data", str(folder), "--support", *scans, "--query", *scans, "--device", "cpu", "--verbose"]
    monkeypatch.setattr(sys, "argv", [*argv, "--run", RUN, *options])
    propagation_pairs.main()
    return capsys.readouterr().out.splitlines()


def test_every_scan_is_segmented_with_every_other_one(monkeypatch, capsys, prepared_folder):
    first, *lines = printed(monkeypatch, capsys, prepared_folder, "--confidence", "--reuse-features")
    assert first.startswith("6 pairs of CHAOST2")
    pairs = [line.split(":")[0].split(" to ") for line in lines if " to " in line and line.startswith("  ")]
    assert len({tuple(pair) for pair in pairs}) == 6
    assert all(support.strip() != query for support, query in pairs)
    rows = [line for line in lines if line.startswith(f"| {RUN}")]
    assert [row.split(" | ")[1] for row in rows] == ["blind", "reference"]
    assert any(line.startswith("correlation") for line in lines)


def test_several_shots_are_every_combination(monkeypatch, capsys, prepared_folder):
    first, *lines = printed(monkeypatch, capsys, prepared_folder, "--shots", "2")
    assert first.startswith("3 pairs of CHAOST2")
    assert sum(" + " in line for line in lines) == 3


def test_the_table_of_confidences_by_hand():
    confidence, dice = np.array([0.0, 0.5, 0.62, 0.9, 0.95, 0.8]), np.array([0.0, 0.1, 0.75, 0.8, 0.6, np.nan])
    first, *lines = confidence_table(confidence, dice).splitlines()
    assert first == f"correlation {np.corrcoef(confidence[1:5], dice[1:5])[0, 1]:.2f}, 4 masks, 2 not found or scored"
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[2:]]
    assert cells == [
        ["0 to 0.6", "1", "0.10", "0 %"],
        ["0.6 to 0.65", "1", "0.75", "100 %"],
        ["0.75 to 1", "2", "0.70", "50 %"],
    ]
