"""Which cases of a set a page shows, and what a table of suspects says of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from util.csv_files import read_csv
from util.errors import DataError

COLUMNS = ("rank", "id", "structure", "score")
AGAIN = "Give the suspects.csv that `frugalseg suspects` has written for this set."
HOW = (
    "as many of each split as of the others, or all where a split has fewer; within a split at equal distances in the "
    "order of their ids"
)
HOW_SUSPECT = "as many of each split as of the others, or all where a split has fewer; of each the most suspect ones"


@dataclass(frozen=True)
class Suspicion:
    """A mask in a table of suspects; rank 1 is the most suspect."""

    rank: int
    structure: str
    score_px: float


def choose(
    splits: Mapping[str, Sequence[str]], limit: int, suspects: Mapping[str, Sequence[Suspicion]]
) -> dict[str, str]:
    """Draws the cases to show; the same arguments give the same ones.

    Args:
        splits: split -> ids.
        limit: number of cases at most.
        suspects: id -> its masks in the table of suspects; the most suspect ones are preferred. Empty: see `HOW`.

    Returns:
        Id -> split, in the order of the splits and ids.
    """
    shares, left = {}, limit
    for n_done, split in enumerate(sorted(splits, key=lambda name: len(splits[name]))):
        shares[split] = min(len(splits[split]), left // (len(splits) - n_done))
        left -= shares[split]
    chosen = {}
    for split, ids in splits.items():
        first = sorted((one for one in ids if one in suspects), key=lambda one: suspects[one][0].rank)[: shares[split]]
        others = [one for one in ids if one not in suspects]
        kept = {*first, *spread(others, shares[split] - len(first))}
        chosen |= {one: split for one in ids if one in kept}
    return chosen


def spread(ids: Sequence[str], count: int) -> list[str]:
    """`count` ids at equal distances, from the first to the last one."""
    return [str(ids[place]) for place in np.linspace(0, len(ids) - 1, count).round().astype(int)]


def read_suspects(path: Path, known: Collection[str]) -> dict[str, list[Suspicion]]:
    """Reads a table of suspects: id -> its masks, the most suspect first.

    Args:
        path: `suspects.csv`.
        known: ids of the set.

    Raises:
        DataError: it cannot be read, has other columns or no numbers, or none of its ids is of the set.
    """
    rows = read_csv(path, COLUMNS, AGAIN)
    found: dict[str, list[Suspicion]] = {}
    try:
        suspicions = [Suspicion(int(row["rank"]), row["structure"], float(row["score"])) for row in rows]
    except ValueError as error:
        raise DataError(f"{path}: {error}; expected numbers in the columns rank and score. {AGAIN}") from error
    for row, suspicion in sorted(zip(rows, suspicions, strict=True), key=lambda pair: pair[1].rank):
        found.setdefault(row["id"], []).append(suspicion)
    foreign = [one for one in found if one not in known]
    if foreign:
        raise DataError(
            f"{path}: {len(foreign)} of {len(found)} ids are not of the set, such as {foreign[0]}; expected its "
            f"images. {AGAIN}"
        )
    return found
