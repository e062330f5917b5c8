"""Scores as the first publications on several sources computed them, for comparison with their tables alone."""

import numpy as np
from jaxtyping import Bool, Float

SMOOTH = 1e-4  # added to both counts, so that a slice without structures that is found empty has Dice 1


def joint_dice(prediction: Bool[np.ndarray, "K D H W"], truth: Bool[np.ndarray, "K D H W"]) -> Float[np.ndarray, " D"]:
    """Dice of each slice over the pixels of all K structures together.

    Source: CACPS (AAAI 2022), released code: (2 |P & G| + 1e-4) / (|P| + |G| + 1e-4).
    """
    axes = (0, 2, 3)
    shared = (prediction & truth).sum(axes)
    total = prediction.sum(axes) + truth.sum(axes)
    return (2 * shared + SMOOTH) / (total + SMOOTH)


def vector_distance(
    prediction: Bool[np.ndarray, "K D H W"], truth: Bool[np.ndarray, "K D H W"]
) -> Float[np.ndarray, " D"]:
    """Hausdorff distance of each slice between two sets of K vectors, the flattened masks.

    It is the square root of a number of pixels, not a distance in space.

    Source: DGNet (MICCAI 2021), released code, which calls it the Hausdorff distance.
    """
    found, wanted = (  # (D, K, H W); float32 holds the counts exactly
        each.swapaxes(0, 1).reshape(each.shape[1], len(each), -1).astype(np.float32) for each in (prediction, truth)
    )
    sizes = found.sum(-1)[:, :, None] + wanted.sum(-1)[:, None]
    different = sizes - 2 * found @ wanted.swapaxes(1, 2)  # (D, K, K) pixels
    nearest = [different.min(axis).max(1) for axis in (1, 2)]
    return np.sqrt(np.maximum(*nearest)).astype(np.float64)
