"""Overlap of the masks of many images, scored image by image and over all pixels.

Unlike in `util.results.metrics`, an empty mask found empty counts 1, as in the published figures.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from util.results.metrics import score_volume

EPSILON = 1e-8


def count_overlap(prediction: Bool[Tensor, "K N H W"], truth: Bool[Tensor, "K N H W"]) -> Int[Tensor, "3 N K"]:
    """Counts the pixels in both masks, in the prediction and in the truth, per image and class."""
    counts = [(prediction & truth), prediction, truth]
    return torch.stack([mask.sum((2, 3)).T for mask in counts])


def compute_dice(counts: Tensor) -> Float[Tensor, "..."]:
    """(2I + e) / (P + G + e) of counts (3, ...). Source: superpixel-guided learning, released code."""
    shared, predicted, true = counts.double()
    return (2 * shared + EPSILON) / (predicted + true + EPSILON)


def compute_iou(counts: Tensor) -> Float[Tensor, "..."]:
    """(I + e) / (P + G - I + e) of counts (3, ...)."""
    shared, predicted, true = counts.double()
    return (shared + EPSILON) / (predicted + true - shared + EPSILON)


def surface_distances_px(
    prediction: Bool[np.ndarray, "K N H W"], truth: Bool[np.ndarray, "K N H W"]
) -> Float[np.ndarray, "2 N K"]:
    """95th percentile Hausdorff distances in pixels: the larger of both directions, and pooled; NaN for empty masks."""
    found = np.empty((2, *prediction.shape[:2]))
    for place in np.ndindex(prediction.shape[:2]):
        scores = score_volume(prediction[place][None], truth[place][None], (1.0, 1.0, 1.0))
        found[(slice(None), *place)] = scores.hd95_mm, scores.hd95_pooled_mm
    return found.swapaxes(1, 2)
