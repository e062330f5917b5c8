"""From the grey values of a mask file to a mask: interpolated greys are thresholded, a label map is refused."""

from pathlib import Path

import numpy as np
from scipy import ndimage

from util.errors import DataError

GREATEST = 255  # value of 8-bit masks
NEAR = 1 / 8  # of the largest value: greys so near to background or object are taken for it
FLAT_PX = 3  # side of the smallest flat area: interpolated greys differ from their neighbours on both sides
PEAK_PX = 4  # pixels of one value that are higher than all around, and far from the object: a small label
FEW_VALUES = 3  # between background and object; interpolation leaves more
FLAT_SHARE = 0.6  # of the greys near to background or object: more in flat areas are labels, not compression
MOST_GREYS = 0.5  # share of the image in greys between background and object; more are a picture
GREYS_PER_OBJECT, FEW_GREYS = 4, 0.01  # likewise: for each pixel of the object, plus a share of the image
LISTED = 6  # values in a message


def threshold_mask(path: Path, grey: np.ndarray) -> tuple[np.ndarray, int]:
    """A mask as (H, W) bool, and the number of pixels that were neither background nor the object's one value.

    A mask of 0 and one other value is the object wherever it is not 0. Greys in between are thresholded at half of the
    greatest value, if interpolation or lossy compression can have left them: they are few, and nowhere flat. An area of
    one grey value is a label.

    Args:
        path: of the mask, for the message.
        grey: (H, W) uint8, or whole numbers or fractions from 0 to 65535.

    Raises:
        DataError: a label map of several values, a picture, or values below 0 or not finite.
    """
    if grey.dtype.kind == "f" and not np.isfinite(grey).all():
        raise _no_mask(path, "values that are not finite")
    values, counts = _counts(grey)
    if values[0] < 0:
        raise _no_mask(path, f"values from {values[0]:g}")
    if np.count_nonzero(values) <= 1:
        return grey > 0, 0
    greatest = GREATEST if grey.dtype == np.uint8 else np.iinfo(np.uint16).max
    if values[-1] <= greatest // 2 or not _is_interpolated(grey, values, counts):
        raise _label_map(path, values, counts, greatest)
    return grey > greatest // 2, int(np.count_nonzero((grey > 0) & (grey < greatest)))


def _no_mask(path: Path, found: str) -> DataError:
    return DataError(f"{path}: {found}; expected a mask of 0 and one other value. Export it again.")


def _is_interpolated(grey: np.ndarray, values: np.ndarray, counts: np.ndarray) -> bool:
    """Whether the greys are few and no flat areas, as interpolation or lossy compression leaves them at outlines."""
    top = float(values[-1])
    is_low, is_high = values <= NEAR * top, values >= (1 - NEAR) * top
    n_between, n_high = counts[~is_low & ~is_high].sum(), counts[is_high].sum()
    if not is_low.any() or n_between > min(MOST_GREYS * grey.size, GREYS_PER_OBJECT * n_high + FEW_GREYS * grey.size):
        return False
    n_flat = _count_flat(grey, values)
    is_main = np.isin(values, [values[near][counts[near].argmax()] for near in (is_low, is_high)])
    is_label = (n_flat >= FLAT_PX**2) & (2 * n_flat > counts) & ~is_main
    is_near = (is_low | is_high) & ~is_main  # compression leaves flat blocks, too, but not alone
    if n_flat[is_near].sum() <= FLAT_SHARE * counts[is_near].sum():
        is_label &= ~is_near
    if np.count_nonzero(~is_low & ~is_high) <= FEW_VALUES:
        n_peak = _count_peaks(grey, values)
        is_label |= (n_peak >= PEAK_PX) & (2 * n_peak > counts) & ~is_low & ~is_high
    return not is_label.any()


def _count_flat(grey: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For each value, the number of its pixels that are in a square of `FLAT_PX` pixels a side of that value alone."""
    lowest, highest = ndimage.minimum_filter(grey, FLAT_PX), ndimage.maximum_filter(grey, FLAT_PX)
    is_flat = np.asarray(ndimage.maximum_filter(lowest == highest, FLAT_PX), bool)
    return _counts_of(values, grey[is_flat])


def _count_peaks(grey: np.ndarray, values: np.ndarray) -> np.ndarray:
    """For each value, the number of its pixels without a higher one in a square of `PEAK_PX` + 1 pixels a side."""
    return _counts_of(values, grey[np.asarray(ndimage.maximum_filter(grey, PEAK_PX + 1)) == grey])


def _counts(grey: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values of an array and the number of pixels of each; without sorting where values are small."""
    if grey.dtype not in (np.uint8, np.uint16):
        return np.unique(grey, return_counts=True)
    counts = np.bincount(grey.reshape(-1))
    values = np.flatnonzero(counts)
    return values, counts[values]


def _counts_of(values: np.ndarray, grey: np.ndarray) -> np.ndarray:
    """For each of `values`, the number of pixels of `grey`, which has no other ones."""
    result = np.zeros(len(values), np.int64)
    if grey.size:
        found, counts = _counts(grey)
        result[np.searchsorted(values, found)] = counts
    return result


def _label_map(path: Path, values: np.ndarray, counts: np.ndarray, greatest: int) -> DataError:
    order = np.argsort(-counts)
    named = [place for place in order if values[place]][:LISTED]
    listed = ", ".join(f"{values[place]:g} ({counts[place]} pixels)" for place in sorted(named))
    more = f" and {np.count_nonzero(values) - LISTED} more" if np.count_nonzero(values) > LISTED else ""
    return DataError(
        f"{path}: values {listed}{more} besides 0, which are labels or a picture, no outline smoothed by "
        f"interpolation; expected a mask of 0 and one other value. Write the object as {greatest} and all else as 0; "
        "or, if the values are different structures, describe the set as your own with a class for each (classes: "
        "[{name: ..., value: ...}], docs/own_data.md)."
    )
