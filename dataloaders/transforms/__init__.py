"""Batched augmentation, each in two halves: `draw(generator) -> parameters` and `apply(tensors, parameters)`.

Parameters are small and come from one NumPy generator per sample, so a sample is the same whichever process or device
applies them. Nothing here loops over samples or pixels.

Few-shot episodes use `draw` and `apply` of this package, dense batches those of its module `dense`.
"""

from dataloaders.transforms import dense
from dataloaders.transforms.episode import PRESETS, Augmentation, AugmentConfig, apply, draw

__all__ = ["PRESETS", "AugmentConfig", "Augmentation", "apply", "dense", "draw"]
