import csv

import pytest
from util.results.noise_scores import RunScore, write_runs
from util.results.summary import write_tables

from util.errors import DataError
from util.results.metrics import Scores
from util.results.scores import ScoreRow, write_scores

NOISY = RunScore("T-Loss", "ISIC2017", "lesion", "a0.7_b0.7", 0.7, 0.7, 0, "f00d", "last", 100, 600, 0.75, 0.6, 0.8)


def scan(folder, hd95_mm=float("nan")):
    scores = Scores(0.8, 0.7, 0.9, 0.6, hd95_mm, float("nan"))
    row = ScoreRow(
        method="ALPNet", dataset="CHAOST2", setting="1", protocol="blind",
        fold=0, scan=1, label=1, organ="LIVER", scores=scores,
    )  # fmt: skip
    write_scores(folder / "scores.csv", [row])


def test_scans_and_images_below_one_folder_are_both_told(tmp_path):
    scan(tmp_path / "alpnet/validation/1")
    write_runs(tmp_path / "tloss/validation/1/summary.csv", [NOISY])
    text = write_tables(tmp_path, n_folds=5)
    assert text == (tmp_path / "table.md").read_text()
    assert "| ALPNet | CHAOST2 | 1 | blind | 80.00" in text
    assert "| T-Loss | 75.0 (1) |" in text
    with (tmp_path / "table.csv").open() as stream:
        assert {row["method"] for row in csv.DictReader(stream)} == {"ALPNet"}
    with (tmp_path / "table_noise.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    assert (row["method"], row["dice"], row["hd95_px"]) == ("T-Loss", "0.75", "")


def test_only_what_was_measured_has_a_table(tmp_path):
    write_runs(tmp_path / "tloss/validation/1/summary.csv", [NOISY])
    write_tables(tmp_path, n_folds=5)
    assert sorted(path.name for path in tmp_path.glob("table*")) == ["table.md", "table_noise.csv"]
    scan(tmp_path / "alpnet/validation/1", hd95_mm=2.5)
    write_tables(tmp_path, n_folds=5)
    names = ["table.csv", "table.md", "table_hd95_mm.csv", "table_noise.csv"]
    assert sorted(path.name for path in tmp_path.glob("table*")) == names


def test_gathering_again_gives_the_same(tmp_path):
    scan(tmp_path / "alpnet/validation/1")
    write_runs(tmp_path / "tloss/validation/1/summary.csv", [NOISY])
    assert write_tables(tmp_path, 5) == write_tables(tmp_path, 5)


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"neither scores\.csv nor summary\.csv there or below\. Run the validation"):
        write_tables(tmp_path, 5)
