"""Masks that are to be looked at: the limit, the tables, and what a validation says of it."""

import csv
import re

import pytest

from models import predict
from models.prediction.batch import trust
from models.prediction.propagation import REVIEW_BELOW
from tests.models.prediction.test_propagation import files, run
from util.errors import ConfigError, DataError
from util.results.scores import FILE_NAME, make_scores, write_scores

NEEDED = ["--out=out", "--scans=scans"]


def limit(*options):
    return predict._limit(_parsed(*options))


def _parsed(*options):
    given = predict.make_parser().parse_args([*NEEDED, *options])
    given.checkpoint = next(iter(given.checkpoints), None)
    return given


def write_validation(folder, n=20):
    """A validation whose masks have a Dice that equals their confidence, from 0 to 0.95."""
    records = ({"case": str(k), "structure": "a", "metric": m, "value": k / n} for k in range(n) for m in METRICS)
    write_scores(folder / FILE_NAME, make_scores(records))
    return folder


METRICS = ("dice", "confidence")


def test_below_the_limit_a_mask_is_to_be_looked_at():
    assert trust(0.6194, 0.62) == {"confidence": 0.619, "review": "yes"}
    assert trust(0.62, 0.62)["review"] == "no"
    assert trust(0.62, None) == {"confidence": 0.62, "review": ""}
    assert trust(None, 0.62) == {"confidence": "", "review": ""}


def test_the_limit_is_given_chosen_by_a_validation_or_that_of_the_method(tmp_path):
    assert limit("--review-below=0.4") == limit("--review-below=0.4", "--checkpoint=c.pt") == 0.4
    assert limit() == REVIEW_BELOW
    assert limit("--checkpoint=c.pt") is None
    assert limit(f"--review-below={write_validation(tmp_path)}") == pytest.approx(0.675)


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


def test_doubtful_masks_are_named_at_the_end(tmp_path, caplog):
    assert run(files(tmp_path), "--classes", "liver=3", "9", "--review-below=1") == 0
    with (tmp_path / "out/volumes.csv").open() as stream:
        records = list(csv.DictReader(stream))
    assert {record["review"] for record in records} == {"yes"}
    first = f"{records[0]['scan']} liver ({float(records[0]['confidence']):.2f})"
    assert re.search(rf"4 masks to look at, with a confidence below 1: {re.escape(first)}, ", caplog.text)
