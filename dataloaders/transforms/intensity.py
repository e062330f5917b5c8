"""Intensity augmentation."""

from jaxtyping import Float
from torch import Tensor


def gamma_correct(images: Float[Tensor, "B C H W"], gamma: Float[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
    """Raises each image, scaled to its own range, to the power `gamma`; the range is kept.

    Source: SSL-ALPNet, released code: m + R * ((x - m + e) / R) ** gamma, R = max - m + e, e = 1e-5.
    """
    tiny = 1e-5
    lowest = images.amin((1, 2, 3), keepdim=True)
    extent = images.amax((1, 2, 3), keepdim=True) - lowest + tiny
    return lowest + extent * ((images - lowest + tiny) / extent) ** gamma[:, None, None, None]
