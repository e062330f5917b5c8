"""Sacred's experiment: its words and files are read as data alone, and a user error is printed as one message."""

import difflib
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    import sacred.experiment
    from sacred import Experiment
    from sacred.run import Run
    from sacred.utils import SacredError, convert_to_nested_dict

from util.config_words import FILE_SUFFIXES, parse_words, read_config_file
from util.errors import ConfigError, UserError
from util.schema import flatten, merge

logger = logging.getLogger(__name__)


class InputError(SacredError):
    """Something that the user can correct; printed as its message."""


@contextmanager
def plain_errors() -> Iterator[None]:
    """Makes Sacred print a `UserError` as one message, without a traceback; also a decorator."""
    try:
        yield
    except UserError as error:
        raise InputError(str(error), print_traceback=False) from error


class PlainExperiment(Experiment):
    """An experiment whose named configurations belong to axes, such as method and data set.

    Attributes:
        axes: axis -> word -> settings. Words of different axes can be given in any order: those of a later axis, and
            then files of settings, override those of an earlier one; of one axis the later word does.
    """

    axes: Mapping[str, Mapping[str, Mapping[str, Any]]] = {}

    def add_axes(self, axes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        """Registers the words of all axes as named configurations."""
        self.axes = axes
        for words in axes.values():
            for word, values in words.items():
                self.add_named_config(word, dict(values))

    def run_commandline(self, argv: Any = None) -> Run | None:
        """Runs the command line; exits with code 1 after a user error, with 130 after an interruption."""
        # Sacred's own restores objects, which can run code.
        sacred.experiment.get_config_updates = parse_words  # type: ignore[attr-defined]
        try:
            return super().run_commandline(argv)
        except UserError as error:
            sys.exit(f"error: {error}")
        except KeyboardInterrupt:
            logger.error("interrupted.")
            sys.exit(130)

    def _create_run(
        self,
        command_name: str | None = None,
        config_updates: Any = None,
        named_configs: Sequence[str] = (),
        info: Any = None,
        meta_info: Any = None,
        options: Any = None,
    ) -> Run:
        """As Sacred does, with the named configurations and files merged here."""
        with plain_errors():
            named = self.named_settings(named_configs)
        settings = merge(named, convert_to_nested_dict(config_updates or {}))
        told = {"named_configs": list(named_configs), "config_updates": config_updates or {}} | (meta_info or {})
        return super()._create_run(command_name, settings, (), info, told, options)

    def named_settings(self, names: Sequence[str]) -> dict[str, Any]:
        """The settings of named configurations and files.

        Raises:
            ConfigError: a name that is neither, or a file that is no plain data.
        """
        layers = []
        for axis, words in self.axes.items():
            given = [name for name in names if name in words]
            layers += [words[word] for word in given]
            _name_overridden(axis, given, words)
        known = {word for words in self.axes.values() for word in words}
        layers += [read_config_file(self._file(name)) for name in names if name not in known]
        return merge(*layers)

    def _file(self, name: str) -> Path:
        path = Path(name).expanduser()
        if path.is_file():
            return path
        if path.suffix.lower() in FILE_SUFFIXES or path.exists():
            raise ConfigError(f"{name}: no such file of settings.")
        close = difflib.get_close_matches(name, self.named_configs, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "`print_named_configs` lists them."
        if name.endswith(("]", ",", ")")):
            hint = "A list with spaces is quoted: 'KEY=[A, B]'."
        raise ConfigError(f"{name}: neither a named configuration nor a file of settings nor KEY=VALUE; {hint}")


def _name_overridden(axis: str, given: Sequence[str], words: Mapping[str, Mapping[str, Any]]) -> None:
    """Logs which words of one axis contradict each other."""
    for first, second in pairwise(given):
        one, other = flatten(words[first]), flatten(words[second])
        keys = sorted(key for key in one.keys() & other.keys() if one[key] != other[key])
        if keys:
            logger.warning(
                "%s and %s both name the %s; the later one, %s, decides: %s.",
                *(first, second, axis, second, ", ".join(f"{key}={other[key]}" for key in keys)),
            )
