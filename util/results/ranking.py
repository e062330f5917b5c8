"""Metrics of probabilities at all thresholds: areas under curves, pooled over pixels or image by image.

`rank_pixels` sorts the pixels of an image once; the areas follow from the result. Results of several images are pooled
with `pool`, or their areas are averaged with `util.results.metrics.summarise`, which leaves out and counts the
undefined ones. A ratio 0/0 is NaN, as in `util.results.metrics`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from util.errors import DataError

ELEVEN = np.arange(11) / 10  # thresholds of `eleven_point_aupr`


@dataclass(frozen=True)
class PixelRanking:
    """How many pixels have each probability.

    Attributes:
        score: distinct probabilities, ascending.
        positive: pixels of the structure with that probability.
        negative: other pixels with that probability.
    """

    score: Float[np.ndarray, " N"]
    positive: Int[np.ndarray, " N"]
    negative: Int[np.ndarray, " N"]

    def above(self, threshold: Float[np.ndarray, " T"]) -> tuple[Int[np.ndarray, " T"], Int[np.ndarray, " T"]]:
        """True and false positives of the prediction "more probable than the threshold", for each of T."""
        first = np.searchsorted(self.score, threshold, side="right")
        hits, false_alarms = (np.append(_from_the_top(each)[::-1], 0) for each in (self.positive, self.negative))
        return hits[first], false_alarms[first]


def rank_pixels(
    probability: Float[np.ndarray, "..."],
    truth: Bool[np.ndarray, "..."],
    inside: Bool[np.ndarray, "..."] | None = None,
    n_levels: int | None = None,
) -> PixelRanking:
    """Counts the pixels of each probability.

    Args:
        probability: 0 to 1.
        truth: pixels of the structure.
        inside: pixels that count, such as a field of view; None: all.
        n_levels: rounds probabilities to multiples of 1 / (n_levels - 1), so that pooling many large images needs
            little memory; 65536 for maps stored with 16 bits. None: exact.

    Raises:
        DataError: arrays of different shapes, or probabilities that are not from 0 to 1.
    """
    _require_same_shape(probability, truth, inside)
    if inside is not None:
        probability, truth = probability[inside], truth[inside]
    if not ((probability >= 0) & (probability <= 1)).all():
        raise DataError(
            f"probabilities from {probability.min():g} to {probability.max():g}; expected 0 to 1. Pass the output of a "
            "sigmoid or softmax."
        )
    if n_levels is not None:
        return _rank_levels(probability, truth, n_levels - 1)
    score, place = np.unique(probability, return_inverse=True)
    total = np.bincount(place.ravel(), minlength=len(score))
    positive = np.bincount(place.ravel()[truth.ravel()], minlength=len(score))
    return PixelRanking(score.astype(np.float64), positive, total - positive)


def _rank_levels(probability: np.ndarray, truth: np.ndarray, highest: int) -> PixelRanking:
    """The same for probabilities rounded to multiples of 1 / highest, without sorting them."""
    level = np.rint(probability.astype(np.float64) * highest).astype(np.int64).ravel()
    total = np.bincount(level, minlength=highest + 1)
    positive = np.bincount(level[truth.ravel()], minlength=highest + 1)
    found = np.flatnonzero(total)
    return PixelRanking(found / highest, positive[found], (total - positive)[found])


def pool(rankings: Sequence[PixelRanking]) -> PixelRanking:
    """The ranking of all pixels of several images together.

    Raises:
        DataError: no ranking.
    """
    if not rankings:
        raise DataError("no images to pool; expected at least one.")
    score, place = np.unique(np.concatenate([each.score for each in rankings]), return_inverse=True)
    counts = []
    for name in ("positive", "negative"):
        count = np.zeros(len(score), np.int64)
        np.add.at(count, place.ravel(), np.concatenate([getattr(each, name) for each in rankings]))
        counts.append(count)
    return PixelRanking(score, *counts)


def roc_auc(ranking: PixelRanking) -> float:
    """Area under the ROC curve: chance that a pixel of the structure is more probable than another, ties counting half.

    NaN where all pixels or none belong to the structure.
    """
    n_positive, n_negative = int(ranking.positive.sum()), int(ranking.negative.sum())
    if not (n_positive and n_negative):
        return float("nan")
    below = np.cumsum(ranking.negative) - ranking.negative  # less probable pixels outside the structure
    pairs = (ranking.positive.astype(np.float64) * (below + ranking.negative / 2)).sum()
    return float(pairs / n_positive / n_negative)


def average_precision(ranking: PixelRanking) -> float:
    """Exact area under the precision-recall curve: sum of precision times gain in recall over all thresholds.

    NaN without a pixel of the structure.

    Source: as `average_precision_score` of scikit-learn, without interpolation.
    """
    n_positive = int(ranking.positive.sum())
    if not n_positive:
        return float("nan")
    hits, false_alarms = _from_the_top(ranking.positive), _from_the_top(ranking.negative)
    found = ranking.positive[::-1] * (hits / (hits + false_alarms))
    return float(found.sum() / n_positive)  # divided last, so that rounding cannot lift it above 1


def eleven_point_aupr(ranking: PixelRanking) -> float:
    """Trapezoid area under precision and recall at the thresholds 0, 0.1, ..., 1; precision 1 if nothing is predicted.

    NaN without a pixel of the structure.

    Source: PSSNet, released code, which pools the pixels of all images.
    Note: differs from `average_precision` by several points: few thresholds, and lines between them. There recall is 0
        where it is undefined.
    """
    n_positive = int(ranking.positive.sum())
    if not n_positive:
        return float("nan")
    hits, false_alarms = ranking.above(ELEVEN)
    predicted = hits + false_alarms
    precision = np.where(predicted > 0, hits / np.maximum(predicted, 1), 1.0)
    return float(np.trapezoid(precision[::-1], hits[::-1]) / n_positive)


def _from_the_top(counts: np.ndarray) -> np.ndarray:
    """Pixels at least as probable as each score, scores in descending order."""
    return np.cumsum(counts[::-1])


class PixelRates(NamedTuple):
    """Shares of pixels decided correctly; a share of nothing is NaN."""

    sensitivity: float
    specificity: float
    precision: float
    accuracy: float


class PixelCounts(NamedTuple):
    """True and false positives and negatives; counts of several images are pooled with `sum_counts`."""

    true_positive: int
    false_positive: int
    false_negative: int
    true_negative: int

    @property
    def rates(self) -> PixelRates:
        """Shares of the counted pixels."""
        hit, false_alarm, miss, rejected = self
        return PixelRates(
            sensitivity=_ratio(hit, hit + miss),
            specificity=_ratio(rejected, rejected + false_alarm),
            precision=_ratio(hit, hit + false_alarm),
            accuracy=_ratio(hit + rejected, sum(self)),
        )


def count_pixels(
    prediction: Bool[np.ndarray, "..."], truth: Bool[np.ndarray, "..."], inside: Bool[np.ndarray, "..."] | None = None
) -> PixelCounts:
    """Counts right and wrong pixels of a mask.

    Args:
        prediction: pixels that the method marks.
        truth: pixels that the expert marks.
        inside: pixels that count, such as a field of view; None: all, so that black surroundings raise specificity and
            accuracy.

    Raises:
        DataError: arrays of different shapes.
    """
    _require_same_shape(prediction, truth, inside)
    if inside is not None:
        prediction, truth = prediction[inside], truth[inside]
    hit, predicted, true = (int(each.sum()) for each in (prediction & truth, prediction, truth))
    return PixelCounts(hit, predicted - hit, true - hit, truth.size - predicted - true + hit)


def sum_counts(counts: Sequence[PixelCounts]) -> PixelCounts:
    """The counts of several images together."""
    return PixelCounts(*(sum(each) for each in zip(*counts, strict=True)))


def otsu_mask(
    probability: Float[np.ndarray, "..."], inside: Bool[np.ndarray, "..."] | None = None
) -> Bool[np.ndarray, "..."]:
    """Pixels above Otsu's threshold of a map of 8 bits (truncated, not rounded); False outside.

    Args:
        probability: 0 to 1.
        inside: pixels that determine the threshold and can be marked; None: all.

    Raises:
        DataError: no pixel is inside, or arrays of different shapes.

    Source: PSSNet, released code, where sensitivity and specificity of vessels are means over images after this.
    """
    import cv2  # slow to import

    _require_same_shape(probability, inside)
    inside = np.ones(probability.shape, bool) if inside is None else inside
    values = (probability[inside] * 255).astype(np.uint8)
    if not values.size:
        raise DataError(f"no pixel of {probability.shape} is inside the field of view; expected at least one.")
    threshold, _ = cv2.threshold(values[:, None], 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    mask = np.zeros(probability.shape, bool)
    mask[inside] = values > threshold
    return mask


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else float("nan")


def _require_same_shape(first: Shaped[np.ndarray, "..."], *others: Shaped[np.ndarray, "..."] | None) -> None:
    shapes = [first.shape, *(each.shape for each in others if each is not None)]
    if len(set(shapes)) > 1:
        raise DataError(f"prediction, truth and field of view of shapes {shapes}: expected the same shape.")
