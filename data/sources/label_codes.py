"""Label maps of users' own pictures: grey codes or colour codes to prepared class values."""

from pathlib import Path

import numpy as np

from dataloaders.description import DatasetSpec
from dataloaders.io import pictures
from util.errors import DataError


def read_label_map(path: Path, spec: DatasetSpec) -> np.ndarray:
    """A map of grey or colour codes as (H, W) uint8 prepared class values.

    Raises:
        DataError: codes that are neither background nor a class, or a damaged file.
    """
    if spec.classes[0].colour is None:
        codes = pictures.read_grey_codes(path)
        known = {0: 0} | {spec.supplied_value(value): value for value in range(1, len(spec.classes) + 1)}
    else:
        codes = _colour_numbers(pictures.read_colour_codes(path))
        colours = [spec.background_colour, *(each.colour or (0, 0, 0) for each in spec.classes)]
        known = {number: value for value, number in enumerate(_colour_numbers(np.array(colours)).tolist())}
    found, inverse, counts = np.unique(codes, return_inverse=True, return_counts=True)
    unknown = np.array([code not in known for code in found.tolist()])
    if unknown.any():
        most = int(np.argmax(np.where(unknown, counts, 0)))
        raise _unknown_code(path, spec, int(found[most]), int(counts[most]), int(unknown.sum()))
    values = np.array([known[code] for code in found.tolist()], np.uint8)
    return values[inverse].reshape(codes.shape)


def _colour_numbers(colours: np.ndarray) -> np.ndarray:
    """One number per colour (..., 3)."""
    return colours.astype(np.int64) @ np.array([65_536, 256, 1])


def _unknown_code(path: Path, spec: DatasetSpec, code: int, n_px: int, n_codes: int) -> DataError:
    if spec.classes[0].colour is None:
        expected = {spec.supplied_value(value): each.name for value, each in enumerate(spec.classes, start=1)}
        nearest = min({0: spec.background, **expected}.items(), key=lambda item: abs(item[0] - code))
        what, kind = f"grey value {code}", "values"
        known = ", ".join(f"{value} {name}" for value, name in expected.items())
    else:
        colour = [code >> 16, code >> 8 & 255, code & 255]
        named = [(spec.background_colour, spec.background), *((each.colour or (), each.name) for each in spec.classes)]
        nearest = min(named, key=lambda item: sum((a - b) ** 2 for a, b in zip(item[0], colour, strict=True)))
        what, kind = f"colour {colour}", "colours"
        known = ", ".join(f"{list(colour)} {name}" for colour, name in named[1:])
        nearest = (list(nearest[0]), nearest[1])
    remedy = "Correct the mask, or add the class to the description."
    if path.suffix.lower() in pictures.LOSSY_SUFFIXES:
        remedy = "JPEG has smeared the codes of this mask: export it again as PNG."
    elif n_codes > len(spec.classes):
        remedy = (
            "So many codes come from smoothed edges or lossy compression: export the mask as PNG without smoothing."
        )
    more = f"; {n_codes} unknown {kind} in all" if n_codes > 1 else ""
    return DataError(
        f"{path}: {what} ({n_px} pixels{more}) is no class; nearest: {nearest[1]} ({nearest[0]}). Expected {known}. "
        f"{remedy}"
    )
