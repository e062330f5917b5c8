"""The guided filter: smooths maps within regions, but not across the edges of an image."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def guided_filter(
    guide: Float[Tensor, "B 1 H W"],
    maps: Float[Tensor, "B M h w"],
    radius_px: tuple[int, int],
    epsilon: float,
    stride: int = 1,
) -> Float[Tensor, "B M H W"]:
    """Maps as a linear function of the guide in every window, a I + b, averaged over all windows of a pixel.

    a = cov(I, P) / (var I + epsilon), b = mean P - a mean I. Windows end at the image's edge. Maps that sum to 1 do so
    afterwards; single values may leave [0, 1].

    Args:
        guide: the image I.
        maps: P, enlarged to the filter's grid by linear interpolation.
        radius_px: of the window along rows and columns, in pixels of the filter's grid.
        epsilon: variance of the guide below which a region counts as flat.
        stride: pixels of the guide per pixel of the filter's grid; above 1 for speed.

    Source: He, Sun and Tang, "Guided image filtering", ECCV 2010, equations 4 to 8; stride: He and Sun, "Fast guided
    filter", 2015.
    """
    size = [max(1, side // stride) for side in guide.shape[-2:]]
    small = F.interpolate(guide, size, mode="area")
    maps = F.interpolate(maps, size, mode="bilinear", align_corners=False)

    def mean(values: Tensor) -> Tensor:
        for kernel, pad in (
            ((2 * radius_px[0] + 1, 1), (radius_px[0], 0)),
            ((1, 2 * radius_px[1] + 1), (0, radius_px[1])),
        ):
            values = F.avg_pool2d(values, kernel, 1, pad, count_include_pad=False)
        return values

    n_maps = maps.shape[1]
    means = mean(torch.cat([small, small.square(), maps, small * maps], 1))
    mean_i, mean_p, mean_ip = means[:, :1], means[:, 2 : 2 + n_maps], means[:, 2 + n_maps :]
    slope = (mean_ip - mean_i * mean_p) / (means[:, 1:2] - mean_i.square() + epsilon)
    both = mean(torch.cat([slope, mean_p - slope * mean_i], 1))
    both = F.interpolate(both, guide.shape[-2:], mode="bilinear", align_corners=False)
    return both[:, :n_maps] * guide + both[:, n_maps:]
