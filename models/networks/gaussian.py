"""Gaussian smoothing along one axis, on a device."""

import torch
import torch.nn.functional as F
from torch import Tensor

TRUNCATED_AT = 2.5  # standard deviations


def blur_along(values: Tensor, sigma: float, dim: int) -> Tensor:
    """Smooths any tensor along one of its axes; zeros beyond the ends.

    Args:
        values: of a floating-point dtype.
        sigma: standard deviation in elements, greater than 0; the kernel has at least three taps.
        dim: the axis.
    """
    radius = max(1, int(TRUNCATED_AT * sigma + 0.5))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=values.device) / sigma).square())
    lines = values.movedim(dim, -1)
    smooth = F.conv1d(
        lines.reshape(-1, 1, lines.shape[-1]), (kernel / kernel.sum()).to(values)[None, None], padding=radius
    )
    return smooth.reshape(lines.shape).movedim(-1, dim)
