"""What the confidence of a mask is worth: how well it tells good masks from poor ones where the truth is known."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import spearmanr

from util.errors import DataError
from util.results.metrics import CONFIDENCE

GOOD_DICE = 0.7  # a mask below it is poor
FEWEST = 10  # masks from which a limit is chosen
LEAST_CORRELATION = 0.3  # of confidence and Dice, for a limit that nobody asked for
N_BINS = 5  # of the calibration curve


@dataclass(frozen=True)
class ConfidenceWorth:
    """How Dice goes with confidence, over N masks in which something was found and whose Dice is defined.

    Attributes:
        confidence, dice: of each mask, 0 to 1, by ascending confidence.
        n_left_out: masks without a confidence (nothing was found) or a Dice (nothing to find).
        correlation: Spearman's, -1 to 1; NaN where one of them is the same everywhere, or with fewer than three masks.
        limit: the confidence below which masks are to be looked at: it tells poor masks from good ones best, by the sum
            of the shares of both that are told right. None: fewer than `FEWEST` masks, or all are good, or all poor.
    """

    confidence: Float[np.ndarray, " N"]
    dice: Float[np.ndarray, " N"]
    n_left_out: int
    correlation: float
    limit: float | None

    @property
    def sentences(self) -> list[str]:
        """The figures in words."""
        told = [f"{len(self.dice)} masks; Spearman's correlation of confidence and Dice {self.correlation:.2f}."]
        if self.n_left_out:
            told.append(f"{self.n_left_out} more have no confidence (nothing was found) or no Dice (nothing to find).")
        poor = self.dice < GOOD_DICE
        if self.limit is None:
            told.append(f"{poor.sum()} masks have a Dice below {GOOD_DICE}: too few, or too many, to choose a limit.")
            return told
        below = self.confidence < self.limit
        each = [f"{poor[part].sum()} of {part.sum()}" for part in (below, ~below)]
        told.append(
            f"A Dice below {GOOD_DICE} have {each[0]} masks with a confidence below {self.limit:.3f}, and {each[1]} of "
            "the others; this limit tells them best, on these very masks."
        )
        return told

    @property
    def bins(self) -> list[tuple[float, float, int]]:
        """Mean confidence, mean Dice and number of masks in `N_BINS` parts of equal numbers; fewer with few masks."""
        n_bins = min(N_BINS, len(self.dice) // 3)
        if not n_bins:
            return []
        parts = zip(np.array_split(self.confidence, n_bins), np.array_split(self.dice, n_bins), strict=True)
        return [(float(c.mean()), float(d.mean()), len(d)) for c, d in parts]


def measure_worth(confidence: Float[np.ndarray, " M"], dice: Float[np.ndarray, " M"]) -> ConfidenceWorth:
    """Compares the confidence of masks with their Dice; NaN where one of them is undefined."""
    is_known = np.isfinite(confidence) & np.isfinite(dice)
    order = np.argsort(confidence[is_known], kind="stable")
    known, scores = confidence[is_known][order], dice[is_known][order]
    can_vary = len(known) > 2 and np.ptp(known) > 0 and np.ptp(scores) > 0
    correlation = float(np.asarray(spearmanr(known, scores))[0]) if can_vary else float("nan")
    return ConfidenceWorth(known, scores, int((~is_known).sum()), correlation, _limit(known, scores))


def _limit(confidence: Float[np.ndarray, " N"], dice: Float[np.ndarray, " N"]) -> float | None:
    """Halfway between two neighbouring confidences."""
    poor = dice < GOOD_DICE
    between = np.flatnonzero(np.diff(confidence) > 0)  # the limit may be after these
    if len(dice) < FEWEST or poor.all() or not poor.any() or not len(between):
        return None
    told = poor.cumsum()[between] / poor.sum() + 1 - (~poor).cumsum()[between] / (~poor).sum()
    place = between[told.argmax()]
    return float(confidence[place : place + 2].mean())


def paired(scores: pd.DataFrame) -> pd.DataFrame:
    """Confidence and Dice of each mask of a validation, in columns `confidence` and `dice`, with case and structure.

    Args:
        scores: long table of scores; lines of the same mask agree in all columns but metric and value.
    """
    cases = scores[scores["case"] != ""]
    own = [name for name in scores.columns if name not in ("metric", "value")]
    confidence, dice = (
        cases[cases["metric"] == metric].drop(columns="metric").rename(columns={"value": metric})
        for metric in (CONFIDENCE, "dice")
    )
    return confidence.merge(dice, on=own)


@dataclass(frozen=True)
class ReviewRule:
    """Which masks of a network are to be looked at, as a validation of it chose.

    Attributes:
        below: those with less confidence.
        correlation: Spearman's, of confidence and Dice in that validation.
        n_masks: on which it was chosen.
    """

    below: float
    correlation: float
    n_masks: int


def review_rule(scores: pd.DataFrame) -> ReviewRule | None:
    """The rule that the scores of a validation choose by themselves.

    Args:
        scores: long table of scores.

    Returns:
        None where they choose no limit, see `ConfidenceWorth.limit`, or where confidence says too little of the Dice.
    """
    pairs = pd.DataFrame() if scores.empty else _as_in_prediction(paired(scores))
    if pairs.empty:
        return None
    worth = measure_worth(pairs[CONFIDENCE].to_numpy(float), pairs["dice"].to_numpy(float))
    if worth.limit is None or not worth.correlation >= LEAST_CORRELATION:
        return None
    return ReviewRule(worth.limit, worth.correlation, len(worth.dice))


def _as_in_prediction(pairs: pd.DataFrame) -> pd.DataFrame:
    """Without masks of a protocol that tells where structures lie, unless all are: prediction is not told."""
    if "protocol" not in pairs:
        return pairs
    is_blind = pairs["protocol"] != "reference"
    return pairs[is_blind] if is_blind.any() else pairs


def review_limit(scores: pd.DataFrame, place: str) -> float:
    """The limit that the scores of a validation choose; see `ConfidenceWorth.limit`.

    Args:
        scores: long table of scores.
        place: where they are from, for messages.

    Raises:
        DataError: they hold no confidences, or do not choose one.
    """
    pairs = _as_in_prediction(paired(scores))
    if pairs.empty:
        raise DataError(f"{place}: no confidences beside the Dice. Run the validation again, or give a number.")
    worth = measure_worth(pairs[CONFIDENCE].to_numpy(float), pairs["dice"].to_numpy(float))
    if worth.limit is None:
        raise DataError(
            f"{place}: {len(worth.dice)} masks, {(worth.dice < GOOD_DICE).sum()} of them with a Dice below "
            f"{GOOD_DICE}; expected at least {FEWEST}, both good and poor ones, to choose a limit. Give a number."
        )
    return worth.limit
