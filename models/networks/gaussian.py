"""Gaussian smoothing along one axis, on a device."""

import torch
from torch import Tensor

TRUNCATED_AT = 2.5  # standard deviations


def reach_of(sigma: float) -> int:
    """How many elements on either side count; at least one."""
    return max(1, int(TRUNCATED_AT * sigma + 0.5))


def blur_along(values: Tensor, sigma: float, dim: int) -> Tensor:
    """Smooths any tensor along one of its axes; zeros beyond the ends.

    A product with the matrix of all weights along the axis: several times faster than a convolution of one channel.

    Args:
        values: of a floating-point dtype.
        sigma: standard deviation in elements, greater than 0; the kernel has at least three taps.
        dim: the axis.
    """
    radius = reach_of(sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=values.device) / sigma).square())
    places = torch.arange(values.shape[dim], device=values.device)
    distance = (places[:, None] - places).abs()
    weights = kernel[(radius + distance).clamp_max(2 * radius)] * (distance <= radius) / kernel.sum()
    return (values.movedim(dim, -1) @ weights.to(values)).movedim(-1, dim)
