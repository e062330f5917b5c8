"""Scores of earlier versions: a `scores.csv` of scans with a column per metric, turned into the long table."""

from collections.abc import Iterable, Iterator, Sequence

from util.results.metrics import METRICS

_NEW_NAMES = {"scan": "case", "organ": "structure", "recipe": "config_hash"}
_FIXED = {"family": "fewshot", "split": "test", "patient": ""}  # a scan was a patient, as an empty cell says


def is_wide(header: Sequence[str]) -> bool:
    """Whether these columns are those of an earlier version."""
    return {"scan", "organ", "dice"} <= set(header) and "metric" not in header


def to_long(
    header: Sequence[str], rows: Iterable[tuple[int, list[str]]]
) -> tuple[list[str], Iterator[tuple[int, list[str]]]]:
    """Makes one row per score of rows with several.

    Args:
        header: columns of an earlier version.
        rows: number of the line, and its cells.

    Returns:
        The columns of today, and the rows; those with a wrong number of cells are left as they are.
    """
    kept = [place for place, name in enumerate(header) if name not in METRICS]
    measured = [(place, name) for place, name in enumerate(header) if name in METRICS]
    columns = [*(_NEW_NAMES.get(header[place], header[place]) for place in kept), *_FIXED, "metric", "value"]

    def rearranged() -> Iterator[tuple[int, list[str]]]:
        for line, cells in rows:
            if len(cells) != len(header):
                yield line, cells
                continue
            shared = [*(cells[place] for place in kept), *_FIXED.values()]
            yield from ((line, [*shared, name, cells[place]]) for place, name in measured)

    return columns, rearranged()
