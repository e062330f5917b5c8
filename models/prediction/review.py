"""Which masks are to be looked at: those with a confidence below a limit, and where the limit is from."""

import argparse
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models import title_of
from models.prediction.propagation import REVIEW_BELOW
from models.training.exported import REVIEW, is_export
from util.errors import ConfigError, DataError
from util.results.confidence import ReviewRule, review_limit, review_rule
from util.results.nearby import Weights, last_validation
from util.results.scores import read_run_scores
from util.schema import build

logger = logging.getLogger(__name__)


def limit_of(given: argparse.Namespace, content: Mapping[str, Any] | None) -> float | None:
    """The confidence below which masks are to be looked at.

    Args:
        given: options of the command. Without `--review-below`, one network that predicts as it was validated has the
            limit that its last validation chose.
        content: of the checkpoint; None: there is none, and scans are compared with annotated ones.

    Returns:
        None: not known.

    Raises:
        ConfigError: no such folder.
        DataError: the scores in that folder do not choose a limit.
    """
    if isinstance(given.review_below, Path):
        if not given.review_below.is_dir():
            raise ConfigError(
                f"--review-below {given.review_below}: no such folder; expected a number from 0 to 1, or the folder of "
                "a validation, <experiment>/validation/<number>."
            )
        return review_limit(read_run_scores(given.review_below), str(given.review_below))
    if given.review_below is not None:
        return given.review_below
    if content is None:
        return REVIEW_BELOW
    as_validated = len(given.checkpoints) == 1 and not given.flips and not given.propagate
    return _own_limit(given.checkpoints[0], content, given.weights) if as_validated else None


def _own_limit(checkpoint: Path, content: Mapping[str, Any], weights: str) -> float | None:
    """That of an exported network, or of the last validation next to a checkpoint."""
    rule, source = None, "the validation before the export"
    if REVIEW in content:
        rule = build(ReviewRule, content[REVIEW], f"{checkpoint}: {REVIEW}.")
    elif "settings" in content and not is_export(checkpoint):
        own = Weights(title_of(content["settings"]), weights, content["step"])
        try:
            found = last_validation(checkpoint, own)
        except DataError as error:
            logger.warning("no limit for masks to look at, as scores are damaged: %s", error)
            return None
        if found is not None:
            rule, source = review_rule(found.scores), str(found.folder)
    if rule is None:
        return None
    text = (
        "masks with a confidence below %.3f are to be looked at, as chosen by %s (%d masks; correlation with Dice %.2f)"
    )
    logger.info(text, rule.below, source, rule.n_masks, rule.correlation)
    return rule.below
