"""Prototypes of an annotated image as dense tensors with a validity mask, and their similarity to a query.

Unused prototypes are masked instead of removed: shapes are constant and nothing waits for the device.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

MAX_TEMPERATURE = 40.0  # e^(-2 * temperature) is still a normal number in single precision

_SMALLEST_NORM = 1e-4


@dataclass(frozen=True)
class Prototypes:
    """N directions in feature space for each of B episodes, and which of them are valid for each of M classes.

    Order: cells by shot, row, column; then masked averages by shot and class; then the mean of the averages by class.
    All classes share the cells.
    """

    direction: Float[Tensor, "*B N C"]  # L2-normalised (shorter only if the features are almost zero)
    is_valid: Bool[Tensor, "*B M N"]  # at least one per class


def inverse_norm(features: Float[Tensor, "..."], dim: int) -> Float[Tensor, "..."]:
    """One over the L2 norm along `dim`, which is kept with size 1; norms below 1e-4 count as 1e-4."""
    return features.square().sum(dim, keepdim=True).clamp_min(_SMALLEST_NORM**2).rsqrt()


def extract(
    features: Float[Tensor, "B S C h w"],
    masks: Float[Tensor, "B M S h w"],
    window: int,
    threshold: float,
    use_local: Bool[Tensor, "B M"],
    with_global: Bool[Tensor, " M"],
) -> Prototypes:
    """Prototypes of each class's mask: cells of `window` x `window` features, and masked averages.

    With `use_local`, the valid ones are the cells covered by more than `threshold`, and with `with_global` also each
    shot's masked average ("gridconv", "gridconv+"). Otherwise, or if no cell qualifies, only the mean over shots of the
    masked averages is valid ("mask"). All classes share the cells.

    Args:
        features: encoded support images, S shots.
        masks: soft masks of M classes in [0, 1] on the feature grid.
        window: side of a cell, in features.
        threshold: coverage above which a cell counts, in [0, 1).
        use_local: which classes of which episodes use cells.
        with_global: which classes use the shots' averages in addition to cells.

    Returns:
        Prototypes with N = S * (h // window) * (w // window) + M * (S + 1).

    Source: SSL-ALPNet, section 3.3, equations 2 and 3; masked average: PANet, equation 1.
    """
    n_classes, n_shots = masks.shape[1:3]
    cells = F.avg_pool2d(features.flatten(0, 1), window).flatten(2)  # (B*S, C, cells)
    cells = cells.unflatten(0, (-1, n_shots)).transpose(2, 3).flatten(1, 2)  # (B, S*cells, C)
    covered = F.avg_pool2d(masks.flatten(0, 1), window).flatten(1) > threshold
    covered = covered.unflatten(0, (-1, n_classes))  # (B, M, S*cells)
    is_local = (use_local & covered.any(2))[..., None]
    weighted = torch.einsum("bschw,bmshw->bmsc", features, masks)
    averages = weighted / (masks.sum((3, 4)) + 1e-5)[..., None]  # (B, M, S, C)
    averages = torch.cat([averages, averages.mean(2, keepdim=True)], 2)
    joins = (is_local & with_global[:, None]).expand(-1, -1, n_shots)
    is_own = torch.eye(n_classes, dtype=torch.bool, device=joins.device)[:, None]
    of_averages = torch.cat([joins, ~is_local], 2)[..., None] & is_own  # (B, M, S + 1, M)
    means = torch.cat([cells, averages.transpose(1, 2).flatten(1, 2)], 1)  # (B, N, C)
    return Prototypes(means * inverse_norm(means, 2), torch.cat([covered & is_local, of_averages.flatten(2)], 2))


def cosine_scores(
    query: Float[Tensor, "B Q C h w"], prototypes: Prototypes, temperature: float
) -> Float[Tensor, "B Q *G M h w"]:
    """Similarity of each query position to each class, weighted over prototypes: sum over n of softmax(d)_n d_n.

    d_n is `temperature` times the cosine between the position's feature and prototype n. The classes share the
    exponentials of the softmax; a product with the mask restricts a class's two sums to its valid prototypes.

    Args:
        query: features, not normalised.
        prototypes: of the episodes, (B, N, C), or of groups of classes in each, (B, *G, N, C).
        temperature: up to `MAX_TEMPERATURE`.

    Source: SSL-ALPNet, section 3.3, equations 4 and 5.
    """
    similarity = temperature * _cosines(query, prototypes)
    weight = (similarity - temperature).exp()  # from e^(-2 * temperature) to 1
    is_valid = prototypes.is_valid[:, None].to(weight)  # (B, 1, *G, M, N)
    return (is_valid @ (weight * similarity) / (is_valid @ weight)).unflatten(-1, query.shape[-2:])


def assignment(query: Float[Tensor, "B Q C h w"], prototypes: Prototypes) -> Int[Tensor, "B Q *G M h w"]:
    """Index of each class's most similar valid prototype at each position, for inspection."""
    cosines = _cosines(query, prototypes)[..., None, :, :]  # (B, Q, *G, 1, N, h*w)
    of_class = cosines.masked_fill(~prototypes.is_valid[:, None, ..., None], -torch.inf)
    return of_class.argmax(-2).unflatten(-1, query.shape[-2:])


def _cosines(query: Float[Tensor, "B Q C h w"], prototypes: Prototypes) -> Float[Tensor, "B Q *G N h*w"]:
    """One product for all groups; the product is normalised instead of the query's features, which are many more."""
    pixels = query.flatten(3)
    rows = prototypes.direction.flatten(1, -2)[:, None]  # (B, 1, G*N, C)
    return (rows @ pixels * inverse_norm(pixels, 2)).unflatten(2, prototypes.direction.shape[1:-1])
