"""Selection of pixels with a small loss, for learning from noisy labels. Pure functions.

Nothing here waits for the device: thresholds are taken from sorted scores with indices that are tensors.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from models.losses.superpixels import superpixel_mean

CERTAIN = 1e-7  # smoothed probabilities keep this distance from 0 and 1, so that their logarithms are finite


def forget_rate(
    round_number: int | Int[Tensor, ""], remember_rates: Float[Tensor, " K"], warmup: int = 5
) -> Float[Tensor, " K"]:
    """Share of each class's pixels to exclude: from 0 in round 0 to 1 - remember rate in round warmup - 1, linearly.

    Source: co-teaching and superpixel-guided learning, released code.
    """
    rounds = torch.as_tensor(round_number).to(remember_rates)
    return (1 - remember_rates) * torch.where(rounds < warmup, rounds / max(warmup - 1, 1), 1.0)


def class_bounds(
    score: Float[Tensor, "B H W"], label: Int[Tensor, "B H W"], share: Float[Tensor, " K"]
) -> tuple[Float[Tensor, " K"], Float[Tensor, " K"]]:
    """Per class, the int(share * n)-th largest and the smallest score of its n pixels.

    Args:
        score: finite.
        label: 0 to K - 1.
        share: 0 to 1, in double precision if int(share * n) must be exact.

    Returns:
        The k-th largest score, infinity if k = 0; and the smallest, infinity for an absent class.
    """
    flat_score, flat_label = score.flatten(), label.flatten()
    order = flat_score.argsort(descending=True)
    order = order[flat_label[order].argsort(stable=True)]  # by class, and within a class in descending order of scores
    ranked = flat_score[order]
    classes = torch.arange(len(share), device=label.device)
    ranked_label = flat_label[order].to(classes)
    start = torch.searchsorted(ranked_label, classes)
    end = torch.searchsorted(ranked_label, classes, right=True)
    k = (share * (end - start)).long()

    def at(position: Tensor, exists: Tensor) -> Tensor:
        return torch.where(exists, ranked[position.clamp(0, len(ranked) - 1)], torch.inf)

    return at(start + k - 1, k > 0), at(end - 1, end > start)


@torch.no_grad()
def small_loss_selection(
    score: Float[Tensor, "B H W"], label: Int[Tensor, "B H W"], forget: Float[Tensor, " K"]
) -> Bool[Tensor, "B H W"]:
    """Keeps those pixels of each class whose score is below the int(forget * n)-th largest of the batch.

    Without ties n - k of n pixels are kept. Equal scores at the threshold are all excluded, as in a superpixel of one
    label.

    Source: co-teaching (NeurIPS 2018); per class as in superpixel-guided learning, released code.

    Note: there k = 0, an absent class and NaN scores are errors. Here k = 0 keeps all pixels, a class of which none
    would remain is kept completely, and a score that is not finite counts as the largest.
    """
    largest = torch.finfo(score.dtype).max
    score = score.nan_to_num(nan=largest, posinf=largest)
    threshold, smallest = class_bounds(score, label, forget)
    threshold = torch.where(smallest < threshold, threshold, torch.inf)
    return score < threshold[label]


def ce_map(log_probability: Float[Tensor, "B K H W"], label: Int[Tensor, "B H W"]) -> Float[Tensor, "B H W"]:
    """Cross-entropy of each pixel."""
    return F.nll_loss(log_probability, label, reduction="none")


def kl_map(log_probability: Float[Tensor, "B K H W"], log_target: Float[Tensor, "B K H W"]) -> Float[Tensor, "B H W"]:
    """Kullback-Leibler divergence of each pixel, sum of q (ln q - ln p) with the target q; gradients reach both."""
    return F.kl_div(log_probability, log_target, reduction="none", log_target=True).sum(1)


def jocor_score(
    first: Float[Tensor, "B K H W"], second: Float[Tensor, "B K H W"], label: Int[Tensor, "B H W"], weight: float
) -> Float[Tensor, "B H W"]:
    """Joint loss of two networks per pixel: (1 - weight) (CE1 + CE2) + weight (KL12 + KL21), of log-probabilities.

    Source: Wei et al., "Combating noisy labels by agreement: a joint training method with co-regularization", CVPR
    2020, equations 1 to 4.
    """
    supervision = ce_map(first, label) + ce_map(second, label)
    agreement = kl_map(first, second) + kl_map(second, first)
    return (1 - weight) * supervision + weight * agreement


def smoothed_log_probability(
    log_probability: Float[Tensor, "B K H W"], superpixel: Int[Tensor, "B H W"]
) -> Float[Tensor, "B K H W"]:
    """Logarithm of every class's mean probability over the superpixel, without gradient.

    Source: superpixel-guided learning, released code.

    Note: there a mean of exactly 0 or 1 gives infinite scores; here it is kept `CERTAIN` away.
    """
    return superpixel_mean(log_probability.detach().exp(), superpixel).clamp(CERTAIN, 1 - CERTAIN).log()


def approximate_rates(alpha: float, beta: float, foreground_share: float) -> tuple[float, float]:
    """Expected remember rates (background, foreground) of simulated noise, if there are no clean labels.

    Args:
        alpha: share of the images with a noisy mask.
        beta: changed pixels per object pixel in those.
        foreground_share: of all pixels, above 0 and below 1.
    """
    wrong = alpha * beta / 2
    return 1 - wrong * foreground_share / (1 - foreground_share), 1 - wrong
