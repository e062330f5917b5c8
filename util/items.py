"""One boundary for every item of a command: an item that fails is named with its cause, and the others are done."""

import errno
import logging
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from util.cli import parallel_map
from util.errors import DataError, FailedItemsError, UserError

Item = TypeVar("Item")
Result = TypeVar("Result")
Failures = dict[str, str]  # name of the item -> reason, which names the file

ROOT = Path(__file__).resolve().parents[1]

logger = logging.getLogger(__name__)


def reason_of(error: Exception, source: str | Path) -> str:
    """What went wrong with a file, in words.

    Args:
        error: of any kind. That of a `UserError` is its message; others are given with their type and place.
        source: the file; named first, unless the message names it; empty: not named.
    """
    if isinstance(error, UserError):
        text = str(error)
    elif isinstance(error, MemoryError):
        text = f"needs more memory than there is ({str(error) or 'no figure given'})"
    elif isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.EACCES, errno.ENOSPC, errno.EIO):
        text = f"{error.strerror}: {error.filename or source}"
    else:
        text = f"{type(error).__name__}: {error}{_place(error)}"
    return text if str(source) in text else f"{source}: {text}"


def _place(error: Exception) -> str:
    """The line of ours in which an error arose."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(ROOT)]
    ours = [frame for frame in frames if ".venv" not in frame.filename]
    return f" ({Path(ours[-1].filename).relative_to(ROOT)}, line {ours[-1].lineno})" if ours else ""


@contextmanager
def catching(failures: Failures | None, name: str, source: str | Path) -> Iterator[None]:
    """Turns any exception of the block into a named failure; interrupts and exits pass.

    Args:
        failures: where it is added; None: exceptions pass, too.
        name: of the item.
        source: its file.
    """
    try:
        yield
    except Exception as error:
        if failures is None:
            raise
        failures[name] = reason_of(error, source)
        logger.debug("%s", source, exc_info=True)


@contextmanager
def dispensable(what: str) -> Iterator[None]:
    """Suppresses any exception of the block and logs it as one line: scores are never lost for the sake of a picture.

    Args:
        what: is made in the block, such as "training curves".
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - whatever it is, the scores are written
        logger.warning("%s: left out, the scores are not affected (%s)", what, reason_of(error, ""))


@contextmanager
def naming(source: str | Path) -> Iterator[None]:
    """Turns any exception of the block into an error that names the file, for what a command cannot go on without.

    Raises:
        DataError: the block raised an exception.
    """
    try:
        yield
    except Exception as error:
        raise DataError(reason_of(error, source)) from error


@dataclass(frozen=True)
class _Failed:
    reason: str


def _attempt(work: tuple[Item, str], function: Callable[[Item], Result]) -> Result | _Failed:
    item, source = work
    failures: Failures = {}
    with catching(failures, source, source):
        return function(item)
    return _Failed(failures[source])


def attempt_each(
    function: Callable[[Item], Result],
    items: Mapping[str, Item],
    jobs: int,
    description: str,
    failures: Failures,
    source: Callable[[Item], str | Path] = str,
) -> Iterator[tuple[str, Result]]:
    """Yields the name and the result of every item that succeeds, in order; adds the others to `failures`.

    Args:
        function: of an item; picklable, as for `parallel_map`.
        items: name -> item.
        jobs: processes.
        description: for the progress bar.
        failures: name -> reason.
        source: the file of an item, for messages.
    """
    work = [(item, str(source(item))) for item in items.values()]
    outcomes = parallel_map(partial(_attempt, function=function), work, jobs, description)
    for name, outcome in zip(items, outcomes, strict=True):
        if isinstance(outcome, _Failed):
            failures[name] = outcome.reason
        else:
            yield name, outcome


def raise_failures(failures: Failures, n_items: int, what: str) -> None:
    """To be called when all items have been tried, and what succeeded is recorded.

    Args:
        failures: name -> reason.
        n_items: number of items.
        what: was made of each, such as "CHAOST2, step normalise".

    Raises:
        FailedItemsError: there are failures; the message has a line for each.
    """
    if failures:
        lines = "\n  ".join(failures.values())
        raise FailedItemsError(
            f"{what}: {len(failures)} of {n_items} failed, the others are done:\n  {lines}\n"
            "Correct or remove these and run the same command again; what is done is not repeated.",
            failures,
        )


def run_all(steps: Iterable[Callable[[], object]]) -> None:
    """Runs step after step, also where items of a step failed; other errors stop at once.

    Raises:
        FailedItemsError: items failed; the message of every such step, and every reason of an item.
    """
    messages: list[str] = []
    failed: Failures = {}
    for step in steps:
        try:
            step()
        except FailedItemsError as error:
            messages.append(str(error))
            for name, reason in error.failed.items():
                failed[name] = "; ".join(dict.fromkeys(filter(None, (failed.get(name), reason))))
    if messages:
        raise FailedItemsError("\n".join(messages), failed)


def exit_code(failures: Failures, what: str) -> int:
    """Logs every failure; returns 1 where there are any, else 0.

    Args:
        failures: name -> reason.
        what: did not happen, such as "not segmented".
    """
    for reason in failures.values():
        logger.error("%s: %s", what, reason)
    return 1 if failures else 0
