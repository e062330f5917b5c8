"""Every command in a message, a docstring or a document is accepted by the program that it names."""

import argparse
import ast
import importlib.util
import inspect
import re
import shlex
from pathlib import Path

import pytest

from config_ssl_upload import plain_defaults
from dataloaders.build import family
from frugalseg import COMMANDS as PROGRAMS
from models import METHODS
from models.presets import NAMED_CONFIGS
from util.errors import ConfigError, UserError
from util.runtime.experiment import SACRED_COMMANDS
from util.schema import flatten

ROOT = Path(__file__).parents[1]
SOURCES = (
    "data",
    "dataloaders",
    "models",
    "util",
    "frugalseg.py",
    "training.py",
    "validation.py",
    "config_ssl_upload.py",
)
DOCUMENTS = [path for path in (ROOT / "docs").glob("*.md") if path.stem != "adding_a_method"]  # adds words
SUBCOMMANDS = (*SACRED_COMMANDS, "collect", "export", "probabilities", "suspects", "with")
SCRIPT = rf"(?<![\w/])(?<!python3 )(?:python +)?(?:training|validation)\.py +(?:{'|'.join(SUBCOMMANDS)})\b"
OURS = r"(?<![\w./-])frugalseg +[a-z{][\w.{}-]*"
COMMAND = rf"(?:python +-m +[\w.{{}}]+|{SCRIPT}|{OURS})"
# What stands for a value of the user, or for a field of an f-string -> a value.
VALUES = {
    "N": "64", "Z": "3", "Y": "2", "X": "2", "ALPHA": "0.7", "BETA": "0.7", "RULE": "random:0.5",
    "DATASET": "isic2017", "TARGET": "chaost2", "NAME": "isic2017", "SCALE": "MIDDLE", "WORD": "alpnet",
}  # fmt: skip
FIELDS = {
    "step": "superpixels", "verb": "check isic2017", "scale": "MIDDLE", "min_foreground_px": "1", "option": "",
    "size": "", "command": "check", "name": "train", "example": "", "target": "chaost2",
    "spec.name": "chaost2", "spec.name.lower()": "chaost2",
    "' '.join(keywords)": "EchoTime", "command_target(self.folder, self.spec)": "data/X --dataset chaost2",
}  # fmt: skip
READS_DATA = ("data.prepare", "data.check", "data.superpixels", "data.noise")  # run in an empty folder


