"""Estimation of the share of correct labels per class where no clean labels are known. Pure functions.

The estimate is a break-even point: of the n pixels to which the networks give the highest probability of class k, the
share that is labelled k, where n is the number of pixels labelled k. Predicted and given area are thus equal, whatever
weights the classes have in the training loss and however certain the networks are. Errors of the networks count as
wrong labels, hence the estimate is rather too low.

Accuracy on phantom images after ten short rounds: 0.00 to 0.03 below the truth for the background, 0.06 to 0.13 for the
foreground. `python -m benchmarks.noise_rate` measures it, and the alternatives that were rejected; see
docs/noisy_labels.md.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

LOWEST_RATE = 0.5  # below it the networks' own errors cannot be told from wrong labels
N_BINS, LIMIT = 512, 16.0  # log-odds are counted from -LIMIT to LIMIT


@torch.no_grad()
def count_log_odds(probability: Float[Tensor, "B K H W"], label: Int[Tensor, "B H W"]) -> Int[Tensor, "K 2 bins"]:
    """Histograms of each class's log-odds, of pixels with other labels and of pixels with its label.

    Nothing is read back to the host, and histograms of several batches may be added.

    Args:
        probability: of all classes.
        label: as given, 0 to K - 1.

    Returns:
        Counts, int64.
    """
    n_classes = probability.shape[1]
    classes = torch.arange(n_classes, device=label.device).view(-1, 1, 1)
    place = ((torch.logit(probability, 1e-7) + LIMIT) * (N_BINS / (2 * LIMIT))).long().clamp(0, N_BINS - 1)
    has_label = (label[:, None] == classes).long()  # (B, K, H, W)
    index = ((2 * classes + has_label) * N_BINS + place).flatten()
    counts = torch.zeros(n_classes * 2 * N_BINS, dtype=torch.int64, device=label.device)
    return counts.index_add_(0, index, torch.ones_like(index)).view(n_classes, 2, N_BINS)


def break_even_rates(counts: Int[Tensor, "K 2 bins"]) -> Float[Tensor, " K"]:
    """Share of pixels labelled k among as many pixels with the highest probability of k; linear within a bin.

    Args:
        counts: sum of `count_log_odds` over all training images.

    Returns:
        Rates from 0 to 1, double precision; 1 for a class without pixels.
    """
    place = _break_even_places(counts)
    own = counts[:, 1].cpu().double().flip(-1)
    inside = (place[:, None] - torch.arange(N_BINS)).clamp(0, 1)  # share of each bin above the break-even point
    n_pixels = own.sum(1)
    return torch.where(n_pixels > 0, (inside * own).sum(1) / n_pixels.clamp(min=1), 1.0)


def break_even_log_odds(counts: Int[Tensor, "K 2 bins"]) -> Float[Tensor, " K"]:
    """Log-odds of each class above which as many pixels are predicted as are labelled; arguments as above."""
    return LIMIT - _break_even_places(counts) * (2 * LIMIT / N_BINS)


def _break_even_places(counts: Int[Tensor, "K 2 bins"]) -> Float[Tensor, " K"]:
    """Number of bins, from the highest log-odds down, with as many pixels as are labelled with the class."""
    total = counts.cpu().double().sum(1).flip(-1)  # (K, bins)
    n_pixels = counts[:, 1].cpu().double().sum(1, keepdim=True)
    reached = total.cumsum(1)
    last = torch.searchsorted(reached, n_pixels).clamp(max=N_BINS - 1)  # the bin of the n-th pixel
    before, within = (reached - total).gather(1, last), total.gather(1, last)
    return (last + (n_pixels - before) / within.clamp(min=1))[:, 0]
