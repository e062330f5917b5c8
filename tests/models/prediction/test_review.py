"""Masks that are to be looked at: the limit, the tables, and what a validation says of it."""

import csv
import logging
import re

import pytest

from models import predict
from models.prediction.batch import trust
from models.prediction.propagation import REVIEW_BELOW
from models.prediction.review import limit_of
from tests.models.prediction.test_propagation import files, quicken, run
from util.errors import ConfigError, DataError
from util.results.scores import FILE_NAME, make_scores, write_scores

NEEDED = ["--out=out", "--scans=scans"]


SETTINGS = {"method": "alpnet", "prototypes": "local", "train_on": "superpixels"}
TRAINED = {"settings": SETTINGS, "step": 7}  # what a checkpoint holds


def limit(*options, content=None):
    return limit_of(_parsed(*options), content)


def _parsed(*options):
    return predict.make_parser().parse_args([*NEEDED, *options])


def write_validation(folder, n=20, dice=lambda confidence: confidence, **columns):
    """A validation whose masks have confidences from 0 to 0.95, and by default a Dice that equals them."""
    values = {"confidence": lambda confidence: confidence, "dice": dice}
    records = (
        columns | {"case": str(k), "structure": "a", "metric": metric, "value": value(k / n)}
        for k in range(n)
        for metric, value in values.items()
    )
    write_scores(folder / FILE_NAME, make_scores(records))
    return folder


def test_below_the_limit_a_mask_is_to_be_looked_at():
    assert trust(0.6194, 0.62) == {"confidence": 0.619, "review": "yes"}
    assert trust(0.62, 0.62)["review"] == "no"
    assert trust(0.62, None) == {"confidence": 0.62, "review": ""}
    assert trust(None, 0.62) == {"confidence": "", "review": ""}


def test_the_limit_is_given_chosen_by_a_validation_or_that_of_the_method(tmp_path):
    assert limit("--review-below=0.4") == limit("--review-below=0.4", "--checkpoint=c.pt", content=TRAINED) == 0.4
    assert limit() == REVIEW_BELOW
    assert limit("--checkpoint=c.pt", content=TRAINED) is None
    assert limit(f"--review-below={write_validation(tmp_path)}") == pytest.approx(0.675)


def own(method="SSL-ALPNet", steps=7, weights="last"):
    return {"method": method, "steps": steps, "weights": weights}


def test_a_network_has_the_limit_of_its_last_validation(tmp_path, caplog):
    options = f"--checkpoint={tmp_path / 'checkpoint.pt'}"
    write_validation(tmp_path / "validation/9", dice=lambda confidence: confidence + 0.05, **own())
    newest = write_validation(tmp_path / "validation/10", **own())
    for number, foreign in enumerate((own("ALPNet"), own(steps=8), own(weights="ema")), 11):
        write_validation(tmp_path / f"validation/{number}", dice=lambda confidence: 1 - confidence, **foreign)
    with caplog.at_level(logging.INFO):
        assert limit(options, content=TRAINED) == pytest.approx(0.675)
    text = f"below 0.675 are to be looked at, as chosen by {newest} (20 masks; correlation with Dice 1.00)"
    assert text in caplog.text
    snapshot = f"--checkpoint={tmp_path / 'snapshots/7.pth'}"
    assert limit(snapshot, content=TRAINED) == pytest.approx(0.675)
    exported = TRAINED | {"review": {"below": 0.3, "correlation": 0.5, "n_masks": 12}}
    assert limit(options, content=exported) == 0.3


def test_there_is_no_limit_where_prediction_differs_from_the_validation_or_confidence_says_nothing(tmp_path, caplog):
    options = f"--checkpoint={tmp_path / 'checkpoint.pt'}"
    folder = write_validation(tmp_path / "validation/1", **own())
    assert limit(options, content=TRAINED) is not None
    for other in ("--propagate", "--flips", "--weights=ema"):
        assert limit(options, other, content=TRAINED) is None
    assert limit("--checkpoint", str(tmp_path / "checkpoint.pt"), "b.pt", content=TRAINED) is None
    assert limit(options, content={"step": None}) is None  # released weights
    write_validation(folder, dice=lambda confidence: 1 - confidence, **own())
    assert limit(options, content=TRAINED) is None
    assert not caplog.records
    (folder / FILE_NAME).write_text("method\n")
    assert limit(options, content=TRAINED) is None
    assert "no limit for masks to look at, as scores are damaged" in caplog.text


def test_a_validation_that_does_not_choose_and_what_is_no_limit_are_refused(tmp_path, capsys):
    with pytest.raises(DataError, match="expected at least 10, both good and poor ones, to choose a limit"):
        limit(f"--review-below={write_validation(tmp_path / 'small', 9)}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty: no confidences beside the Dice"):
        limit(f"--review-below={tmp_path / 'empty'}")
    with pytest.raises(ConfigError, match="--review-below nowhere: no such folder; expected a number from 0 to 1, or"):
        limit("--review-below=nowhere")
    with pytest.raises(SystemExit):
        _parsed("--review-below=1.5")
    assert "'1.5': expected a number of at least 0 and of at most 1" in capsys.readouterr().err


def test_doubtful_masks_are_named_at_the_end(tmp_path, caplog, monkeypatch):
    quicken(monkeypatch)
    assert run(files(tmp_path), "--classes", "liver=3", "9", "--review-below=1") == 0
    with (tmp_path / "out/volumes.csv").open() as stream:
        records = list(csv.DictReader(stream))
    assert {record["review"] for record in records} == {"yes"}
    first = f"{records[0]['scan']} liver ({float(records[0]['confidence']):.2f})"
    assert re.search(rf"4 masks to look at, with a confidence below 1: {re.escape(first)}, ", caplog.text)
