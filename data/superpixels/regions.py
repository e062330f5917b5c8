"""Superpixels of slices and scans: foreground, segmentation, numbering. Pure functions; no files."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, Num
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import label as connected_components
from skimage.segmentation import felzenszwalb, slic

from dataloaders.samples import Volume
from util.errors import ConfigError

MIN_AREA_PX = 8 * 8  # one cell of the 32x32 feature grid of a 256x256 slice: a smaller mask may vanish on that grid


@dataclass(frozen=True)
class Felzenszwalb:
    """Graph segmentation of each slice on the stored intensities.

    Source: Felzenszwalb and Huttenlocher (IJCV 2004); parameters of SSL-ALPNet's released code.
    """

    scale: float = 1.0  # of the merge criterion; almost without effect on intensities far above 1
    sigma_px: float = 1.0
    min_size_px: int = 400


@dataclass(frozen=True)
class SlicePixels:
    """SLIC within the foreground of each slice.

    Source: Achanta et al. (TPAMI 2012); within a mask: Irving, "maskSLIC" (2016).
    """

    segment_area_px: int = 1000  # as MIDDLE inside the body
    compactness: float = 0.1  # against intensities scaled to [0, 1]


@dataclass(frozen=True)
class Supervoxels:
    """SLIC within the foreground of the whole scan, distances in millimetres; ids run on from slice to slice."""

    segment_volume_ml: float = 64.0  # a cube of 4 cm: 1000 px of a CHAOST2 slice, as for SlicePixels
    compactness: float = 0.1  # against intensities scaled to [0, 1]


SCALES: dict[str, Felzenszwalb | SlicePixels | Supervoxels] = {
    "SMALL": Felzenszwalb(sigma_px=0.8, min_size_px=100),  # for coarser grids, or finer pseudo-organs
    "MIDDLE": Felzenszwalb(),
    "SLIC": SlicePixels(),
    "SUPERVOXEL": Supervoxels(),
}


@dataclass(frozen=True)
class Recipe:
    """All parameters of a scan's superpixels.

    Raises:
        ConfigError: a value is unknown or out of range.
    """

    scale: str  # key of SCALES
    foreground_above: float | None  # prepared intensity, as the data set's description has it; None: Otsu's threshold
    numbering: str = "compact"  # or "legacy"
    min_area_px: int = MIN_AREA_PX  # smaller pieces are dropped; without effect on legacy numbering

    def __post_init__(self):
        if self.scale not in SCALES:
            raise ConfigError(f"scale={self.scale!r}: unknown; expected one of {', '.join(SCALES)}.")
        if self.numbering not in ("compact", "legacy"):
            raise ConfigError(f"numbering={self.numbering!r}: unknown; expected 'compact' or 'legacy'.")
        if self.numbering == "legacy" and self.scale != "MIDDLE":
            raise ConfigError(f"numbering='legacy' exists for scale MIDDLE only, not {self.scale}; use 'compact'.")
        if self.min_area_px < 0:
            raise ConfigError(f"min_area_px={self.min_area_px}: expected 0 (keep every piece) or more.")

    def parameters(self) -> dict[str, Any]:
        """The manifest's record: superpixels made with others are stale."""
        algorithm = SCALES[self.scale]
        shared = {"foreground_above": self.foreground_above, "numbering": self.numbering}
        area = {} if self.numbering == "legacy" else {"min_area_px": self.min_area_px}
        return {"algorithm": type(algorithm).__name__, **asdict(algorithm), **shared, **area}


def foreground_mask(slice_: Num[np.ndarray, "H W"], above: float) -> Bool[np.ndarray, "H W"]:
    """The body on one slice: the largest 8-connected component of the pixels above a threshold, its holes filled."""
    components = np.asarray(connected_components(slice_ > above))
    sizes = np.bincount(components.ravel())[1:]
    if not sizes.size:
        return np.zeros(slice_.shape, bool)
    return np.asarray(ndimage.binary_fill_holes(components == 1 + sizes.argmax()))


def felzenszwalb_slice(slice_: Num[np.ndarray, "H W"], config: Felzenszwalb) -> Int[np.ndarray, "H W"]:
    """Graph segmentation of one slice into regions 0..M.

    Note: intensities enter as they are. The cast keeps scikit-image from rescaling integers, which would change the
    balance between `scale` and the differences of neighbouring pixels.
    """
    return felzenszwalb(
        slice_.astype(np.float64), scale=config.scale, sigma=config.sigma_px, min_size=config.min_size_px
    )


