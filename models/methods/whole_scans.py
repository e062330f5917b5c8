"""What few-shot methods share that compare whole scans and train nothing."""

from typing import Any

from jaxtyping import Bool, Float
from torch import Tensor

from dataloaders.samples import SupportScan, SupportSet
from models.methods.base import Untrained, exclusive_masks
from models.networks.postprocessing import postprocess_masks
from util.errors import ConfigError

Spacing = tuple[float, float, float]  # along (z, y, x), in mm


class WholeScanMethod(Untrained):
    """Compares a scan with annotated ones; its `config` has a field `postprocess`."""

    family = "fewshot"
    compares_scans = True
    config: Any

    def masks(self, probabilities: Float[Tensor, "K D H W"]) -> Bool[Tensor, "K D H W"]:
        """The most probable class or the background (`exclusive`), else each class above 1/2; then the switches."""
        options = self.config.postprocess
        masks = exclusive_masks(probabilities) if options.exclusive else probabilities > 0.5
        return postprocess_masks(masks, probabilities, options)


def require_scans(support: SupportSet) -> tuple[SupportScan, ...]:
    """The annotated scans.

    Raises:
        ConfigError: the support has slices only, and no whole scans.
    """
    if not support.scans:
        raise ConfigError("this method compares whole scans; the support set contains slices only.")
    return support.scans


def require_spacing(spacing_mm: Spacing | None) -> Spacing:
    """The distances between voxels.

    Raises:
        ConfigError: they are unknown.
    """
    if spacing_mm is None:
        raise ConfigError("this method needs the spacing of each scan in millimetres; it is unknown.")
    return spacing_mm
