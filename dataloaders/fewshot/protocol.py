"""Evaluation protocols: which annotated slices support which query slices, and which slices count."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from util.errors import ConfigError

Protocol = Literal["reference", "blind"]


def part_fractions(n_parts: int) -> np.ndarray:
    """Relative positions along an organ of the supporting slices: the middles of `n_parts` equal parts.

    Raises:
        ConfigError: an even or non-positive number (the reference's rule is for odd ones).
    """
    if n_parts < 1 or n_parts % 2 == 0:
        raise ConfigError(f"n_sup_part={n_parts}: expected an odd number from 1.")
    return (2 * np.arange(n_parts) + 1) / (2 * n_parts)


def support_slices(slices: ArrayLike, n_parts: int) -> np.ndarray:
    """The slices of a support scan that represent the parts, chosen from those that show the organ (ascending).

    Source: SSL-ALPNet, section 4.1 (evaluation protocol, after Roy et al. 2020).
    """
    shown = np.asarray(slices)
    return shown[np.floor(part_fractions(n_parts) * len(shown)).astype(int)]


def reference_parts(n_slices: int, first: int, last: int, n_parts: int) -> np.ndarray:
    """Part of each query slice, from the organ's true range in the query: the published protocol.

    It reads the query's ground truth. Slices below the range take the first part, those above the last.

    Args:
        n_slices: of the query scan.
        first: lowest slice of the query that shows the organ.
        last: highest one.
        n_parts: as for the support.

    Returns:
        (n_slices,) int64 in [0, n_parts).
    """
    if first == last:
        return np.zeros(n_slices, np.int64)
    position = (np.arange(n_slices) - first) / ((last - first) / n_parts)
    return np.clip(np.floor(position), 0, n_parts - 1).astype(np.int64)


def blind_parts(n_slices: int, support_z: ArrayLike, n_support_slices: int) -> np.ndarray:
    """Part of each query slice, without its ground truth: the supporting slice at the nearest relative height.

    Heights are relative to the scans' own lengths, so scans should show about the same stretch of the body.

    Args:
        n_slices: of the query scan.
        support_z: the supporting slice of each part.
        n_support_slices: of the support scan.
    """
    query_height = (np.arange(n_slices) + 0.5) / n_slices
    support_height = (np.asarray(support_z) + 0.5) / n_support_slices
    return np.abs(query_height[:, None] - support_height[None]).argmin(1)
