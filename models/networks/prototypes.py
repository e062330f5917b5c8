"""Prototypes of an annotated image as dense tensors with a validity mask, and their similarity to a query.

Whether a prototype takes part is a value in a mask, never a different shape or a branch: batches stay rectangular and
nothing waits for the device.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

_SMALLEST_NORM = 1e-4


@dataclass(frozen=True)
class Prototypes:
    """N directions in feature space for each of B episodes, of which the valid ones count.

    Order: local ones by shot, row, column; then the global one of each shot; then the mean of the global ones.
    """

    direction: Float[Tensor, "*B N C"]  # L2-normalised (shorter only where the features were almost zero)
    is_valid: Bool[Tensor, "*B N"]  # at least one per episode


def normalised(features: Float[Tensor, "*S"], dim: int) -> Float[Tensor, "*S"]:
    """Divides by the L2 norm along `dim`, clamped at 1e-4."""
    return features / torch.linalg.vector_norm(features, dim=dim, keepdim=True).clamp_min(_SMALLEST_NORM)


def extract(
    features: Float[Tensor, "B S C h w"],
    mask: Float[Tensor, "B S h w"],
    window: int,
    threshold: float,
    use_local: Bool[Tensor, " B"],
    with_global: bool,
) -> Prototypes:
    """Prototypes of what `mask` marks: cells of `window` x `window` features, and masked averages.

    In an episode where `use_local` holds, the valid ones are the cells covered by more than `threshold`, joined by each
    shot's masked average if `with_global` ("gridconv", "gridconv+"). Elsewhere, and where no cell qualifies, it is the
    mean over shots of the masked averages alone ("mask").

    Args:
        features: encoded support images, S shots.
        mask: soft masks in [0, 1] on the feature grid.
        window: side of a cell, in features.
        threshold: coverage above which a cell counts, in [0, 1).
        use_local: which episodes use cells.
        with_global: whether the shots' averages join the cells.

    Returns:
        Prototypes with N = S * (h // window) * (w // window) + S + 1.

    Source: SSL-ALPNet, section 3.3, equations 2 and 3; masked average: PANet, equation 1.
    """
    n_shots = features.shape[1]
    cells = F.avg_pool2d(features.flatten(0, 1), window).flatten(2)  # (B*S, C, cells)
    cells = cells.unflatten(0, (-1, n_shots)).permute(0, 1, 3, 2).flatten(1, 2)  # (B, S*cells, C)
    covered = F.avg_pool2d(mask, window).flatten(1) > threshold  # (B, S*cells)
    is_local = use_local & covered.any(1)
    weighted = torch.einsum("bschw,bshw->bsc", features, mask)
    averages = weighted / (mask.sum((2, 3)) + 1e-5)[..., None]  # (B, S, C)
    joined = torch.cat([cells, averages, averages.mean(1, keepdim=True)], 1)
    is_valid = torch.cat(
        [
            covered & is_local[:, None],
            (is_local & with_global)[:, None].expand(-1, n_shots),
            ~is_local[:, None],
        ],
        1,
    )
    return Prototypes(normalised(joined, 2), is_valid)


def cosine_scores(
    query: Float[Tensor, "*#B C h w"], prototypes: Prototypes, temperature: float
) -> Float[Tensor, "... h w"]:
    """Similarity of each query position to the prototypes, softly the best one: sum over n of softmax(d)_n d_n.

    Leading axes broadcast: one encoded image may be compared with the prototypes of several classes.

    d_n is `temperature` times the cosine between the position's feature (normalised here) and prototype n.

    Source: SSL-ALPNet, section 3.3, equations 4 and 5.
    """
    rows, columns = query.shape[-2:]
    similarity = prototypes.direction @ normalised(query, -3).flatten(-2)  # (*B, N, h*w)
    is_valid = prototypes.is_valid[..., None]
    similarity = (temperature * similarity).masked_fill(~is_valid, 0.0)
    weight = similarity.masked_fill(~is_valid, -torch.inf).softmax(-2)
    return (weight * similarity).sum(-2).unflatten(-1, (rows, columns))


def assignment(query: Float[Tensor, "*#B C h w"], prototypes: Prototypes) -> Int[Tensor, "... h w"]:
    """Index of the most similar valid prototype at each position, for looking at what the method matched."""
    similarity = prototypes.direction @ normalised(query, -3).flatten(-2)
    similarity = similarity.masked_fill(~prototypes.is_valid[..., None], -torch.inf)
    return similarity.argmax(-2).unflatten(-1, query.shape[-2:])
