"""Preparation of users' own images for the networks, in `frugalseg prepare` and in prediction."""

from pathlib import Path

import numpy as np

from dataloaders.description import DatasetSpec
from dataloaders.io import pictures
from util.errors import DataError


def read_image(path: Path, spec: DatasetSpec) -> np.ndarray:
    """Reads a picture as (H, W) or (H, W, 3) with the description's channels: uint8, or uint16 if it has more bits.

    Values of a `window` are mapped to the whole range of the result; without one, whole numbers stay as they are.

    Raises:
        DataError: absent, damaged, or fractions without a window.
    """
    image, rule = pictures.read_picture(path), spec.intensity
    if (image.ndim == 3) != (spec.channels == 3):
        image = np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else pictures.to_grey(image)
    dtype = np.uint8 if image.dtype == np.uint8 else np.uint16
    largest = np.iinfo(dtype).max
    if rule.clip_percentile is not None:
        image = np.minimum(image, np.percentile(image, rule.clip_percentile)).astype(image.dtype)
    if rule.window is not None:
        low, high = rule.window
        image = np.rint(np.clip((image.astype(np.float64) - low) / (high - low), 0, 1) * largest).astype(dtype)
    elif image.dtype.kind == "f":
        if not (np.isfinite(image).all() and image.min() >= 0 and image.max() <= 1):
            raise DataError(
                f"{path}: fractions from {image.min():g} to {image.max():g}; expected 0 to 1, or a window in the "
                "description: intensity: {window: [LOWEST, HIGHEST]}."
            )
        image = np.rint(image.astype(np.float64) * largest).astype(dtype)
    return largest - image if rule.inverted else image


def to_depth(image: np.ndarray, bits: int) -> np.ndarray:
    """Scales an image of 8 bits to the whole range of 16 bits where the set has 16."""
    return image.astype(np.uint16) * 257 if bits == 16 and image.dtype == np.uint8 else image
