"""The words after `with`: named configurations, files of settings, and `key=value`. All of them are data alone.

Sacred's own readers restore Python objects (jsonpickle, pickle, YAML tags), which can run code; these do not.
"""

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import json5
import yaml

from util.errors import ConfigError

MAX_FILE_BYTES = 1 << 20  # of a file of settings
LISTS = {"[": "]", "(": ")"}
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = (bool, int, float, str, type(None))


def parse_words(words: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
    """Divides the words of a command line into settings and the names of configurations and files.

    Args:
        words: each `key=value`, where `key` may be dotted, or a name.

    Returns:
        The settings, nested, and all names in their order.

    Raises:
        ConfigError: a key that is none, or one that is a value and a group at the same time.
    """
    settings: dict[str, Any] = {}
    names = []
    for word in filter(None, words):
        key, equals, text = (part.strip() for part in word.partition("="))
        if not equals:
            names.append(key)
            continue
        *groups, last = key.split(".")
        values = settings
        for group in groups:
            values = values.setdefault(group, {})
            if not isinstance(values, dict):
                raise ConfigError(f"{word}: {group} has been given a value; expected only its keys, as in {group}.KEY=")
        values[last] = parse_value(text)
    return plain_settings(settings, "the command line"), names


def parse_value(text: str) -> Any:
    """The value that a text of the command line stands for: a number, truth value, None, list, group, or the text.

    Texts in a list need no quotes: `[lung,heart]` equals `["lung","heart"]`, whose quotes a shell removes.
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        inner = text[1:-1]
        if LISTS.get(text[:1]) == text[-1:] != "" and not re.search(r"[\[\](){}]", inner):
            return [parse_value(part.strip()) for part in inner.split(",") if part.strip()]
        return text


def plain_settings(values: Any, where: str) -> dict[str, Any]:
    """Checks that settings are groups of plain values, and returns them.

    Args:
        values: nested dictionaries of numbers, texts, truth values, None and lists of them.
        where: what they come from, for messages.

    Raises:
        ConfigError: no group, a key that is no name (such as a tag that asks a reader to run code), or another type.
    """
    if not isinstance(values, dict):
        raise ConfigError(
            f"{where}: holds a {type(values).__name__}; expected settings by key, such as {{n_steps: 100}}."
        )
    for key, value in values.items():
        if not isinstance(key, str) or not _KEY.fullmatch(key):
            raise ConfigError(
                f"{where}: {str(key)[:80]!r} is no key of a setting; expected letters, digits and _, such as n_steps."
            )
        _check_plain(value, f"{where}: {key}")
    return values


def _check_plain(value: Any, where: str) -> None:
    if isinstance(value, dict):
        plain_settings(value, where)
    elif isinstance(value, list | tuple):
        for each in value:
            _check_plain(each, where)
    elif not isinstance(value, _PLAIN):
        raise ConfigError(
            f"{where}: holds a {type(value).__name__}; expected a number, a text, true, false, null, or a list of them."
        )


class _PlainLoader(yaml.SafeLoader):
    """YAML without references, which a few lines could expand to any size."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"a reference{self.peek_event().start_mark}")
        return super().compose_node(parent, index)


def _read_json(text: str) -> Any:
    return json5.loads(text, allow_duplicate_keys=False)


def _read_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_PlainLoader)


_READERS = {".json": _read_json, ".json5": _read_json, ".yaml": _read_yaml, ".yml": _read_yaml}
FILE_SUFFIXES = tuple(_READERS)
# What the readers raise at texts that are not valid; PyYAML also errors of its own code.
_INVALID = (ValueError, RecursionError, yaml.YAMLError, LookupError, TypeError, AttributeError, ArithmeticError)


def read_config_file(path: Path) -> dict[str, Any]:
    """Reads settings from a JSON, JSON5 or YAML file as plain data.

    Raises:
        ConfigError: another kind of file, unreadable, larger than 1 MiB, not valid, or more than plain values.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(
            f"{path}: refused as a file of settings: expected one of {', '.join(FILE_SUFFIXES)}. Other kinds, such as "
            "pickles, can run code when they are read."
        )
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size} bytes; expected a file of settings of at most 1 MiB.")
        values = reader(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except ConfigError:
        raise
    except _INVALID as error:
        raise ConfigError(
            f"{path}: not valid {path.suffix[1:].upper()} ({' '.join(str(error).split())[:300]}). Correct that place."
        ) from error
    return plain_settings(values, str(path))