def slic_slice(
    slice_: Num[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"], config: SlicePixels
) -> Int[np.ndarray, "H W"]:
    """SLIC regions 1..M of one slice inside the mask, 0 outside."""
    return _masked_slic(slice_, mask, round(mask.sum() / config.segment_area_px), config.compactness)


def slic_volume(volume: Volume, mask: Bool[np.ndarray, "D H W"], config: Supervoxels) -> Int[np.ndarray, "D H W"]:
    """SLIC regions 1..M of a whole scan inside the mask, 0 outside."""
    spacing = np.array(volume.spacing_mm)
    n_segments = round(mask.sum() * spacing.prod() / 1000 / config.segment_volume_ml)
    return _masked_slic(volume.array, mask, n_segments, config.compactness, spacing / spacing.min())


def _masked_slic(array, mask, n_segments: int, compactness: float, spacing=None) -> np.ndarray:
    if n_segments < 2:
        return mask.astype(np.int64)
    return slic(
        array.astype(np.float64), n_segments, compactness, spacing=spacing, channel_axis=None, mask=mask, start_label=1
    )


def compact_numbering(
    raw: Int[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"], min_area_px: int = MIN_AREA_PX
) -> Int[np.ndarray, "H W"]:
    """Renumbers the regions inside the mask 1..K, none of them empty; 0 elsewhere.

    Pieces below `min_area_px` are dropped. The other pieces into which the mask cuts a region share its id.

    Args:
        raw: regions, numbered from 0 or more.
        mask: the foreground.
        min_area_px: least area of an 8-connected piece.
    """
    return _consecutive(_without_small_pieces(np.where(mask, raw + 1, 0), min_area_px))


def legacy_numbering(raw: Int[np.ndarray, "H W"], mask: Bool[np.ndarray, "H W"]) -> Int[np.ndarray, "H W"]:
    """Numbers the regions 0..M as the released code does: 0 is dropped, M becomes M + 1, absent ids leave gaps.

    Source: SSL-ALPNet, released code (pseudo-label generation).
    """
    last = raw.max()
    return np.where(mask & (raw > 0), np.where(raw == last, last + 1, raw), 0)


def _without_small_pieces(ids: np.ndarray, min_area_px: int) -> np.ndarray:
    pieces = np.asarray(connected_components(ids))
    is_large = np.bincount(pieces.ravel()) >= min_area_px
    return np.where(is_large[pieces], ids, 0)


def _consecutive(ids: np.ndarray) -> np.ndarray:
    is_present = np.bincount(ids.ravel()) > 0
    is_present[0] = False
    return (np.cumsum(is_present) * is_present)[ids]


def foreground_threshold(array: Num[np.ndarray, "D H W"], recipe: Recipe) -> float:
    """The intensity above which a pixel of a scan may be body: the recipe's, or Otsu's threshold of the whole scan.

    Source: Otsu (IEEE Transactions on Systems, Man, and Cybernetics, 1979).
    """
    return float(threshold_otsu(array)) if recipe.foreground_above is None else recipe.foreground_above


def segment(volume: Volume, recipe: Recipe, above: float | None = None) -> Int[np.ndarray, "D H W"]:
    """Segments a scan (or some of its slices, unless the scale is volumetric) into superpixels.

    Args:
        volume: prepared intensities.
        recipe: how.
        above: `foreground_threshold` of the whole scan; needed where `volume` is a part of it. None: computed.

    Returns:
        Superpixel ids; 0: none.
    """
    algorithm = SCALES[recipe.scale]
    above = foreground_threshold(volume.array, recipe) if above is None else above
    masks = np.stack([foreground_mask(slice_, above) for slice_ in volume.array])
    if isinstance(algorithm, Supervoxels):
        regions = slic_volume(volume, masks, algorithm)
        return _consecutive(np.stack([_without_small_pieces(ids, recipe.min_area_px) for ids in regions]))
    ids = np.zeros(volume.array.shape, np.int64)
    for z in np.flatnonzero(masks.any((1, 2))):
        slice_, mask = volume.array[z], masks[z]
        is_graph = isinstance(algorithm, Felzenszwalb)
        raw = felzenszwalb_slice(slice_, algorithm) if is_graph else slic_slice(slice_, mask, algorithm)
        is_legacy = recipe.numbering == "legacy"
        ids[z] = legacy_numbering(raw, mask) if is_legacy else compact_numbering(raw, mask, recipe.min_area_px)
    return ids
