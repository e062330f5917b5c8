"""Replacing the least probable labels, and the remember rates afterwards. Pure functions."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from models.losses.selection import class_bounds


def correction_ratio(remember_rates: Float[Tensor, " K"], decay: float = 1.0) -> Float[Tensor, " K"]:
    """Share of each class's pixels to relabel: (1 - remember rate) * decay, to four digits."""
    return ((1 - remember_rates) * decay).round(decimals=4)


@torch.no_grad()
def refine_labels(
    probability: Float[Tensor, "B K H W"],
    label: Int[Tensor, "B H W"],
    ratio: Float[Tensor, " K"],
    confidence: float = 0.0,
) -> Int[Tensor, "B H W"]:
    """Relabels the least probable pixels of each class with the most probable class, jointly over all given images.

    Of the n pixels labelled c, candidates are those whose probability of c is below the int(ratio * n)-th smallest.

    Args:
        probability: mean of the networks; averaged over superpixels if superpixels are to change as a whole.
        label: current labels, 0 to K - 1.
        ratio: share of candidates per class.
        confidence: a pixel changes only to a class more probable than this; no effect up to 0.5 for two classes.

    Source: superpixel-guided learning, released code, for two classes.
    """
    doubt = -probability.gather(1, label[:, None])[:, 0]
    threshold, _ = class_bounds(doubt, label, ratio)
    best, best_class = probability.max(1)
    return torch.where((doubt > threshold[label]) & (best > confidence), best_class, label)


def update_remember_rates(
    remember_rates: Float[Tensor, " K"], ceiling: Float[Tensor, " K"], factor: float = 1.1
) -> Float[Tensor, " K"]:
    """Raises the rates by `factor` up to a ceiling, and keeps those above it: max(R, min(factor R, ceiling)).

    Source: superpixel-guided learning, released code.
    """
    return torch.maximum(remember_rates, torch.minimum(factor * remember_rates, ceiling))
