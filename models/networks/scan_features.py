"""Features by which places of scans are compared: those of an encoder that sees the slices at several sizes."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from models.networks.backbones import OUTPUT_STRIDE
from models.networks.passes import run_in_chunks
from models.networks.prototypes import inverse_norm


def scan_features(
    encoder: Callable[[Tensor], Tensor],
    image: Float[Tensor, "D 1 H W"],
    enlargements: Sequence[float] = (1.0,),
    slices_per_pass: int = 16,
) -> Float[Tensor, "D h w C"]:
    """Features of all slices, of unit length.

    For each size, the scan's mean is subtracted and what remains is scaled to the same length, so that sizes count
    alike: the cosine of two places is the mean of their cosines at each size. Enlarged slices show fine structure that
    the encoder does not see otherwise, at their own size it sees more of the surroundings.

    Args:
        encoder: of images (B, 1, H, W), with output stride 8.
        image: normalised intensities.
        enlargements: factors on the sides of the slices.
        slices_per_pass: that are encoded together at their own size; fewer where they are larger.

    Returns:
        On the grid of the image itself, whatever the enlargement: h = ceil(H / 8), w = ceil(W / 8).
    """
    grid = [math.ceil(side / OUTPUT_STRIDE) for side in image.shape[-2:]]
    of_sizes = []
    for factor in enlargements:

        def encode(slices: Tensor, factor: float = factor) -> Tensor:
            if factor != 1:
                slices = F.interpolate(slices, scale_factor=factor, mode="bilinear", align_corners=False)
            return F.interpolate(encoder(slices).float(), grid, mode="area")

        per_pass = max(1, int(slices_per_pass / max(1.0, factor) ** 2))
        features = torch.cat(list(run_in_chunks(encode, per_pass, image)))
        features = features - features.mean((0, 2, 3), keepdim=True)
        of_sizes.append((features * inverse_norm(features, 1)).permute(0, 2, 3, 1))
    return torch.cat(of_sizes, -1) / len(of_sizes) ** 0.5
