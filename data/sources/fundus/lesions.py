"""Masks of the four kinds of lesions of diabetic retinopathy, made exclusive."""

import numpy as np

from data.sources.mask_files import unite_masks
from data.sources.raw_images import Masks, RawImage

LESIONS = ("EX", "HE", "SE", "MA")  # hard exudates, haemorrhages, soft exudates, microaneurysms, as they are painted


def read_lesions(raw: RawImage, shape: tuple[int, int]) -> Masks:
    """Reads the masks of an image; of the lesions at a pixel, the last one in the order of `LESIONS` remains.

    Args:
        raw: the image; other structures than lesions may overlap with all.
        shape: rows and columns of the upright image.

    Raises:
        DataError: see `unite_masks`.

    Source: PSSNet (Pattern Recognition 2024), released code.
    Note: masks as supplied overlap in a few pixels; the task "lesion" of these sets is exclusive.
    """
    masks = unite_masks(raw, shape)
    painted_over = np.zeros(shape, bool)
    for name in reversed(LESIONS):
        mask, n_not_binary = masks[name]
        masks[name] = mask & ~painted_over, n_not_binary
        painted_over |= mask
    return masks
