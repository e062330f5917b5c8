"""Adversarial losses between a segmentation network and one discriminator per task. Pure functions.

The discriminator of a task sees predicted maps, never ground truth. It learns to tell images of data sets whose
annotations the task is trained on from all others; the segmentation network learns to make the latter look alike. A
pair of an image and a task is "known" if the image is annotated for the task.

Source: PSSNet, released code.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def segmentor_loss(
    logits: Float[Tensor, "B T h w"], is_known: Bool[Tensor, "B T"], source: Int[Tensor, " B"], n_sources: int
) -> Float[Tensor, " T"]:
    """What the segmentation network minimises: unknown maps that the discriminator does not take for known ones.

    Args:
        logits: of task t's discriminator for the predicted map of an image, before the sigmoid. Its weights are frozen
            for this term; the gradient is for the map.
        is_known: whether the image is annotated for the task.
        source: data set of the image, 0 to n_sources - 1.
        n_sources: number of data sets.

    Returns:
        Per task, the sum over data sets of the mean binary cross-entropy with target 1 over their unknown images; 0
        where all are known. Not yet weighted (PSSNet: 0.1; 0.02 for the auxiliary head).
    """
    n_images, _ = _count(~is_known, source, n_sources)
    return (F.softplus(-_full(logits)).mean((2, 3)) / n_images).where(~is_known, 0.0).sum(0)


def discriminator_loss(
    logits: Float[Tensor, "B T h w"], is_known: Bool[Tensor, "B T"], source: Int[Tensor, " B"], n_sources: int
) -> Float[Tensor, " T"]:
    """What the discriminators minimise: target 1 for known, 0 for unknown maps.

    Args:
        logits: as in `segmentor_loss`, but of detached maps.
        is_known: as in `segmentor_loss`.
        source: as in `segmentor_loss`.
        n_sources: as in `segmentor_loss`.

    Returns:
        Per task, half the mean over data sets with known images plus half the mean over those with unknown ones, each
        data set being the mean over its images; a half without any image is 0.

    Note: published for one known data set per task, and data sets of equal numbers of images in every batch.
    """
    logits = _full(logits)
    terms = []
    for is_chosen, sign in ((is_known, -1), (~is_known, 1)):
        n_images, n_sets = _count(is_chosen, source, n_sources)
        term = (F.softplus(sign * logits).mean((2, 3)) / n_images).where(is_chosen, 0.0)
        terms.append(term.sum(0) / n_sets)
    return (terms[0] + terms[1]) / 2


def _full(logits: Tensor) -> Tensor:
    return logits.float() if logits.itemsize < 4 else logits


def _count(
    is_chosen: Bool[Tensor, "B T"], source: Int[Tensor, " B"], n_sources: int
) -> tuple[Int[Tensor, "B T"], Int[Tensor, " T"]]:
    """Number of chosen images in the data set of each image, and of data sets with any; at least 1."""
    belongs = source[:, None] == torch.arange(n_sources, device=source.device)  # (B, n_sources)
    n_images = (belongs[:, :, None] & is_chosen[:, None]).sum(0)  # (n_sources, T)
    return n_images[source.long()].clamp(min=1), (n_images > 0).sum(0).clamp(min=1)
