"""Tab completion of `frugalseg`, by argcomplete. Slow imports are needed once, and again when the code has changed."""

import argparse
import importlib
import os
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from util.errors import UserError
from util.files import read_json, short_digest, write_json

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("*.py", "util/**/*.py", "dataloaders/**/*.py", "models/**/*.py", "data/*/*.py")  # may change completions


def complete(commands: Mapping[str, Any], words: Callable[[], list[str]]) -> None:
    """Answers a shell that asks for completions, and ends the process.

    Args:
        commands: name -> command, with attributes `summary`, `module` and `leading`.
        words: makes the words of commands with `leading` words of their own: names, and keys with "=" at the end.
    """
    import argcomplete

    parser = argparse.ArgumentParser("frugalseg")
    parsers = parser.add_subparsers()
    typed = os.environ.get("COMP_LINE", "").split(" ")
    for name, command in commands.items():
        own = parsers.add_parser(name, help=command.summary, add_help=False)
        if name in typed[1:-1] and command.leading:
            own.add_argument("word", nargs="*").completer = _Words(remembered("words", words))  # type: ignore[attr-defined]
        elif name in typed[1:-1]:
            _add_options(own, remembered(name, lambda module=command.module: _options(module)))
    argcomplete.autocomplete(parser)


class _Words:
    """Completes names; also keys, which are many, once a part of one is typed."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = words

    def __call__(self, prefix: str, **_: Any) -> list[str]:
        from argcomplete.completers import FilesCompleter

        return [word for word in self.words if prefix or not word.endswith("=")] + list(FilesCompleter()(prefix))


def _options(module: str) -> list[dict[str, Any]]:
    """The options of a command as plain values."""
    actions = importlib.import_module(module).make_parser()._actions
    return [
        {
            "flags": each.option_strings or [each.dest],
            "nargs": each.nargs,
            "help": (each.help or "").replace("%", "%%"),
            "choices": None if each.choices is None else list(map(str, each.choices)),
        }
        for each in actions
    ]


def _add_options(parser: argparse.ArgumentParser, options: Iterable[Mapping[str, Any]]) -> None:
    for option in options:
        how: dict[str, Any] = (
            {"action": "store_true"}
            if option["nargs"] == 0
            else {"nargs": option["nargs"], "choices": option["choices"]}
        )
        parser.add_argument(*option["flags"], help=option["help"], **how)


def remembered(name: str, make: Callable[[], Any]) -> Any:
    """What `make` returns, or returned since the code last changed; plain values.

    It is stored in `$XDG_CACHE_HOME/frugalseg`, by default `~/.cache/frugalseg`.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / f"frugalseg/completion-{name}.json"
    changed = [path.stat().st_mtime_ns for pattern in SOURCES for path in ROOT.glob(pattern)]
    stamp = short_digest({"root": str(ROOT), "files": len(changed), "last": max(changed)})
    with suppress(UserError, KeyError, TypeError):
        former = read_json(cache)
        if former["stamp"] == stamp:
            return former["content"]
    content = make()
    with suppress(UserError):
        write_json(cache, {"stamp": stamp, "content": content})
    return content
