"""Sacred's experiment: its words and files are read as data alone, and a user error is printed as one message."""

import difflib
import logging
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from docopt import DocoptExit

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    import sacred.experiment
    from sacred import Experiment, cli_option
    from sacred.run import Run
    from sacred.utils import SacredError, convert_to_nested_dict, format_sacred_error

from util.cli import fail
from util.config_words import FILE_SUFFIXES, parse_words, read_config_file
from util.errors import ConfigError, FailedItemsError, UserError
from util.parser import print_json
from util.runtime import distributed
from util.schema import flatten, merge

SACRED_COMMANDS = ("print_config", "print_named_configs", "print_dependencies", "save_config")

logger = logging.getLogger(__name__)


class InputError(SacredError):
    """Something that the user can correct; printed as its message.

    Attributes:
        exit_code: of the command line.
    """

    exit_code = UserError.exit_code


@contextmanager
def plain_errors() -> Iterator[None]:
    """Makes Sacred print a `UserError` as one message, without a traceback; also a decorator."""
    try:
        yield
    except UserError as error:
        shown = InputError(str(error), print_traceback=False)
        shown.exit_code = error.exit_code
        raise shown from error


@cli_option("-j", "--json", is_flag=True)
def json_option(given: Any, run: Run) -> None:
    """Print the answer as one JSON document on stdout."""
    with plain_errors():
        if given and run.meta_info["command"] in SACRED_COMMANDS:
            raise ConfigError(f"--json: {run.meta_info['command']} prints a text. Leave --json out.")


class PlainExperiment(Experiment):
    """An experiment whose named configurations belong to axes, such as method and data set.

    Attributes:
        axes: axis -> word -> settings. Words of different axes can be given in any order: those of a later axis, and
            then files of settings, override those of an earlier one; of one axis the later word does.
        answer: what `--json` prints, set by the command; empty: what the command returns, as "result", and "failed".
    """

    axes: Mapping[str, Mapping[str, Mapping[str, Any]]] = {}
    answer: Mapping[str, Any] = {}

    def add_axes(self, axes: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
        """Registers the words of all axes as named configurations."""
        self.axes = axes
        for words in axes.values():
            for word, values in words.items():
                self.add_named_config(word, dict(values))

    def run_words(self, default_command: str, arguments: Sequence[str] | None) -> Run | None:
        """Runs a command.

        Args:
            default_command: where the command line names none.
            arguments: the command and its words, `with` before them or not; None: the command line, as Sacred reads it.
        """
        self.default_command = default_command
        return self.run_commandline(arguments and [sys.argv[0], *self.complete_words(*arguments)])

    def complete_words(self, command: str, *words: str) -> list[str]:
        """A command line with the `with` that Sacred expects before settings.

        A command of Sacred's own, such as `print_config`, as first word takes the place of `command`.
        """
        takes_value = {flag for option in self.all_cli_options if option.arg for flag in option.get_flags()}
        pairs = zip(("", *words), words, strict=False)
        plain = [word for former, word in pairs if not word.startswith("-") and former not in takes_value]
        if plain[:1] and plain[0] in SACRED_COMMANDS:
            at = words.index(plain[0])
            return self.complete_words(plain[0], *words[:at], *words[at + 1 :])
        return [command, *(["with"] if plain and "with" not in plain else []), *words]

    def run_commandline(self, argv: Any = None) -> Run | None:
        """Runs the command line; on errors exits with the codes of docs/command_line.md."""
        # Sacred's own restores objects, which can run code.
        sacred.experiment.get_config_updates = parse_words  # type: ignore[attr-defined]
        sacred.experiment.format_sacred_error = _message  # type: ignore[attr-defined]
        self.answer, self.current_run = {}, None
        try:
            run = super().run_commandline(argv)
            self.answer = self.answer or {"result": run and run.result, "failed": {}}
            return run
        except UserError as error:
            sys.exit(fail(error))
        except DocoptExit as stop:
            told = str(stop).splitlines()[0]
            unknown = re.findall(r"Option\('(\S+)'", told)
            sys.stderr.write(f"error: {'unknown option ' + ', '.join(unknown) if unknown else told}. See --help.\n")
            sys.exit(ConfigError.exit_code)
        except SystemExit as stop:
            self.answer = self.answer or _failures(stop)
            sys.exit(_exit_code(stop))
        except KeyboardInterrupt:
            logger.error("interrupted.")
            sys.exit(130)
        finally:
            self._print_answer()

    def _print_answer(self) -> None:
        run: Any = self.current_run
        if self.answer and run and run.meta_info["options"].get("--json") and distributed.plan().is_first:
            print_json(self.answer)

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


def _message(error: SacredError, usage: str) -> str:
    return f"error: {error}" if isinstance(error, InputError) else format_sacred_error(error, usage)


def _exit_code(stop: SystemExit) -> Any:
    """That of the error after which Sacred exits with 1; it also does for a command that does not exist."""
    if stop.code != 1:
        return stop.code
    default = ConfigError.exit_code if stop.__context__ is None else 1
    return getattr(stop.__context__, "exit_code", default)


def _failures(stop: SystemExit) -> dict[str, Any]:
    """The answer of a command of which items failed."""
    error = getattr(stop.__context__, "__cause__", None)
    return {"result": None, "failed": error.failed} if isinstance(error, FailedItemsError) and error.failed else {}


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
