"""SLIC superpixels of one image, and their agreement with a mask. Pure functions; no files."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, UInt8, UInt16
from skimage.color import rgb2lab
from skimage.exposure import equalize_adapthist
from skimage.segmentation import slic

from dataloaders.images.folder import SuperpixelConfig
from util.results.metrics import overlap_counts, overlap_scores

N_ITERATIONS = 10


def segment_slic(
    image: UInt8[np.ndarray, "H W *C"] | UInt16[np.ndarray, "H W *C"],
    config: SuperpixelConfig,
    probability: Float[np.ndarray, "H W"] | None = None,
    equalised: bool = False,
) -> Int[np.ndarray, "H W"]:
    """Segments an image into superpixels by SLIC.

    Args:
        image: RGB or grey.
        config: resolved; a compactness of 10 weighs against Lab colours, one of 10/255 against values in [0, 1].
        probability: of the object, 0 to 1; for the source "gray+prob".
        equalised: whether the image's contrast is equalised locally (CLAHE) first.

    Returns:
        Ids from 0.

    Raises:
        ValueError: the configuration is not resolved.

    Source: Achanta et al. (TPAMI 2012); superpixel-guided learning, released code.
    Note: scikit-image now rescales its input to [0, 1], which the version of the reference did not. The compactness
        is divided by the same factor, so that its effect is that of the reference at any contrast.
    """
    values = equalize_adapthist(image) if equalised else image / float(np.iinfo(image.dtype).max)
    if config.source == "rgb":
        values = rgb2lab(values)
    elif probability is not None:
        values = np.stack([values, probability], axis=-1)
    if config.n_segments is None or config.compactness is None:
        raise ValueError(f"{config}: expected a resolved configuration")
    spread = float(np.ptp(values)) or 1.0
    return slic(
        values,
        n_segments=config.n_segments,
        compactness=config.compactness / spread,
        max_num_iter=N_ITERATIONS,
        sigma=0,
        start_label=0,
        convert2lab=False,
        channel_axis=-1 if values.ndim == 3 else None,
    )


def under_segmentation_error(ids: Integer[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"]) -> float:
    """Area of superpixels that touch an object outside of it, in areas of the object; NaN without object."""
    n_pixels, n_object = _counts(ids, mask)
    area = n_object.sum()
    return float((n_pixels[n_object > 0].sum() - area) / area) if area else float("nan")


def majority_mask(ids: Integer[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"]) -> Bool[np.ndarray, "H W"]:
    """The superpixels of which more than half belongs to the object: the best mask that they allow."""
    n_pixels, n_object = _counts(ids, mask)
    return (2 * n_object > n_pixels)[ids]


def _counts(ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pixels, and pixels of the object, per superpixel."""
    n_ids = int(ids.max()) + 1
    return np.bincount(ids.ravel(), minlength=n_ids), np.bincount(ids[mask], minlength=n_ids)


@dataclass(frozen=True)
class Quality:
    """Quality of the superpixels of one image.

    Attributes:
        n_segments: their number.
        under_segmentation: structure -> see `under_segmentation_error`.
        majority_dice: structure -> Dice of `majority_mask` and the expert's mask; NaN without object.
    """

    n_segments: int
    under_segmentation: dict[str, float]
    majority_dice: dict[str, float]


def measure_quality(ids: Integer[np.ndarray, "H W"], masks: dict[str, np.ndarray]) -> Quality:
    """Measures superpixels against the experts' masks (structure -> (H, W) bool)."""
    return Quality(
        n_segments=len(np.unique(ids)),
        under_segmentation={name: under_segmentation_error(ids, mask) for name, mask in masks.items()},
        majority_dice={
            name: overlap_scores(overlap_counts(majority_mask(ids, mask), mask)).dice for name, mask in masks.items()
        },
    )
