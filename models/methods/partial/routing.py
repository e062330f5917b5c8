"""Which images of a batch belong to which task: computed on the host."""

from collections.abc import Iterator, Sequence

from models.networks.rows import Rows
from models.networks.upernet import TaskLogits


def rows_by_task(tasks: Sequence[Sequence[int]], n_tasks: int) -> tuple[Rows, ...]:
    """Of each task, the images that have it; `tasks` are the numbers of those of each image."""
    return tuple(tuple(_ranges([task in own for own in tasks])) for task in range(n_tasks))


def shifted(rows: Sequence[Rows], by: int) -> tuple[Rows, ...]:
    """The same images of each task in a batch that has `by` others before them."""
    return tuple(tuple(slice(each.start + by, each.stop + by) for each in images) for images in rows)


def joined(first: Sequence[Rows], second: Sequence[Rows]) -> tuple[Rows, ...]:
    """The images of both, task by task."""
    return tuple((*one, *other) for one, other in zip(first, second, strict=True))


def divided(logits: TaskLogits, first: Sequence[Rows]) -> tuple[TaskLogits, TaskLogits]:
    """The logits of the images of `first`, and those of all after them, task by task."""
    counts = [sum(each.stop - each.start for each in images) for images in first]
    return logits.map(lambda task, maps: maps[: counts[task]]), logits.map(lambda task, maps: maps[counts[task] :])


def _ranges(is_chosen: Sequence[bool]) -> Iterator[slice]:
    """Ranges of neighbours that are chosen."""
    start = None
    for place, chosen in enumerate([*is_chosen, False]):
        if chosen and start is None:
            start = place
        if not chosen and start is not None:
            yield slice(start, place)
            start = None
