"""Self-training on pairs of scans: which scans are unlabelled, and what is printed."""

import logging

import numpy as np

from benchmarks import self_training_pairs
from util.files import read_json_object


def test_all_other_scans_are_unlabelled_and_every_round_is_scored(prepared_folder, tmp_path, caplog):
    words = ["n_steps=2", "batch_size=4", "encoder_weights=none", "modelname=efficientnet_lite0"]
    given = ["--data", str(prepared_folder), "--support", "8", "10", "--query", "1", "8", "--rounds", "2"]
    with caplog.at_level(logging.INFO):
        self_training_pairs.main([*given, "--out", str(tmp_path), "--device", "cpu", "--set", *words])
    for support in ("8", "10"):
        first, second = (read_json_object(tmp_path / f"{support}_round{k}" / "propagated.json") for k in (1, 2))
        assert set(first["images"]) == {"1", "2", "3", "5", "8", "10", "13", "15"} - {support}
        assert first["made"]["support"] == [support]
        assert (first["run"], second["run"]) == (f"{support} propagation", f"{support} round 1")
    rows = [line for line in caplog.text.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[0] for row in rows[2:]] == ["| propagation", "| round 1", "| round 2"]
    assert float(rows[2].split("|")[-2]) > 50  # of labels that propagate


def test_unlabelled_scans_can_be_named_and_every_pair_is_listed(prepared_folder, tmp_path, caplog):
    words = ["n_steps=1", "batch_size=2", "encoder_weights=none"]
    given = ["--data", str(prepared_folder), "--support", "8", "--query", "1", "3", "--rounds", "1", "--verbose"]
    given += ["--unlabelled", "2", "8", "--out", str(tmp_path), "--device", "cpu", "--set", *words]
    with caplog.at_level(logging.INFO):
        self_training_pairs.main(given)
    assert list(read_json_object(tmp_path / "8_round1" / "propagated.json")["images"]) == ["2"]
    listed = [line for line in caplog.messages if line.startswith("8 to ")]
    assert [line.split(":")[0] for line in listed] == [
        f"8 to {query}, {name}" for name in ("propagation", "round 1") for query in ("1", "3")
    ]


def test_means_are_over_the_pairs_of_the_supports():
    dice = {("8", "1"): [0.5, 1.0], ("8", "2"): [0.7, float("nan")], ("10", "1"): [0.0, 0.0]}
    np.testing.assert_allclose(self_training_pairs._means(dice, ["8"]), [60, 100])
    np.testing.assert_allclose(self_training_pairs._means(dice, ["8", "10"]), [40, 50])
