"""Pseudo-labels: masks made from a network's probabilities, on which another training takes place."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from dataloaders.samples import ClassRelation
from util.errors import ConfigError, DataError
from util.schema import check_bounds, option

UNKNOWN = 255  # in label maps: pixels that do not count
MAX_CLASSES = 254  # of a label map


@dataclass(frozen=True)
class PseudoLabelConfig:
    """Which probabilities become labels. The defaults are those of PSSNet, released code: no filters."""

    thresholds: tuple[float, ...] = option((0.5,), ge=0, lt=1)  # probability above which a class is marked; 1 or K
    min_confidence: float = option(0.0, ge=0, le=1)  # least probability of a pixel's label, or it is unknown; 0: off
    min_area_px: int = option(0, ge=0)  # smaller regions (8-connected) are unknown, pixels of the image; 0: off

    def __post_init__(self) -> None:
        check_bounds(self)

    def per_class(self, n_classes: int) -> Float[np.ndarray, "K 1 1"]:
        """The threshold of each class.

        Raises:
            ConfigError: neither one threshold nor one per class.
        """
        if len(self.thresholds) not in (1, n_classes):
            raise ConfigError(
                f"thresholds={self.thresholds}: {len(self.thresholds)} thresholds for {n_classes} classes; expected "
                "one for all, or one for each."
            )
        return np.broadcast_to(np.array(self.thresholds), n_classes).reshape(-1, 1, 1)


@dataclass(frozen=True)
class PseudoLabels:
    """The masks of one task in one image.

    Attributes:
        masks: marked pixels; False where the label is unknown because its region is too small.
        is_certain: pixels whose label passed the filters; all others do not count in training.
        relation: of the classes.
    """

    masks: Bool[np.ndarray, "K H W"]
    is_certain: Bool[np.ndarray, "K H W"]
    relation: ClassRelation

    @property
    def label_map(self) -> UInt8[np.ndarray, "H W"]:
        """Class values 1 to K, 0 for none, `UNKNOWN` where the label of any class is uncertain.

        Nested classes have the value of the innermost one.

        Raises:
            DataError: classes overlap that are not nested, or there are more than `MAX_CLASSES`.
        """
        if len(self.masks) > MAX_CLASSES:
            raise DataError(f"{len(self.masks)} classes; expected at most {MAX_CLASSES} in a label map.")
        if self.relation != "nested" and (self.masks.sum(0) > 1).any():
            raise DataError("independent classes overlap, which a label map cannot hold. Store one mask per class.")
        value = np.zeros(self.masks.shape[1:], np.uint8)
        for number, mask in enumerate(self.masks, start=1):
            value[mask] = number
        value[~self.is_certain.all(0)] = UNKNOWN
        return value


def make_pseudo_labels(
    probabilities: Float[np.ndarray, "K H W"], relation: ClassRelation, config: PseudoLabelConfig
) -> PseudoLabels:
    """Labels of one task in one image.

    independent: every class above its threshold. exclusive: of the classes above their thresholds the most probable
    one, the first of equal ones. nested: a class above its threshold also marks those around it, so a cup pixel outside
    the disc becomes cup and disc.

    Args:
        probabilities: of the classes of one task, 0 to 1; of nested ones the outermost first.
        relation: of the classes.
        config: thresholds and filters.

    Raises:
        DataError: probabilities that are not finite or not from 0 to 1.
        ConfigError: another number of thresholds than of classes.

    Source: PSSNet, released code (vessel, lesions, disc and cup). The filters are ours.
    """
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise DataError(
            f"probabilities from {probabilities.min():g} to {probabilities.max():g}; expected 0 to 1. Check the "
            "training that made them: its loss may have diverged."
        )
    is_above = probabilities > config.per_class(len(probabilities))
    if relation == "exclusive":
        best = np.where(is_above, probabilities, -1).argmax(0)
        masks = is_above & (best == np.arange(len(probabilities))[:, None, None])
    elif relation == "nested":
        masks = np.logical_or.accumulate(is_above[::-1])[::-1]
        probabilities = np.maximum.accumulate(probabilities[::-1])[::-1]
    else:
        masks = is_above
    is_certain = np.where(masks, probabilities, 1 - probabilities) >= config.min_confidence
    is_small = np.stack([small_regions(mask, config.min_area_px) for mask in masks])
    return PseudoLabels(masks & ~is_small, is_certain & ~is_small, relation)


def small_regions(mask: Bool[np.ndarray, "H W"], min_area_px: int) -> Bool[np.ndarray, "H W"]:
    """The pixels of a mask that are in 8-connected regions of fewer than `min_area_px` pixels."""
    if min_area_px <= 1:
        return np.zeros_like(mask)
    region = np.asarray(cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[1], np.int32)
    return mask & (np.bincount(region.ravel()) < min_area_px)[region]
