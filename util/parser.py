"""The argument parser of every command: a help page that fits on a screen, and a second one with everything."""

import argparse
import json
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from util.errors import FailedItemsError

WIDTH = 100  # columns of help texts, at most
LARGEST_INDENT = 32  # columns of the names of options
MOST_EXAMPLES = 3  # on the short page


class CommandParser(argparse.ArgumentParser):
    """A parser whose `--help` shows summary, examples and main options, and whose `--help-all` shows all.

    Args:
        command: as the user writes it after `frugalseg`.
        about: its documentation. Its first line is the summary; lines that begin with the command, examples.
        main: options on the short page, as attributes of the result; positional arguments always are. None: all.
    """

    def __init__(self, command: str, about: str, main: Collection[str] | None = None) -> None:
        super().__init__(prog=f"frugalseg {command}", description=about, formatter_class=_formatter, add_help=False)
        self.main = main
        self.add_argument("-h", "--help", action=_ShortHelp, help="show this page")
        self.add_argument("--help-all", action="help", help="show all options, and more about the command")

    def short_help(self) -> str:
        """The page of `--help`."""
        unknown = set(self.main or ()) - {action.dest for action in self._actions}
        if unknown:
            raise ValueError(f"{self.prog}: {', '.join(sorted(unknown))} among the main options; there is none")
        about = self.description or ""
        examples = re.findall(rf"^ {{0,4}}({re.escape(self.prog)}(?: (?:.*\\\n)*.*)?)$", about, re.MULTILINE)[
            :MOST_EXAMPLES
        ]
        formatter = _formatter(self.prog)
        needed = " ".join(map(_in_usage, filter(_is_needed, self._actions)))
        formatter.add_usage(f"{self.prog} {needed} [options]".replace("  ", " "), [], [])
        formatter.add_text(textwrap.fill(about.partition("\n")[0], WIDTH - 2))
        formatter.add_text(textwrap.indent("\n".join(examples), "    "))
        formatter.start_section("options")
        formatter.add_arguments([action for action in self._actions if self._is_main(action)])
        formatter.end_section()
        return formatter.format_help()

    def _is_main(self, action: argparse.Action) -> bool:
        return self.main is None or not action.option_strings or action.dest in (*self.main, "help", "help_all")

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong on one line, and exits with code 2."""
        self.exit(2, f"{self.prog}: error: {message}. See `{self.prog} --help`.\n")


class _ShortHelp(argparse.Action):
    """Prints the short page and exits."""

    def __init__(self, option_strings: list[str], dest: str, help: str) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: Any, *_: Any) -> None:
        sys.stdout.write(parser.short_help())
        parser.exit()


def _is_needed(action: argparse.Action) -> bool:
    return action.required or not action.option_strings


def _in_usage(action: argparse.Action) -> str:
    name = str(action.metavar or action.dest.upper())
    if action.option_strings:
        return f"{action.option_strings[0]} {name}"
    return {"*": f"[{name} ...]", "+": f"{name} [{name} ...]", "?": f"[{name}]"}.get(str(action.nargs), name)


def _formatter(prog: str) -> argparse.HelpFormatter:
    width = min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns - 2)
    return argparse.RawDescriptionHelpFormatter(prog, max_help_position=LARGEST_INDENT, width=width)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`, for programs that read the answer."""
    parser.add_argument("--json", action="store_true", help="print one JSON document on stdout, all else on stderr")


def print_json(content: Any) -> None:
    """Prints the answer to `--json`.

    Args:
        content: plain values, of NumPy also; paths become texts, numbers that are not finite null.
    """
    print_text(json.dumps(_plain(content), indent=2, ensure_ascii=False, default=str, allow_nan=False) + "\n")


def _plain(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if hasattr(content, "tolist"):  # arrays and numbers of NumPy
        return _plain(content.tolist())
    if isinstance(content, list | tuple):
        return [_plain(each) for each in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


@contextmanager
def answering(is_asked: bool) -> Iterator[dict[str, Any]]:
    """Yields the answer to `--json`, which the block fills, and prints it at the end, also if items failed.

    Args:
        is_asked: whether `--json` was given; else nothing is printed.

    Raises:
        FailedItemsError: of the block; the answer names these items and the reasons under "failed".
    """
    answer: dict[str, Any] = {}
    try:
        yield answer
    except FailedItemsError as error:
        if is_asked:
            print_json(answer | {"failed": error.failed})
        raise
    if is_asked:
        print_json(answer | {"failed": {}})


def print_text(text: str) -> None:
    """Prints what was asked for on stdout; a reader such as `head` may leave early."""
    try:
        sys.stdout.write(text.encode(errors="backslashreplace").decode())
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
