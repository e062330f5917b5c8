"""Label values: as a data set supplies them, and as prepared label maps hold them (1 to K, the class's place)."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Num, Shaped, UInt8, UInt16, UInt32

from dataloaders.description import BACKGROUND, DatasetSpec
from util.errors import DataError

LISTED = 5  # unknown values that a message names
WHOLE_WITHIN = 1e-3  # label maps scaled or resampled by other programs: 0.99999994 is 1
GREATEST_WHOLE = 2**53  # above it, float64 does not tell whole numbers apart


def whole_values(label: Shaped[np.ndarray, "*shape"]) -> Shaped[np.ndarray, "*shape"]:
    """A label map or mask as integers; values within `WHOLE_WITHIN` of a whole number are rounded to it.

    Args:
        label: any real dtype.

    Returns:
        Integers as they are, else int32 or int64.

    Raises:
        DataError: values that are not whole; the message shows them in full and does not name the file.
    """
    if label.dtype.kind in "biu":
        return label
    rounded = np.rint(label)
    with np.errstate(invalid="ignore"):
        is_whole = (np.abs(label - rounded) <= WHOLE_WITHIN) & (np.abs(rounded) <= GREATEST_WHOLE)
    if not is_whole.all():
        values = np.unique(label[~is_whole])
        more = f" and {len(values) - LISTED} further values" if len(values) > LISTED else ""
        raise DataError(
            f"label values {', '.join(map(in_full, values[:LISTED]))}{more} in {np.count_nonzero(~is_whole)} of "
            f"{label.size} voxels; expected whole numbers (up to {WHOLE_WITHIN:g} off). Resample label maps with "
            "nearest neighbours, and export them without scaling."
        )
    is_short = not rounded.size or np.abs(rounded).max() <= np.iinfo(np.int32).max
    return rounded.astype(np.int32 if is_short else np.int64)


def in_full(value: float | np.number) -> str:
    """A value with all its digits: 0.99999994, 7, 100000.5."""
    return str(value).removesuffix(".0")


def to_prepared_values(label: Num[np.ndarray, "*shape"], spec: DatasetSpec) -> UInt8[np.ndarray, "*shape"]:
    """Replaces each supplied value by the class's place in the description; 0 is the background.

    Args:
        label: whole numbers in any dtype, floating-point included; see `whole_values`.
        spec: the data set.

    Raises:
        DataError: a value that is not whole, or one other than 0 that belongs to no class; the message lists such
            values and their voxels.
    """
    values, places, counts = np.unique(whole_values(label), return_inverse=True, return_counts=True)
    prepared_by_supplied = {spec.supplied_value(place): place for place in range(1, len(spec.class_names))}
    prepared_by_supplied[BACKGROUND] = BACKGROUND
    unknown = [(value, count) for value, count in zip(values, counts, strict=True) if value not in prepared_by_supplied]
    if unknown:
        listed = ", ".join(f"{value} ({count} voxels)" for value, count in unknown[:LISTED])
        more = f" and {len(unknown) - LISTED} further values" if len(unknown) > LISTED else ""
        raise DataError(
            f"label value {listed}{more}: no class of {spec.name}; expected 0 for the background or one of "
            f"{_listed(spec)}. Correct the label map, or add the class to the description."
        )
    table = np.array([prepared_by_supplied[value] for value in values], np.uint8)
    return table[places].reshape(label.shape)


def to_supplied_values(
    label: UInt8[np.ndarray, "*shape"], spec: DatasetSpec
) -> UInt8[np.ndarray, "*shape"] | UInt16[np.ndarray, "*shape"] | UInt32[np.ndarray, "*shape"]:
    """Replaces each prepared value (0 to K) by the one that the data set's own label maps use.

    Returns:
        uint8 where every class's supplied value fits, else uint16 or uint32.
    """
    table = np.array([BACKGROUND, *(spec.supplied_value(place) for place in range(1, len(spec.class_names)))])
    return table.astype(np.min_scalar_type(int(table.max())))[label]


def combine_masks(
    masks: dict[str, Shaped[np.ndarray, "*shape"]], spec: DatasetSpec
) -> tuple[UInt8[np.ndarray, "*shape"], int]:
    """One prepared label map from a binary mask per class.

    Args:
        masks: class name -> mask, other than 0 where the class is.
        spec: the data set.

    Returns:
        The label map, in which a class replaces those listed before it in the description, and the number of voxels
        that belong to several masks.
    """
    label = np.zeros(next(iter(masks.values())).shape, np.uint8)
    n_shared = 0
    for place, name in enumerate(spec.class_names[1:], start=1):
        if name in masks:
            is_class = masks[name] != 0
            n_shared += int(np.count_nonzero(label[is_class]))
            label[is_class] = place
    return label, n_shared


def majority_label(labels: Sequence[UInt8[np.ndarray, "*shape"]], spec: DatasetSpec) -> UInt8[np.ndarray, "*shape"]:
    """One prepared label map from those of several annotators: the class that more than half of them chose, else 0."""
    if len(labels) == 1:
        return labels[0]
    result = np.zeros_like(labels[0])
    for place in range(1, len(spec.class_names)):
        n_votes = np.sum([label == place for label in labels], axis=0)
        result[2 * n_votes > len(labels)] = place
    return result


def _listed(spec: DatasetSpec) -> str:
    named = [f"{spec.supplied_value(place)} {name}" for place, name in enumerate(spec.class_names) if place]
    return ", ".join(named) or "no class (`classes` is empty)"
