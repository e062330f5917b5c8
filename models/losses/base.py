"""Base class of segmentation losses: full precision and strict shapes."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class SegmentationLoss(nn.Module, ABC):
    """Maps logits (B, K, H, W) and class values (B, H, W) to one number, in float32 even under autocast."""

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.n_classes = n_classes

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        """Loss of a batch.

        Args:
            logits: (B, K, H, W), any floating type; converted to at least float32.
            label: (B, H, W), integers from 0 to K - 1.

        Raises:
            ValueError: other shapes, another K, or labels that are not integers. Nothing is broadcast.
        """
        if logits.ndim != 4 or logits.shape[1] != self.n_classes:
            raise ValueError(f"logits {tuple(logits.shape)}; expected (B, {self.n_classes}, H, W)")
        if label.shape != (logits.shape[0], *logits.shape[2:]) or label.is_floating_point():
            raise ValueError(
                f"labels {label.dtype} {tuple(label.shape)}, logits {tuple(logits.shape)}; expected integers (B, H, W)"
            )
        with torch.autocast(logits.device.type, enabled=False):
            return self.loss(logits.to(torch.promote_types(logits.dtype, torch.float32)), label.long())

    @abstractmethod
    def loss(self, logits: Tensor, label: Tensor) -> Tensor:
        """The loss of checked logits in float32 or float64 and int64 labels."""


def one_hot(label: Tensor, n_classes: int) -> Tensor:
    """Class values (B, H, W) as K masks (B, K, H, W), bool."""
    classes = torch.arange(n_classes, device=label.device)
    return label[:, None] == classes[:, None, None]
