"""Estimation of the share of correct labels per class where no clean labels are known. Pure functions.

The estimate is the agreement of trained networks with the given labels: of the pixels labelled k, the share that the
networks predict as k. The training loss weights the classes, which inflates the probability of a small structure by its
weight; the weights are therefore divided out before the prediction is taken.

Accuracy and the alternatives that were less accurate: see `python -m benchmarks.noise_rate` and docs/noisy_labels.md.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

LOWEST_RATE = 0.5  # below it the networks' own errors cannot be told from wrong labels


@torch.no_grad()
def count_agreement(
    probability: Float[Tensor, "B K H W"], label: Int[Tensor, "B H W"], weights: Float[Tensor, " K"]
) -> Int[Tensor, "K 2"]:
    """Counts the pixels of each class on which prediction and given label agree. Nothing is read back to the host.

    Args:
        probability: of networks trained with class weights.
        label: as given, 0 to K - 1.
        weights: of the classes in the training loss, above 0.

    Returns:
        Per class, int64: its pixels that are predicted as labelled, and all its pixels.
    """
    counts = torch.zeros(len(weights), 2, dtype=torch.int64, device=label.device)
    agrees = (probability / weights[:, None, None]).argmax(1) == label
    both = torch.stack([agrees, torch.ones_like(agrees)], -1).flatten(0, -2).long()  # (B*H*W, 2)
    return counts.index_add_(0, label.flatten().long(), both)


def estimate_rates(counts: Int[Tensor, "K 2"], lowest: float = LOWEST_RATE) -> tuple[Float[Tensor, " K"], list[int]]:
    """Share of correct labels per class, from the sum of `count_agreement` over all training images.

    Args:
        counts: pixels in agreement and all pixels, per class.
        lowest: lower bound of the estimate.

    Returns:
        Rates from `lowest` to 1 in double precision, 1 for a class without pixels; and the classes below `lowest`.
    """
    agreeing, total = counts.double().unbind(1)
    rates = torch.where(total > 0, agreeing / total.clamp(min=1), 1.0)
    return rates.clamp(min=lowest), (rates < lowest).nonzero().flatten().tolist()