def texts_of(tree: ast.AST):
    """All string literals; fields of f-strings stand in braces."""
    parts = {id(value) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for value in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                each.value if isinstance(each, ast.Constant) else f"{{{ast.unparse(each.value)}}}"  # type: ignore[attr-defined]
                for each in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def commands_in(text: str):
    """The commands in back-quotes, and those that begin a line or a cell."""
    text = text.replace("\\\n", " ")
    spans = re.findall(rf"`([^`]*?{COMMAND}[^`]*)`", text)
    lines = re.findall(rf"^(?:    |\$ )?((?:\S*/)?{COMMAND}[^`\n]*)$", text, re.MULTILINE)
    for part in [*spans, *lines]:
        part = part.partition("\n\n")[0]
        for command in re.split(
            r"; +|(?= python | frugalseg )", re.sub(r"\s{2,}#.*|\s+[|>] .*", "", " ".join(part.split("\n")))
        ):
            found = re.search(rf"{COMMAND}.*", command)
            if found and "*" not in found[0]:
                yield " ".join(found[0].split())


def words_of(command: str) -> list[str]:
    """A command without brackets of usage lines and dots, with values for what stands for one."""
    command = re.sub(r"\{([^{}]*)\}", lambda field: FIELDS.get(field[1], "PLACE"), command)
    command = re.sub(r"^(frugalseg|python -m data\.)( ?[\w-]+) \.\.\.", r"\1\2 isic2017", command)
    command = re.sub(r"\[[^\[\]]*\]|\.\.\.(?=\s|$)|[,;:)]$", " ", command)
    return [VALUES.get(word, word) for word in shlex.split(command)]


def all_commands() -> dict[str, str]:
    """Command -> a file that holds it."""
    found: dict[str, str] = {}
    for place in SOURCES:
        files = (ROOT / place).rglob("*.py") if (ROOT / place).is_dir() else [ROOT / place]
        for file in files:
            for text in texts_of(ast.parse(file.read_text(encoding="utf-8"))):
                found |= dict.fromkeys(commands_in(text), str(file.relative_to(ROOT)))
    for file in [ROOT / "README.md", *DOCUMENTS, *(ROOT / "data").glob("*/README.md")]:
        found |= dict.fromkeys(commands_in(file.read_text(encoding="utf-8")), str(file.relative_to(ROOT)))
    return found


class ParsedError(Exception):
    """The arguments were accepted; nothing is to be done with them."""


def complaint(command: str, monkeypatch, capsys) -> str:
    """What the program that a command names says against it; empty: nothing."""
    words = words_of(command)
    if words[0] == "frugalseg":
        if words[1] not in PROGRAMS:
            return f"no command {words[1]}"
        given = PROGRAMS[words[1]]
        if given.leading:
            plain = [word for word in words[2:] if word != "with" and not word.startswith("-")]
            return unknown_words(plain if plain and plain[0] in SACRED_COMMANDS else ["with", *plain])
        words = ["python", "-m", given.module.removesuffix(".__main__"), *words[2:]]
    program, *arguments = [word for word in words if word not in ("python", "-m")]
    if program.endswith(".py"):
        return unknown_words(arguments)
    spec = importlib.util.find_spec(program)
    if spec is None:
        return f"no module {program}"
    if not arguments or program.startswith("benchmarks"):
        return ""  # names the program
    name = program if spec.submodule_search_locations is None else f"{program}.__main__"
    main = importlib.import_module(name).main
    if program not in READS_DATA:
        parse = argparse.ArgumentParser.parse_args

        def parse_only(self, arguments=None, namespace=None):
            parse(self, arguments, namespace)
            raise ParsedError

        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
    monkeypatch.setattr("sys.argv", [program, *arguments])
    try:
        main(*([arguments] if inspect.signature(main).parameters else []))
    except ConfigError as error:
        return str(error) if re.search("Leave it out|missing|--", str(error)) else ""
    except (UserError, ParsedError):
        return ""  # there are no data in the folder
    except SystemExit as error:
        told = capsys.readouterr().err if error.code else ""
        return "" if "are required" in told and command.endswith("...") else told
    return ""


def unknown_words(arguments: list[str]) -> str:
    """Words and keys after `training.py` that do not exist."""
    command, *words = arguments or ["with"]
    if command not in SUBCOMMANDS:
        return f"no command {command}"
    keys = {key for method in METHODS.values() for key in flatten(plain_defaults(method, family(method.family).config))}
    groups = {key.partition(".")[0] for key in keys}
    for word in words[command != "with" and words[:1] == ["with"] :]:
        key, is_value, _ = word.partition("=")
        known = {*keys, *groups} if is_value else NAMED_CONFIGS
        if key not in known and not key.startswith(("$", "{", "KEY", "PLACE", "<")):
            return f"{word}: unknown"
    return ""


COMMANDS = all_commands()


def test_commands_are_found():
    assert len(COMMANDS) > 60
    assert "frugalseg noise isic2017 --alpha 0.7 --beta 0.7" in COMMANDS
    assert any("validation.py probabilities" in command for command in COMMANDS)
    assert {command.split()[1] for command in COMMANDS if command.startswith("frugalseg ")} >= PROGRAMS.keys()


def test_every_command_is_accepted(tmp_path, monkeypatch, capsys):
    (tmp_path / "data/X").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = []
    for command, file in COMMANDS.items():
        with monkeypatch.context() as patch:
            found += [f"{file}: {command}: {each}" for each in [complaint(command, patch, capsys)] if each]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("python -m data.prepare isic2017 --step superpixels", "--step: not for sets of images"),
        ("python -m data.prepare chaost2 --size-px 0", "expected a whole number from 16"),
        ("python -m data.check chaost2 --folds 0", "unrecognized arguments"),
        ("python training.py with alpnet jrst", "jrst: unknown"),
        ("python training.py with alpnet optim.learning_rate=1", "optim.learning_rate=1: unknown"),
        ("python validation.py probability with baseline", "no command probability"),
        ("python -m data.noises", "no module"),
        ("frugalseg noises isic2017", "no command noises"),
        ("frugalseg check chaost2 --folds 0", "unrecognized arguments"),
        ("frugalseg train alpnet jrst", "jrst: unknown"),
        ("frugalseg validate with alpnet optim.learning_rate=1", "optim.learning_rate=1: unknown"),
        ("frugalseg train print_config alpnet jrst", "jrst: unknown"),
    ],
)
def test_wrong_ones_are_noticed(command, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert reason in complaint(command, monkeypatch, capsys)
