"""Scores of one class in one image or scan, and over the pixels of all, inside the field of view."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float

from dataloaders.partial.sets import ScoredCase
from models.evaluation.base import mean_defined
from models.prediction.segmenter import Segmenter
from util.results.metrics import Counts, overlap_scores
from util.results.ranking import (
    PixelCounts,
    PixelRanking,
    average_precision,
    count_pixels,
    eleven_point_aupr,
    otsu_mask,
    pool,
    rank_pixels,
    roc_auc,
    sum_counts,
)

N_LEVELS = 65_536  # of probabilities, which bounds the memory of pooled rankings; not published


@dataclass(frozen=True)
class Segmented:
    """A segmented image, or a segmented scan of D slices.

    Attributes:
        scored: what was segmented.
        probabilities: of all K classes, 0 to 1.
        masks: of all K classes, by the method's rule.
        confidence: of all K classes, how firm the outline is; NaN: nothing was found.
    """

    scored: ScoredCase
    probabilities: Float[np.ndarray, "K D H W"]
    masks: Bool[np.ndarray, "K D H W"]
    confidence: tuple[float, ...]

    @property
    def id(self) -> str:
        """Id of the image or scan."""
        return self.scored.id


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class in one image.

    Attributes:
        values: metric -> score, 0 to 1; NaN where it is undefined.
        counts: right and wrong pixels of the mask.
        ranking: pixels of each probability, in steps of 1/65535.
    """

    values: dict[str, float]
    counts: PixelCounts
    ranking: PixelRanking


def segment_case(segmenter: Segmenter, scored: ScoredCase) -> Segmented:
    """Segments an image or a scan into all classes of the network."""
    found = segmenter.segment(scored.case)
    return Segmented(
        scored, found.probabilities.float().cpu().numpy(), found.masks.cpu().numpy(), tuple(found.confidence.tolist())
    )


def score_class(
    probability: Float[np.ndarray, "..."],
    mask: Bool[np.ndarray, "..."],
    truth: Bool[np.ndarray, "..."],
    inside: Bool[np.ndarray, "..."] | None,
) -> ClassScores:
    """Scores one class in one image.

    Args:
        probability: 0 to 1.
        mask: what the method marks.
        truth: what the expert marked.
        inside: pixels that count; None: all.

    Raises:
        DataError: arrays of different shapes, probabilities that are not from 0 to 1, or no pixel counts.
    """
    counts = count_pixels(mask, truth, inside)
    ranking = rank_pixels(probability, truth, inside, N_LEVELS)
    otsu = count_pixels(otsu_mask(probability, inside), truth, inside).rates
    values = {
        **overlap_scores(Counts(*counts[:3]))._asdict(),
        "specificity": counts.rates.specificity,
        "accuracy": counts.rates.accuracy,
        "roc_auc": roc_auc(ranking),
        "average_precision": average_precision(ranking),
        **{f"otsu_{name}": value for name, value in otsu._asdict().items()},
    }
    return ClassScores(values, counts, ranking)


def score_case(found: Segmented, known: tuple[int, ...]) -> dict[int, ClassScores]:
    """Channel -> scores, of the channels that the image is annotated for; `known`: these, in the order of the truth.

    Raises:
        DataError: see `score_class`.
    """
    return {
        channel: score_class(found.probabilities[channel], found.masks[channel], truth, found.scored.inside)
        for channel, truth in zip(known, found.scored.truth, strict=True)
    }


def mean_dice(found: Segmented, known: tuple[int, ...]) -> float:
    """Mean Dice of an image over its annotated channels; NaN where they and their masks are all empty."""
    return mean_defined([
        overlap_scores(Counts(*count_pixels(found.masks[channel], truth, found.scored.inside)[:3])).dice
        for channel, truth in zip(known, found.scored.truth, strict=True)
    ])  # fmt: skip


def _no_pixels() -> PixelRanking:
    return PixelRanking(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, np.int64))


@dataclass
class PooledClass:
    """The pixels of one class in all images together; needs the same memory for any number of images."""

    counts: PixelCounts = field(default_factory=lambda: PixelCounts(0, 0, 0, 0))
    ranking: PixelRanking = field(default_factory=_no_pixels)

    def add(self, scores: ClassScores) -> None:
        """Adds an image."""
        self.counts = sum_counts([self.counts, scores.counts])
        self.ranking = pool([self.ranking, scores.ranking])

    @property
    def values(self) -> dict[str, float]:
        """Metric -> score, 0 to 1; NaN where it is undefined."""
        overlap = overlap_scores(Counts(*self.counts[:3]))
        return {
            "pooled_dice": overlap.dice,
            "pooled_iou": overlap.iou,
            "pooled_accuracy": self.counts.rates.accuracy,
            "pooled_average_precision": average_precision(self.ranking),
            "pooled_aupr_11": eleven_point_aupr(self.ranking),
        }
