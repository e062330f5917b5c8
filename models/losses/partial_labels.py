"""Losses of images that are annotated for some tasks only. Pure functions.

A task is one or several classes that are annotated together, such as the four lesions; its classes are neighbours among
the K channels of the logits. Every class has a sigmoid of its own and classes may overlap, so an unknown class takes
part in nothing: it is not background, and no gradient reaches its logits. Nothing here waits for the device.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


def binary_dice(
    logits: Float[Tensor, "B K H W"],
    target: Bool[Tensor, "B K H W"],
    is_known: Bool[Tensor, "B K"],
    valid: Bool[Tensor, "B V H W"] | None = None,
    smooth: float = 1e-5,
) -> Float[Tensor, "B K"]:
    """1 - (2 sum p t + s) / (sum p^2 + sum t^2 + s) of each image and class, with p = sigmoid(logits).

    Args:
        logits: on the grid of the target, any floating type; computed in at least float32.
        target: one mask per class; meaningless where the class is unknown or the pixel is not valid.
        is_known: whether the class is annotated in the image.
        valid: pixels that count, of all classes (V = 1) or of each (V = K); None: all.
        smooth: s; with 1e-5 an absent class gives a loss near 1 with hardly any gradient, with 1 it teaches more.

    Returns:
        0 to 1; 0 with zero gradient where the class is unknown or no pixel counts.

    Source: PSSNet, released code (s = 1e-5).
    Note: there pixels without a label (255) count as background of every class; `valid=None` and False in the target
        do the same.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, counts = _counted(logits, is_known, valid)
        p, t = logits.sigmoid() * counts, (target & counts).to(logits.dtype)
        over_pixels = (2, 3)
        shared = 2 * (p * t).sum(over_pixels) + smooth
        return 1 - shared / (p.square().sum(over_pixels) + t.sum(over_pixels) + smooth)


def binary_cross_entropy(
    logits: Float[Tensor, "B K H W"],
    target: Bool[Tensor, "B K H W"],
    is_known: Bool[Tensor, "B K"],
    valid: Bool[Tensor, "B V H W"] | None = None,
) -> Float[Tensor, "B K"]:
    """Mean binary cross-entropy over the pixels that count, of each image and class.

    Args:
        logits: as in `binary_dice`.
        target: as in `binary_dice`.
        is_known: as in `binary_dice`.
        valid: as in `binary_dice`.

    Returns:
        At least 0; 0 with zero gradient where the class is unknown or no pixel counts.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits, counts = _counted(logits, is_known, valid)
        loss = F.binary_cross_entropy_with_logits(logits, (target & counts).to(logits.dtype), reduction="none")
        return (loss * counts).sum((2, 3)) / counts.sum((2, 3)).clamp(min=1)


def _counted(logits: Tensor, is_known: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Logits in full precision, 0 where they do not count, and where they count (B, K, H, W).

    Replacing the logits instead of multiplying a loss by 0 keeps values that are not finite out of the gradient.
    """
    counts = is_known[:, :, None, None].expand(logits.shape)
    if valid is not None:
        counts = counts & valid
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return torch.where(counts, logits, 0.0), counts


def task_means(loss: Float[Tensor, "B K"], is_known: Bool[Tensor, "B K"], tasks: Sequence[int]) -> Float[Tensor, " T"]:
    """Loss of each task: mean over its known classes in an image, then over the images that have any.

    Args:
        loss: of each image and class.
        is_known: whether the class counts in the image; some classes of a task may be known without the others.
        tasks: number of classes of each of T tasks, in the order of the channels.

    Returns:
        0 with zero gradient for a task that no image is annotated for.

    Raises:
        ValueError: the tasks have other than K classes.

    Source: PSSNet, released code, where each image is annotated for one task.
    """
    means = []
    for one, known in zip(_split(torch.where(is_known, loss, 0.0), tasks), _split(is_known, tasks), strict=True):
        per_image = one.sum(1) / known.sum(1).clamp(min=1)  # (B,)
        means.append(per_image.sum() / known.any(1).sum().clamp(min=1))
    return torch.stack(means)


def known_tasks(is_known: Bool[Tensor, "B K"], tasks: Sequence[int]) -> Bool[Tensor, "B T"]:
    """Whether all classes of a task are annotated in the image.

    Args:
        is_known: whether the class is annotated.
        tasks: as in `task_means`.

    Raises:
        ValueError: the tasks have other than K classes.
    """
    return torch.stack([known.all(1) for known in _split(is_known, tasks)], 1)


def _split(values: Tensor, tasks: Sequence[int]) -> tuple[Tensor, ...]:
    """(B, K) as T tensors, one for the classes of each task."""
    if sum(tasks) != values.shape[1] or min(tasks) < 1:
        raise ValueError(f"tasks of {tuple(tasks)} classes, values of {values.shape[1]}; expected the same number")
    return values.split(tuple(tasks), 1)
