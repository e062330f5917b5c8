"""Helpers shared by the command lines: logging, error messages, exit codes and multiprocessing."""

import logging
import multiprocessing
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from tqdm import tqdm

from util.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_main(main: Callable[[], int | None]) -> None:
    """Runs `main` and exits with its return value (None: 0); a `UserError` is printed on one line, exit code 1."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        sys.exit(main() or 0)
    except UserError as error:
        sys.exit(f"error: {error}")


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], jobs: int, description: str
) -> Iterator[Result]:
    """Yields `function(item)` in the order of `items`, with a progress bar, in `jobs` processes if `jobs` > 1.

    `function` and the items must be picklable: module-level functions, `functools.partial` of them.
    """
    items = list(items)
    with tqdm(total=len(items), desc=description, disable=None, leave=False) as bar:
        if jobs <= 1 or len(items) <= 1:
            for item in items:
                yield function(item)
                bar.update()
            return
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(jobs, len(items)), mp_context=context) as pool:
            for result in pool.map(function, items):
                yield result
                bar.update()
