"""Pixelwise losses, plain and robust to wrong labels: one value per pixel from logits and class values.

p is the softmax of the logits, p_y that of the pixel's label, K the number of classes.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from models.losses.base import SegmentationLoss, one_hot
from models.losses.reduction import weighted_mean

LOG_SMALLEST = math.log(1e-7)  # p is clipped to this before powers of it, whose gradient is unbounded at 0
LOG_ZERO = math.log(1e-4)  # stands for ln 0 in reverse cross-entropy

Logits = Float[Tensor, "B K H W"]
Label = Int[Tensor, "B H W"]
LossMap = Float[Tensor, "B H W"]


class PixelLoss(SegmentationLoss):
    """Mean of a pixelwise loss, optionally weighted to balance the classes."""

    def __init__(self, loss_map: Callable[[Tensor, Tensor], Tensor], is_class_weighted: bool, n_classes: int) -> None:
        super().__init__(n_classes)
        self.loss_map = loss_map
        self.is_class_weighted = is_class_weighted

    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """Mean over all pixels of the batch."""
        loss_map = self.loss_map(logits, label)
        return weighted_mean(loss_map, label, None, self.n_classes) if self.is_class_weighted else loss_map.mean()


def cross_entropy(logits: Logits, label: Label) -> LossMap:
    """-ln p_y."""
    return F.cross_entropy(logits, label, reduction="none")


def binary_cross_entropy(logits: Logits, label: Label) -> LossMap:
    """Every class against the rest: the mean over classes of -ln p_k where k is the label, else -ln(1 - p_k).

    p_k is the softmax, so that training and prediction use the same probability. With two classes this is the
    binary cross-entropy of the foreground's probability, and the same as `cross_entropy`.
    """
    if logits.shape[1] == 2:
        return cross_entropy(logits, label)
    log_p = F.log_softmax(logits, 1)
    log_rest = (-torch.expm1(log_p.clamp(max=-1e-7))).log()
    return -torch.where(one_hot(label, logits.shape[1]), log_p, log_rest).mean(1)


def generalised_cross_entropy(logits: Logits, label: Label, q: float = 0.7) -> LossMap:
    """(1 - p_y^q) / q: cross-entropy for q -> 0, mean absolute error for q = 1.

    Source: Zhang and Sabuncu, NeurIPS 2018.
    """
    log_p = _log_p_label(logits, label).clamp(min=LOG_SMALLEST)
    return (1 - (q * log_p).exp()) / q


def mean_absolute_error(logits: Logits, label: Label) -> LossMap:
    """1 - p_y, half the distance between p and the one-hot label.

    Source: Ghosh et al., AAAI 2017; scale as in Ma et al., ICML 2020, released code.
    """
    return 1 - _log_p_label(logits, label).exp()


def reverse_cross_entropy(logits: Logits, label: Label) -> LossMap:
    """Cross-entropy with p and the label swapped, and ln 1e-4 for ln 0: 9.21 (1 - p_y).

    Source: Wang et al., ICCV 2019. A multiple of `mean_absolute_error`, whatever K.
    """
    return -LOG_ZERO * mean_absolute_error(logits, label)


def symmetric_cross_entropy(logits: Logits, label: Label, alpha: float = 0.1, beta: float = 1.0) -> LossMap:
    """Weighted sum alpha CE + beta RCE. Source: Wang et al., ICCV 2019."""
    log_p = _log_p_label(logits, label)
    return beta * LOG_ZERO * (log_p.exp() - 1) - alpha * log_p


def normalised_cross_entropy(logits: Logits, label: Label) -> LossMap:
    """Cross-entropy over its sum for all labels: ln p_y / sum_k ln p_k, in [0, 1]. Source: Ma et al., ICML 2020."""
    log_p = F.log_softmax(logits, 1)
    return _at_label(log_p, label) / log_p.sum(1)


def normalised_generalised_cross_entropy(logits: Logits, label: Label, q: float = 0.7) -> LossMap:
    """The same of generalised cross-entropy: (1 - p_y^q) / sum_k (1 - p_k^q). Source: Ma et al., ICML 2020."""
    missing = 1 - (q * F.log_softmax(logits, 1).clamp(min=LOG_SMALLEST)).exp()  # (B, K, H, W)
    return _at_label(missing, label) / missing.sum(1)


def nce_and_rce(logits: Logits, label: Label) -> LossMap:
    """Active passive loss NCE + RCE. Source: Ma et al., ICML 2020."""
    return normalised_cross_entropy(logits, label) + reverse_cross_entropy(logits, label)


def ngce_and_mae(logits: Logits, label: Label, q: float = 0.7) -> LossMap:
    """Active passive loss NGCE + MAE. Source: Ma et al., ICML 2020."""
    return normalised_generalised_cross_entropy(logits, label, q) + mean_absolute_error(logits, label)


def ngce_and_rce(logits: Logits, label: Label, q: float = 0.7) -> LossMap:
    """Active passive loss NGCE + RCE. Source: Ma et al., ICML 2020."""
    return normalised_generalised_cross_entropy(logits, label, q) + reverse_cross_entropy(logits, label)


def focal(logits: Logits, label: Label, gamma: float = 2.0) -> LossMap:
    """(1 - p_y)^gamma times the cross-entropy. Source: Lin et al., ICCV 2017, without its class weight alpha."""
    log_p = _log_p_label(logits, label)
    return -((1 - log_p.exp()).clamp(min=1e-7) ** gamma) * log_p


def _log_p_label(logits: Tensor, label: Tensor) -> Tensor:
    return -F.cross_entropy(logits, label, reduction="none")


def _at_label(per_class: Tensor, label: Tensor) -> Tensor:
    return per_class.gather(1, label[:, None])[:, 0]
