"""Batched augmentation in two steps: `draw(generators) -> parameters` and `apply(tensors, parameters)`.

The parameters come from one NumPy generator per sample, so a sample does not depend on the process or the device that
applies them. There are no loops over samples or pixels.

Few-shot episodes use `draw` and `apply` of this package, dense batches those of the module `dense`.
"""

from dataloaders.transforms import dense
from dataloaders.transforms.episode import PRESETS, Augmentation, AugmentConfig, apply, draw

__all__ = ["PRESETS", "AugmentConfig", "Augmentation", "apply", "dense", "draw"]
