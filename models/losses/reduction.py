"""Class-balanced mean of a loss per pixel."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

LARGEST_WEIGHT = 1e6  # of a foreground class


def class_weights(
    label: Int[Tensor, "B H W"], is_kept: Bool[Tensor, "B H W"] | None, n_classes: int
) -> Float[Tensor, " K"]:
    """Weight of each class: 1 for the background; for the others background pixels / class pixels, at least 1.

    Only kept pixels are counted (None: all are kept). Nothing is read back to the host.

    Source: superpixel-guided learning, released code (two classes).
    Note: with more classes, each foreground class is weighted against the background in the same way.
    """
    classes = torch.arange(n_classes, device=label.device)
    is_class = label.flatten() == classes[:, None]  # (K, B*H*W)
    if is_kept is not None:
        is_class &= is_kept.flatten()
    n_pixels = is_class.sum(1).float()
    weights = (n_pixels[0] / (n_pixels + 1e-6)).clamp(1, LARGEST_WEIGHT)
    return torch.where(classes == 0, 1.0, weights)


def weighted_mean(
    loss_map: Float[Tensor, "B H W"],
    label: Int[Tensor, "B H W"],
    is_kept: Bool[Tensor, "B H W"] | None = None,
    n_classes: int = 2,
) -> Float[Tensor, ""]:
    """Mean loss of the kept pixels of a whole batch, each weighted by its label's `class_weights`.

    Args:
        loss_map: loss of each pixel; values of excluded pixels do not matter.
        label: class values from 0 to n_classes - 1.
        is_kept: the pixels that count; None: all.
        n_classes: including the background.

    Returns:
        The mean; 0, with zero gradient, if no pixel is kept.

    Source: superpixel-guided learning, released code; the guard is ours (there: 0/0).
    """
    weight = class_weights(label, is_kept, n_classes).to(loss_map.dtype)[label]  # (B, H, W)
    if is_kept is not None:
        weight = weight * is_kept
        loss_map = torch.where(is_kept, loss_map, 0.0)
    return (loss_map * weight).sum() / weight.sum().clamp(min=1)
