"""Metrics of binary masks, and statistics over many scores.

A ratio 0/0 is undefined: it is NaN here, counted wherever scores are summarised, and never silently averaged.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool
from numpy.typing import ArrayLike
from torch import Tensor

from util.errors import DataError

# Millimetres within which two surfaces count as the same; what the FLARE challenges allow for spleen and kidneys.
NSD_TOLERANCE_MM = 3.0


# Conventions of the 95th percentile Hausdorff distance (HD95), which can differ by several millimetres. MONAI and
# surface-distance take the larger one; medpy the pooled one, which never exceeds it.
LARGER = "larger of the two directed 95th percentiles"
POOLED = "95th percentile of both directions pooled"


@dataclass(frozen=True)
class Metric:
    """How a metric is printed, and which values it can have.

    Attributes:
        title: name and unit in tables.
        factor: of printed values.
        highest: largest possible value, infinity for none; the smallest is 0. None: neither bound is known.
    """

    title: str
    factor: float = 100.0
    highest: float | None = 1.0


CONFIDENCE = "confidence"  # is no score: nothing of the truth is in it

# Name in scores.csv -> metric. Names end in the unit, where there is one.
METRICS = {
    "dice": Metric("Dice × 100"),
    "precision": Metric("Precision × 100"),
    "recall": Metric("Recall × 100"),
    "iou": Metric("IoU × 100"),
    "specificity": Metric("Specificity × 100"),
    "accuracy": Metric("Accuracy × 100"),
    "roc_auc": Metric("Area under the ROC curve × 100"),
    "average_precision": Metric("Average precision × 100"),
    "otsu_sensitivity": Metric("Sensitivity above Otsu's threshold × 100"),
    "otsu_specificity": Metric("Specificity above Otsu's threshold × 100"),
    "otsu_precision": Metric("Precision above Otsu's threshold × 100"),
    "otsu_accuracy": Metric("Accuracy above Otsu's threshold × 100"),
    "pooled_dice": Metric("Dice over the pixels of all images × 100"),
    "pooled_iou": Metric("IoU over the pixels of all images × 100"),
    "pooled_accuracy": Metric("Accuracy over the pixels of all images × 100"),
    "pooled_average_precision": Metric("Average precision over the pixels of all images × 100"),
    "pooled_aupr_11": Metric("Area under precision and recall at 11 thresholds, over the pixels of all images, × 100"),
    "legacy_dice": Metric("Dice of slices, of all structures together, × 100"),
    "legacy_distance": Metric("Distance of mask vectors in √pixels", factor=1.0, highest=math.inf),
    "nsd": Metric("NSD × 100"),
    "hd95_mm": Metric(f"HD95 in mm ({LARGER})", factor=1.0, highest=math.inf),
    "hd95_px": Metric(f"HD95 in pixels ({LARGER})", factor=1.0, highest=math.inf),
    "hd95_pooled_mm": Metric(f"HD95 in mm ({POOLED})", factor=1.0, highest=math.inf),
    "hd95_pooled_px": Metric(f"HD95 in pixels ({POOLED})", factor=1.0, highest=math.inf),
    CONFIDENCE: Metric("Confidence × 100"),
}


class Overlap(NamedTuple):
    """Dice, precision, recall and intersection over union; each 0 to 1, or NaN where it is 0/0."""

    dice: float
    precision: float
    recall: float
    iou: float


@dataclass(frozen=True)
class Scores:
    """One predicted organ against its ground truth.

    | truth   | prediction | dice, iou | precision | recall | both hd95 | nsd |
    |---------|------------|-----------|-----------|--------|-----------|-----|
    | empty   | empty      | NaN       | NaN       | NaN    | NaN       | NaN |
    | empty   | some       | 0         | 0         | NaN    | NaN       | 0   |
    | some    | empty      | 0         | NaN       | 0      | NaN       | 0   |

    There is no distance to a surface that does not exist, and any replacement (infinity, the volume's diagonal) would
    dominate every mean: HD95 is NaN and counted as undefined. Dice and NSD of 0 already record the miss.

    Attributes:
        dice: 2 TP / (2 TP + FP + FN).
        precision: TP / (TP + FP).
        recall: TP / (TP + FN).
        iou: TP / (TP + FP + FN).
        hd95_mm: the larger of the two 95th percentiles of the distances from one surface to the other, millimetres.
        hd95_pooled_mm: the 95th percentile of the distances in both directions together, millimetres.
        nsd: normalised surface Dice, the fraction of both surfaces' area that is within the tolerance of the other.
    """

    dice: float
    precision: float
    recall: float
    iou: float
    hd95_mm: float
    hd95_pooled_mm: float
    nsd: float


class Counts(NamedTuple):
    """True positive, false positive and false negative voxels."""

    true_positive: int
    false_positive: int
    false_negative: int


def overlap_counts(
    prediction: Bool[np.ndarray, "..."] | Bool[Tensor, "..."],
    truth: Bool[np.ndarray, "..."] | Bool[Tensor, "..."],
    ignore: Bool[np.ndarray, "..."] | Bool[Tensor, "..."] | None = None,
) -> Counts:
    """Counts voxels over all axes; voxels in `ignore` count as not predicted, the truth is used as it is.

    Raises:
        DataError: arrays of different shapes.

    Source: SSL-ALPNet, released code (ground truth 255 is removed from the prediction only).
    """
    shapes = {tuple(mask.shape) for mask in (prediction, truth, ignore) if mask is not None}
    if len(shapes) > 1:
        raise DataError(
            f"prediction {tuple(prediction.shape)} and ground truth {tuple(truth.shape)}: different shapes; expected "
            "masks on the same grid. Resample the prediction to the ground truth's grid first."
        )
    if ignore is not None:
        prediction = prediction & ~ignore
    shared = int((prediction & truth).sum())
    return Counts(shared, int(prediction.sum()) - shared, int(truth.sum()) - shared)


def overlap_scores(counts: Counts) -> Overlap:
    """Dice, precision, recall and intersection over union of voxel counts; NaN for 0/0."""
    hit, false_alarm, miss = counts
    return Overlap(
        dice=_ratio(2 * hit, 2 * hit + false_alarm + miss),
        precision=_ratio(hit, hit + false_alarm),
        recall=_ratio(hit, hit + miss),
        iou=_ratio(hit, hit + false_alarm + miss),
    )


def _ratio(numerator: int, denominator: int) -> float:
    return numerator / denominator if denominator else float("nan")


def score_volume(
    prediction: Bool[np.ndarray, "D H W"],
    truth: Bool[np.ndarray, "D H W"],
    spacing_mm: tuple[float, float, float],
    ignore: Bool[np.ndarray, "D H W"] | None = None,
    nsd_tolerance_mm: float | None = NSD_TOLERANCE_MM,
) -> Scores:
    """Scores one binary volume; for empty masks see `Scores`.

    The volumes are scored as given: a protocol that scores only some slices passes only those. A single slice
    (D = 1) is scored as an image, by its outline.

    Args:
        prediction: what the method marks.
        truth: what the expert marked.
        spacing_mm: distance between voxel centres along (z, y, x), millimetres.
        ignore: voxels without known truth; they count as not predicted.
        nsd_tolerance_mm: largest distance at which a piece of surface counts as found, millimetres; None: surfaces are
            not compared, which takes most of the time, and their scores are NaN.
    """
    if ignore is not None:
        prediction = prediction & ~ignore
    overlap = overlap_scores(overlap_counts(prediction, truth))
    if nsd_tolerance_mm is None:
        return Scores(**overlap._asdict(), hd95_mm=float("nan"), hd95_pooled_mm=float("nan"), nsd=float("nan"))
    if not (prediction.any() and truth.any()):
        nsd = 0.0 if prediction.any() or truth.any() else float("nan")
        return Scores(**overlap._asdict(), hd95_mm=float("nan"), hd95_pooled_mm=float("nan"), nsd=nsd)
    surfaces = (prediction, truth, spacing_mm) if len(truth) > 1 else (prediction[0], truth[0], spacing_mm[1:])
    larger, pooled = _hausdorff_95_mm(*surfaces)
    nsd = _surface_dice(*surfaces, nsd_tolerance_mm)
    return Scores(**overlap._asdict(), hd95_mm=larger, hd95_pooled_mm=pooled, nsd=nsd)


def _hausdorff_95_mm(prediction: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, ...]) -> tuple[float, float]:
    """HD95 by both conventions, `LARGER` and `POOLED`. The surface is the mask's outermost layer of voxels."""
    # Importing MONAI takes seconds; its edge functions crop to the masks' common bounding box.
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    edges = get_mask_edges(prediction, truth)
    distances = [get_surface_distance(*pair, spacing=spacing_mm) for pair in (edges, edges[::-1])]
    larger = max(float(np.percentile(each, 95)) for each in distances)
    return larger, float(np.percentile(np.concatenate(distances), 95))


def _surface_dice(
    prediction: np.ndarray, truth: np.ndarray, spacing_mm: tuple[float, ...], tolerance_mm: float
) -> float:
    """The surface runs between voxels and each piece of it weighs by its area, so anisotropic voxels are handled.

    Source: Nikolov et al., Clinically applicable segmentation of head and neck anatomy, JMIR 2021.
    """
    from monai.metrics.utils import get_mask_edges, get_surface_distance

    edges_a, edges_b, areas_a, areas_b = get_mask_edges(prediction, truth, spacing=spacing_mm)  # type: ignore[misc]
    distances = np.concatenate(
        [
            get_surface_distance(edges_a, edges_b, spacing=spacing_mm),
            get_surface_distance(edges_b, edges_a, spacing=spacing_mm),
        ]
    )
    areas = np.concatenate([areas_a[edges_a], areas_b[edges_b]]).astype(np.float64)
    # Distances come in float32: a surface exactly at the tolerance must not fall out by rounding.
    return float(areas[distances <= tolerance_mm * (1 + 1e-6)].sum() / areas.sum())


class Summary(NamedTuple):
    """Statistics of many scores.

    Attributes:
        mean: of the defined values; NaN when there are none.
        std: sample standard deviation (n - 1) of the defined values; NaN for fewer than two.
        n_defined: number of values that are included.
        n_undefined: number of NaN values, which are excluded.
    """

    mean: float
    std: float
    n_defined: int
    n_undefined: int


def summarise(values: ArrayLike) -> Summary:
    """Mean and spread of the defined values, and how many were undefined (NaN)."""
    every = np.asarray(values, np.float64).ravel()
    defined = every[~np.isnan(every)]
    mean = float(defined.mean()) if defined.size else float("nan")
    std = float(defined.std(ddof=1)) if defined.size > 1 else float("nan")
    return Summary(mean, std, defined.size, every.size - defined.size)
