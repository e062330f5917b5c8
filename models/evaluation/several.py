"""Validation on several data sets: one result of all, and what failed in each."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from models.evaluation.base import Candidate, Evaluation, EvaluationResult, ScoreOptions
from util.errors import FailedItemsError
from util.items import Failures, catching

logger = logging.getLogger(__name__)


def score_on_each(
    evaluations: Mapping[str, Evaluation], candidates: Sequence[Candidate], out: Path, options: ScoreOptions
) -> EvaluationResult:
    """Scores on one data set after the other; a further one that fails does not cost the scores of the others.

    Args:
        evaluations: data set -> evaluation, the run's own first.
        candidates: see `Evaluation.score`, as is `options`.
        out: folder of the run; further data sets have a folder of their name in it.
        options: what to compute.

    Raises:
        UserError: the run's own data set cannot be scored at all.
    """
    results: dict[str, EvaluationResult] = {}
    failed: Failures = {}
    for name, evaluation in evaluations.items():
        is_own = not results
        with catching(None if is_own else failed, name, f"test set {name}"):
            results[name] = evaluation.score(candidates, out if is_own else out / name, options)
    joined = join_results(results)
    return replace(joined, failed_sets=(*joined.failed_sets, *failed.values()))


def join_results(results: Mapping[str, EvaluationResult]) -> EvaluationResult:
    """The result on the run's own data set, and after it what belongs to the further ones, under their names.

    Args:
        results: data set -> result, the run's own first.
    """
    first = next(iter(results.values()))
    named = list(results.items())[1:]
    further = {f"{name}: {caption}": path for name, each in named for caption, path in each.pictures.items()}
    return replace(
        first,
        tables=[table for result in results.values() for table in result.tables],
        pictures=first.pictures | further,
        logged=[*first.logged, *((f"{name}/{key}", value) for name, each in named for key, value in each.logged)],
        failures=tuple(failure for result in results.values() for failure in result.failures),
        n_cases=sum(result.n_cases for result in results.values()),
        failed={
            **first.failed,
            **{f"{name}: {case}": reason for name, each in named for case, reason in each.failed.items()},
        },
        failed_sets=tuple(failure for result in results.values() for failure in result.failed_sets),
    )


def report_failures(result: EvaluationResult, out: Path) -> None:
    """Logs how many cases were scored, or raises where some were not.

    Args:
        result: of the run; its scores are written.
        out: folder of the run.

    Raises:
        FailedItemsError: cases, masks or further data sets failed; each is named with the reason.
    """
    n_failed = len(result.failed)
    lines = list(result.failed_sets)
    if result.failed:
        lines += [f"{out}: the scores are those of the other cases, as these failed:", *result.failed.values()]
    if result.failures:
        state = "without the cases above" if result.failed else "complete"
        lines += [f"{out}: the scores are {state}, but masks are missing:", *result.failures]
    counts = f"{result.n_cases - n_failed} of {result.n_cases} cases scored, {n_failed} failed."
    if lines:
        raise FailedItemsError("\n".join([*lines, counts]))
    logger.info("%s", counts)
