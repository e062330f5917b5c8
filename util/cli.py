"""What every `python -m data.*` command shares: logging, error messages, exit codes, work spread over processes."""

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
    """Runs a command's `main` and leaves the process: 0 or its return value; 1 and one line for a `UserError`."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        sys.exit(main() or 0)
    except UserError as error:
        sys.exit(f"error: {error}")


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], jobs: int, description: str
) -> Iterator[Result]:
    """Yields `function(item)` in the order of `items`, under a progress bar; `jobs` processes when `jobs` > 1.

    `function` and the items must be picklable (functions of a module, `functools.partial` of them).
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
