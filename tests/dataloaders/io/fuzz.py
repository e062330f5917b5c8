"""Damaged versions of a file's content, for tests of its reader."""

from collections.abc import Iterator

import numpy as np


def truncations(content: bytes, count: int = 12) -> Iterator[bytes]:
    """Beginnings of the content: nothing, one byte, then `count` growing lengths, the last short by one byte."""
    ends = np.linspace(2, len(content) - 1, count).astype(int).tolist()
    yield from (content[:end] for end in sorted({0, 1, *ends}) if end < len(content))


def bit_flips(content: bytes, seed: int, count: int = 50, upto: int | None = None) -> Iterator[bytes]:
    """Copies of the content in each of which one to eight bits are flipped.

    Args:
        content: of a valid file.
        seed: equal seeds give equal copies.
        count: how many copies.
        upto: only the first so many bytes are damaged, such as a header; None: all.
    """
    generator = np.random.default_rng(seed)
    for _ in range(count):
        damaged = np.frombuffer(content, np.uint8).copy()
        places = generator.integers(0, min(len(content), upto or len(content)), generator.integers(1, 9))
        for place, bit in zip(places, generator.integers(0, 8, len(places)), strict=True):
            damaged[place] ^= np.uint8(1 << bit)
        yield damaged.tobytes()
