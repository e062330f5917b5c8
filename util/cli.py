"""Helpers shared by the command lines: logging, error messages, exit codes and multiprocessing."""

import argparse
import logging
import math
import multiprocessing
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from util.errors import UserError
from util.progress import ProgressBar

Item = TypeVar("Item")
Result = TypeVar("Result")


def run_main(main: Callable[[], int | None]) -> None:
    """Runs `main` and exits with its return value (None: 0).

    What the user can mend is printed on one line: a `UserError`, with its own exit code; with exit code 1 a file or
    folder that the operating system refuses, or too little memory. An interrupt from the keyboard gives 130.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        sys.exit(main() or 0)
    except UserError as error:
        sys.exit(fail(error))
    except OSError as error:
        sys.exit(f"error: {error.filename or 'a file'}: {error.strerror or error}. Check the path and the permissions.")
    except MemoryError as error:
        sys.exit(f"error: more memory is needed than there is ({str(error) or 'no figure given'}). Use fewer --jobs.")
    except KeyboardInterrupt:
        logging.getLogger(__name__).error("interrupted")
        sys.exit(130)


def fail(error: UserError) -> int:
    """Prints the message of an error on stderr; returns its exit code."""
    sys.stderr.write(f"error: {error}\n")
    return error.exit_code


def command_line() -> str:
    """The command line of this process, for a user to repeat."""
    program, *words = sys.argv
    return shlex.join(["frugalseg", *words] if Path(program).name == "frugalseg" else ["python", program, *words])


def whole(minimum: int, maximum: int | None = None) -> Callable[[str], int]:
    """The type of an option that is a whole number in a range."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = minimum - 1
        if number < minimum or (maximum is not None and number > maximum):
            limits = f"from {minimum}" + (f" to {maximum}" if maximum is not None else "")
            raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number {limits}")
        return number

    return parse


def number(above: float = -math.inf, at_least: float = -math.inf, at_most: float = math.inf) -> Callable[[str], float]:
    """The type of an option that is a finite number in a range."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (above < value and at_least <= value <= at_most and math.isfinite(value)):
            limits = [f"{name} {limit:g}" for name, limit in named.items() if math.isfinite(limit)]
            raise argparse.ArgumentTypeError(f"{text!r}: expected a number {' and '.join(limits)}".rstrip())
        return value

    named = {"above": above, "of at least": at_least, "of at most": at_most}
    return parse


def one_line(what: str, *, is_word: bool = False) -> Callable[[str], str]:
    """The type of an option that is a name or path on one line, not empty.

    Args:
        what: is expected, for messages, such as "the name of an account".
        is_word: whether spaces are refused.
    """

    def parse(given: str) -> str:
        if not given.strip() or not given.isprintable() or (is_word and any(letter.isspace() for letter in given)):
            more = " without spaces" if is_word else ""
            raise argparse.ArgumentTypeError(f"{given!r}: expected {what} on one line{more}; not empty")
        return given

    return parse


def parallel_map(
    function: Callable[[Item], Result], items: Iterable[Item], jobs: int, description: str
) -> Iterator[Result]:
    """Yields `function(item)` in the order of `items`, with a progress bar, in `jobs` processes if `jobs` > 1.

    `function` and the items must be picklable: module-level functions, `functools.partial` of them.

    Raises:
        UserError: a process was ended from outside, as when memory runs out.
    """
    items = list(items)
    with ProgressBar(total=len(items), desc=description, leave=False) as bar:
        if jobs <= 1 or len(items) <= 1:
            for item in items:
                yield function(item)
                bar.update()
            return
        context = multiprocessing.get_context("spawn")
        try:
            with ProcessPoolExecutor(min(jobs, len(items)), mp_context=context) as pool:
                for result in pool.map(function, items):
                    yield result
                    bar.update()
        except BrokenProcessPool as error:
            raise UserError(
                f"{description}: a process was ended from outside, most likely because memory ran out; {bar.n} of "
                f"{len(items)} are done. Run the same command again with fewer --jobs: what is done is not repeated."
            ) from error
