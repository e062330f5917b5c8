"""Validation on domains that were not trained on, from the command's entry to the tables of several runs."""

import pytest

import models
import training  # noqa: F401 - registers its command
import validation  # noqa: F401
from config_ssl_upload import InputError, ex
from tests.models.hearts import Bright, write_hearts
from util.results.scores import read_scores


@pytest.fixture(autouse=True)
def bright(monkeypatch):
    monkeypatch.setitem(models.METHODS, "bright", Bright)


def run(command, folder, logs, **changes):
    usual = {"method": "bright", "dataset": str(folder), "labelled_fraction": 0.5, "device": "cpu"}
    usual |= {"path": {"data_dir": str(folder), "log_dir": str(logs)}, "percentiles": [0.0, 100.0]}
    return ex.run(command, config_updates=usual | changes).result


def test_leave_one_domain_out(tmp_path):
    folder, logs = write_hearts(tmp_path), tmp_path / "logs"
    for domain in "ABCD":
        dice = run("validate", folder, logs, test_domains=[domain])
        assert dice == pytest.approx((16 / 17 + 16 / 18) / 2)
    run("collect", folder, logs)
    text = (logs / "table.md").read_text()
    assert text.startswith("| Method | Dataset | Labelled | A | B | C | D | Mean |")
    assert "| bright | HEARTS | 50 % | 95.75 ± 1.85 [" in text
    assert len(list(logs.glob("*/validation/1/predictions/*_segmentation.nii.gz"))) == 16
    assert len(list(logs.glob("*/validation/1/report.html"))) == 4


def test_a_scan_that_fails_is_named_and_the_run_is_not_averaged(tmp_path):
    folder, logs = write_hearts(tmp_path), tmp_path / "logs"
    (folder / "label_A2.nii.gz").write_bytes(b"damaged")
    with pytest.raises(InputError) as caught:
        run("validate", folder, logs, test_domains=["A"])
    assert "label_A2.nii.gz" in str(caught.value)
    assert str(caught.value).endswith("1 of 2 cases scored, 1 failed.")
    (file,) = logs.glob("*/validation/1/scores.csv")
    assert set(read_scores(file)["patient"]) == {"PA1"}
    with pytest.raises(InputError, match=r"1 case\(s\) could not be scored"):
        run("collect", folder, logs)


def test_a_further_set_is_scored_whole(tmp_path):
    folder, other = write_hearts(tmp_path / "one"), write_hearts(tmp_path / "two")
    text = (other / "dataset.json5").read_text().replace("HEARTS", "OTHERS")
    (other / "dataset.json5").write_text(text)
    (other / "manifest.json").write_text((other / "manifest.json").read_text().replace("HEARTS", "OTHERS"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "HEARTS").symlink_to(folder.parent)
    (tmp_path / "data" / "OTHERS").symlink_to(other.parent)
    run(
        "validate",
        tmp_path / "data",
        tmp_path / "logs",
        test_domains=["A"],
        dataset=str(folder),
        test_sets=[str(other)],
    )
    (file,) = (tmp_path / "logs").glob("*/validation/1/OTHERS/scores.csv")
    scores = read_scores(file)
    assert set(scores["held_out_domain"]) == {"all"}
    assert set(scores["domain"]) == {"A", "B", "C", "D"}
