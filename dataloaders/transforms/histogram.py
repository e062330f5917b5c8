"""Histogram matching by tables of quantiles: small, exact up to the table's steps, and computed for a whole batch."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

N_QUANTILES = 257  # of a table: from the least to the largest value in steps of 1/256


def quantile_table(values: Float[np.ndarray, "..."]) -> Float[np.ndarray, " Q"]:
    """The `N_QUANTILES` quantiles of some values, ascending; float32."""
    return np.quantile(values, np.linspace(0, 1, N_QUANTILES)).astype(np.float32)


def match(
    image: Float[Tensor, "B H W"], own: Float[Tensor, "B Q"], reference: Float[Tensor, "B Q"]
) -> Float[Tensor, "B H W"]:
    """Gives each image the distribution of intensities of its reference; the order of its pixels stays.

    Args:
        image: intensities.
        own: its table of quantiles; values beyond it are mapped to the ends of the reference.
        reference: the table of another image.

    Note: a value that many pixels have is mapped to the quantile at which its run ends, as
        `skimage.exposure.match_histograms` does; between two entries of the table the map is linear.
    """
    values = image.flatten(1).contiguous()
    last = own.shape[1] - 1
    above = torch.searchsorted(own.contiguous(), values, right=True).clamp(1, last)
    below = above - 1
    start, end = own.gather(1, below), own.gather(1, above)
    share = ((values - start) / (end - start).clamp(min=1e-12)).clamp(0, 1)
    low, high = reference.gather(1, below), reference.gather(1, above)
    return torch.lerp(low, high, share).view_as(image)
