import logging
from pathlib import Path

import pytest

from models.evaluation.base import Evaluation, EvaluationResult, ScoreOptions
from models.evaluation.several import report_failures, score_on_each
from util.errors import DataError, FailedItemsError


class Returns(Evaluation):
    """Stands for an evaluation."""

    def __init__(self, result):
        self.result = result

    def curve(self, method, normalisation):
        return {}

    def score(self, candidates, out, options):
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def result(**changes):
    return EvaluationResult("title", (), {}, [("dice", 0.5)], 0.5, **changes)


def score(**results) -> EvaluationResult:
    evaluations = {name: Returns(each) for name, each in results.items()}
    return score_on_each(evaluations, [], Path("out"), ScoreOptions())


def test_a_further_test_set_that_fails_does_not_cost_the_others():
    found = score(own=result(n_cases=4), lost=DataError("a.nii.gz: damaged"), more=result(n_cases=2, failed={"7": "b"}))
    assert found.logged == [("dice", 0.5), ("more/dice", 0.5)]
    assert (found.n_cases, found.failed, found.failed_sets) == (
        6,
        {"more: 7": "b"},
        ("test set lost: a.nii.gz: damaged",),
    )
    with pytest.raises(FailedItemsError) as caught:
        report_failures(found, Path("out"))
    assert str(caught.value).splitlines() == [
        "test set lost: a.nii.gz: damaged",
        "out: the scores are those of the other cases, as these failed:",
        "b",
        "5 of 6 cases scored, 1 failed.",
    ]
    with pytest.raises(DataError, match="damaged"):
        score(own=DataError("damaged"), more=result())


def test_sets_that_failed_within_one_evaluation_are_named_too():
    found = score(own=result(n_cases=4, failed_sets=("test set A: gone",)), lost=DataError("damaged"))
    assert found.failed_sets == ("test set A: gone", "test set lost: damaged")


def test_a_complete_run_counts_its_cases(caplog):
    caplog.set_level(logging.INFO)
    report_failures(result(n_cases=4), Path("out"))
    assert caplog.messages == ["4 of 4 cases scored, 0 failed."]
