"""Cross pseudo supervision with confidence: each of two networks learns from the other's labels, where they are stable.

Each network sees an image twice, as it is and with the amplitudes of another one (`dataloaders.transforms.fourier`).
Where its two predictions differ, its labels are doubtful.
"""

from dataclasses import dataclass
from math import exp, log
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from util.errors import ConfigError
from util.runtime.distributed import n_ranks, sum_over_ranks


class Views(NamedTuple):
    """Logits of a network for the same pixels: of the images, and of their Fourier-augmented copies."""

    plain: Float[Tensor, "B K H W"]
    augmented: Float[Tensor, "B K H W"]


@dataclass(frozen=True)
class CrossConfig:
    """The form of the loss. The article, its released code and the follow-up (VDPL) differ in each of these keys.

    Source: CACPS (AAAI 2022), section 3.3; the defaults are the article's confidence per pixel and mean probabilities,
    and the code's student.
    """

    weighting: Literal["pixel", "scalar", "none"] = "pixel"  # scalar: mean confidence, as released; none: plain CPS
    student: Literal["original", "mean_prob", "mean_logit"] = "original"  # what learns: released, article, VDPL
    teacher: Literal["mean_prob", "mean_logit"] = "mean_prob"  # what labels come from; mean_logit: as released
    detach_confidence: bool = False  # whether the confidence is a constant, so that only labels teach
    use_augmented: bool = True  # False: teacher and student see the images only (plain CPS)


def ramp_up(step: int, length: int) -> float:
    """Factor that rises from e^-5 to 1 within `length` steps: exp(-5 (1 - step / length)^2).

    Source: Laine and Aila, "Temporal ensembling" (ICLR 2017); used by VDPL.

    Raises:
        ConfigError: a negative length.
    """
    if length < 0:
        raise ConfigError(f"ramp_up_steps={length}: expected 0 or more.")
    return exp(-5 * (1 - step / length) ** 2) if step < length else 1.0


@torch.no_grad()
def teacher_map(views: Views, config: CrossConfig) -> Float[Tensor, "B K H W"]:
    """What pseudo labels are read from: the mean over both views, of probabilities or logits; without gradient."""
    if not config.use_augmented:
        return views.plain
    if config.teacher == "mean_logit":
        return (views.plain + views.augmented) / 2
    return (views.plain.softmax(1) + views.augmented.softmax(1)) / 2


def disagreement(views: Views) -> Float[Tensor, "B H W"]:
    """KL(augmented || plain) of the predicted distributions, per pixel, in float32 or float64; 0 where they agree."""
    plain, augmented = (_log_probabilities(each) for each in views)
    return (augmented.exp() * (augmented - plain)).sum(1)


def cross_loss(first: Views, second: Views, labels: tuple[Tensor, Tensor], config: CrossConfig) -> Float[Tensor, ""]:
    """The sum of both directions: each network is taught by the other one's labels.

    Args:
        first: logits of the first network, with gradient.
        second: of the second one.
        labels: (B, H, W) int64 pseudo labels made by the first and by the second network.
        config: the form.

    Source: CACPS, section 3.3: E[exp(-V) CE + V], where V is the disagreement of the network that teaches.
    """
    return _taught(first, labels[0], second, config) + _taught(second, labels[1], first, config)


def _taught(teacher: Views, label: Int[Tensor, "B H W"], student: Views, config: CrossConfig) -> Float[Tensor, ""]:
    error = F.nll_loss(_student_log_probabilities(student, config), label, reduction="none")
    if config.weighting == "none" or not config.use_augmented:
        return error.mean()
    variance = disagreement(teacher)
    if config.detach_confidence:
        variance = variance.detach()
    confidence = (-variance).exp()
    if config.weighting == "scalar":
        means = torch.stack([confidence.mean(), error.mean()])
        means = sum_over_ranks(means) / n_ranks()
        return means.prod() + variance.mean()
    return (confidence * error + variance).mean()


def _student_log_probabilities(views: Views, config: CrossConfig) -> Float[Tensor, "B K H W"]:
    if config.student == "original" or not config.use_augmented:
        return _log_probabilities(views.plain)
    if config.student == "mean_logit":
        return _log_probabilities((views.plain + views.augmented) / 2)
    both = torch.stack([_log_probabilities(each) for each in views])
    return both.logsumexp(0) - log(2)


def _log_probabilities(logits: Tensor) -> Tensor:
    """In float32 at least: the difference of two logarithms cancels."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(1)


def batch_dice_loss(
    logits: Float[Tensor, "B K H W"], label: Int[Tensor, "B H W"], smooth: float = 0.1
) -> Float[Tensor, " K"]:
    """1 - (2 sum p y + s) / (sum p + sum y + s) of each class, the background included.

    The sums are over the batch of all processes; see `util.runtime.distributed.sum_over_ranks`.

    Source: CACPS, released code.
    """
    p = logits.to(torch.promote_types(logits.dtype, torch.float32)).softmax(1)
    y = label[:, None] == torch.arange(logits.shape[1], device=label.device)[:, None, None]  # (B, K, H, W)
    over_batch = (0, 2, 3)
    overlap, total = sum_over_ranks(torch.stack([(p * y).sum(over_batch), (p + y).sum(over_batch)]))
    return 1 - (2 * overlap + smooth) / (total + smooth)
