"""Ranks the given masks of training images by how much a trained network disagrees with them.

The score of a mask is the mean distance, in pixels, by which its outline would have to move: pixels on which prediction
and mask disagree, per pixel of outline. Small structures are therefore not first only because they are small. Before
that, each structure is predicted with the threshold at which predicted and given area are equal over all images; most
class-weighted networks predict more than is marked.

On phantom images this score finds noisy masks about as well as Dice, and better than the cross-entropy, soft Dice and
the soft minimum of the pixels' self-confidence (Lad & Mueller, "Estimating label quality and errors in semantic
segmentation data via any model", 2023), in its worst case; it depends least on size.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import binary_erosion
from scipy.stats import rankdata

from dataloaders.images.data import DenseData
from models.losses.noise_rate import break_even_log_odds
from models.methods.base import Method
from models.methods.rate_estimator import RateEstimator
from models.prediction.segmenter import Segmenter
from util.files import write_text
from util.results.overlays import save_image_overlays
from util.results.scores import csv_text

logger = logging.getLogger(__name__)

FILE_NAME, PICTURE = "suspects.csv", "suspects.png"
COLUMNS = ("rank", "id", "structure", "score", "dice_to_given", "doubted_share")
N_SHOWN = 12  # masks in the picture
CROSS = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]], bool)[None, None]


@dataclass(frozen=True)
class Disagreement:
    """How far predictions are from the given masks.

    Attributes:
        score: (N, K) pixels of disagreement per pixel of the longer outline; 0: equal.
        dice: (N, K) of prediction and given mask; 1 where both are empty.
        doubted_share: (N, K) pixels of disagreement among all pixels of the image.
    """

    score: Float[np.ndarray, "N K"]
    dice: Float[np.ndarray, "N K"]
    doubted_share: Float[np.ndarray, "N K"]


@dataclass(frozen=True)
class Suspect:
    """One given mask, a row of `suspects.csv`; rank 1 is the most suspect."""

    rank: int
    id: str
    structure: str
    score: float
    dice_to_given: float
    doubted_share: float


def measure_disagreement(predicted: Bool[np.ndarray, "N K H W"], given: Bool[np.ndarray, "N K H W"]) -> Disagreement:
    """Compares predictions with given masks, image by image and structure by structure."""
    doubted = (predicted != given).sum((2, 3))
    inner = [np.asarray(binary_erosion(mask, CROSS), bool) for mask in (predicted, given)]
    outlines = [(mask & ~core).sum((2, 3)) for mask, core in zip((predicted, given), inner, strict=True)]
    areas = predicted.sum((2, 3)) + given.sum((2, 3))
    return Disagreement(
        score=doubted / np.maximum(np.maximum(*outlines), 1),
        dice=1 - doubted / np.maximum(areas, 1),
        doubted_share=doubted / np.prod(given.shape[2:]),
    )


def order_suspects(ids: Sequence[str], structures: Sequence[str], found: Disagreement) -> list[Suspect]:
    """All masks, the most suspect first; of equal scores in the order of the images."""
    order = np.argsort(-found.score.ravel(), kind="stable")
    places = [divmod(int(place), len(structures)) for place in order]
    return [
        Suspect(
            *(rank, ids[n], structures[k]),
            *(float(values[n, k]) for values in (found.score, found.dice, found.doubted_share)),
        )
        for rank, (n, k) in enumerate(places, start=1)
    ]


def detection_quality(score: Float[np.ndarray, " N"], is_wrong: Bool[np.ndarray, " N"]) -> tuple[float, float]:
    """How well scores find wrong masks, where it is known which are wrong.

    Returns:
        AUROC, the chance that a wrong mask scores higher than a right one (0.5: guessing); and precision among the
        first n, where n masks are wrong. Both NaN where all masks or none are wrong.
    """
    n_wrong = int(is_wrong.sum())
    if n_wrong in (0, len(is_wrong)):
        return float("nan"), float("nan")
    ranks = rankdata(score)
    pairs = n_wrong * (len(score) - n_wrong)
    auroc = (ranks[is_wrong].sum() - n_wrong * (n_wrong + 1) / 2) / pairs
    first = np.argsort(-score, kind="stable")[:n_wrong]
    return float(auroc), float(is_wrong[first].mean())


def rank_suspects(method: Method, data: DenseData, device: torch.device, out: Path) -> Path:
    """Ranks all given masks of the training images; logs the quality of the ranking where clean masks are known.

    Args:
        method: trained on these images, on `device`; left in its mode.
        data: its training images.
        device: where to compute.
        out: folder; receives suspects.csv and suspects.png, the worst masks with given and predicted outlines.

    Returns:
        The path of suspects.csv.

    """
    ids, names = data.ids("train"), data.config.chosen
    segmenter = Segmenter(method, device)
    limits = _fit_thresholds(segmenter, data)
    found = _compare(segmenter, data, limits)
    suspects = order_suspects(ids, names, found)
    _draw(out / PICTURE, suspects[:N_SHOWN], segmenter, data, limits)
    path = out / FILE_NAME
    write_text(path, csv_text(COLUMNS, map(asdict, suspects)))
    first = suspects[0]
    logger.info("%s: %d masks ranked; most suspect: %s, %s", path, len(suspects), first.id, first.structure)
    _log_quality(found, data)
    return path


def _predict(segmenter: Segmenter, data: DenseData, where: slice) -> torch.Tensor:
    """(N, K, H, W) probabilities of some training images, with the background."""
    return segmenter.class_probabilities(data.labels.batch(where).image)


def _parts(data: DenseData) -> Iterator[slice]:
    size = data.config.test_batch
    return (slice(start, min(start + size, len(data.labels))) for start in range(0, len(data.labels), size))


def _given(data: DenseData, where: slice) -> UInt8[np.ndarray, "N H W"]:
    return np.array(data.labels.given[where])


def _fit_thresholds(segmenter: Segmenter, data: DenseData) -> Float[torch.Tensor, "K 1 1"]:
    """Log odds of each structure at which predicted and given area are equal over all images."""
    device = segmenter.device
    estimator = RateEstimator(data.labels.n_classes, device)
    for where in _parts(data):
        label = torch.from_numpy(_given(data, where)).long().to(device)
        estimator.add(_predict(segmenter, data, where), label)
    return break_even_log_odds(estimator.counts)[1:, None, None].to(device)


def _segment(
    segmenter: Segmenter, data: DenseData, where: slice, limits: Float[torch.Tensor, "K 1 1"]
) -> Bool[np.ndarray, "N K H W"]:
    probability = _predict(segmenter, data, where)[:, 1:]
    return (torch.logit(probability, 1e-7) > limits).cpu().numpy()


def _compare(segmenter: Segmenter, data: DenseData, limits: Float[torch.Tensor, "K 1 1"]) -> Disagreement:
    values = np.arange(1, data.labels.n_classes)[:, None, None]
    parts = [
        measure_disagreement(_segment(segmenter, data, where, limits), _given(data, where)[:, None] == values)
        for where in _parts(data)
    ]
    return Disagreement(
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("score", "dice", "doubted_share"))
    )


def _draw(
    path: Path,
    suspects: Sequence[Suspect],
    segmenter: Segmenter,
    data: DenseData,
    limits: Float[torch.Tensor, "K 1 1"],
) -> None:
    places = {each: n for n, each in enumerate(data.ids("train"))}
    names, rows = data.config.chosen, []
    for each in suspects:
        n, value = places[each.id], names.index(each.structure) + 1
        where = slice(n, n + 1)
        is_shown = (np.arange(1, len(names) + 1) == value)[:, None, None]
        given = (_given(data, where) == value) & is_shown
        predicted = _segment(segmenter, data, where, limits)[0] & is_shown
        image = data.labels.batch(where).image[0].numpy()
        rows.append((f"{each.rank}. {each.id}: {each.score:.1f} px", image, given, predicted))
    save_image_overlays(path, rows, names, "Most suspect masks: given (white) and predicted", truth_name="given mask")


def _log_quality(found: Disagreement, data: DenseData) -> None:
    """Where clean masks are known."""
    labels = data.labels
    if labels.clean is None:
        return
    for value, name in enumerate(data.config.chosen, start=1):
        parts = [slice(start, start + 64) for start in range(0, len(labels), 64)]
        differs = [((_given(data, p) == value) != (labels.clean[p] == value)).any((1, 2)) for p in parts]
        is_wrong = np.concatenate(differs)
        auroc, precision = detection_quality(found.score[:, value - 1], is_wrong)
        n_wrong = int(is_wrong.sum())
        logger.info(
            "%s: %d of %d masks differ from the clean ones; AUROC %.3f, precision among the first %d: %.3f",
            *(name, n_wrong, len(is_wrong), auroc, n_wrong, precision),
        )
