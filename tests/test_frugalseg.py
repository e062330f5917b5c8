"""The single command: its table, help pages, exit codes, words of training and validation, and tab completion."""

import importlib.util
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import frugalseg
import training
import validation
from config_ssl_upload import ex, known_words
from frugalseg import COMMANDS, dispatch
from util.completion import remembered
from util.errors import ConfigError, UserError

ROOT = Path(__file__).parents[1]
LINES, COLUMNS = 24, 100


def run(*words, **environment):
    return subprocess.run(
        [sys.executable, str(ROOT / "frugalseg.py"), *words],
        **{"env": os.environ | environment, "capture_output": True, "text": True, "check": False},
    )


def page(capsys, *words):
    """What a command prints on stdout; it must end with 0."""
    try:
        code = dispatch(words)
    except SystemExit as stop:
        code = stop.code
    assert not code
    return capsys.readouterr().out


def test_every_module_exists_and_the_installation_has_the_command():
    assert all(importlib.util.find_spec(command.module) for command in COMMANDS.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["scripts"] == {"frugalseg": "frugalseg:main"}
    assert {f"{name}.py" for name in project["tool"]["setuptools"]["py-modules"]} == {
        path.name for path in ROOT.glob("*.py")
    }
    found = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    assert found == {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests"}


@pytest.mark.parametrize("words", [(), ("--help",), ("-h",), ("help",)])
def test_the_overview_names_every_command_once(words, capsys):
    lines = page(capsys, *words).splitlines()
    named = [line.split()[0] for line in lines if line.startswith("  ")]
    assert named == list(COMMANDS)
    assert {f"{command.group}:" for command in COMMANDS.values()} <= set(lines)
    assert len(lines) <= 32


@pytest.mark.parametrize("name", COMMANDS)
def test_a_help_page_fits_on_a_screen_and_has_an_example(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    text = page(capsys, name, "--help")
    lines = text.splitlines()
    assert len(lines) <= LINES
    assert max(map(len, lines)) <= COLUMNS
    assert lines[0].startswith(f"usage: frugalseg {name}")
    assert any(line.strip().startswith(f"frugalseg {name}") for line in lines[1:])
    assert "python -m" not in text


def test_the_long_page_has_all_options(capsys):
    short, long = page(capsys, "predict", "--help"), page(capsys, "predict", "--help-all")
    assert "--checkpoint" in short
    assert "--mean-std" not in short
    assert "--mean-std" in long
    assert "docs/predict.md" in long


def test_the_help_of_training_says_how_to_list_words(capsys):
    text = page(capsys, "train", "alpnet", "--help")
    assert "frugalseg train print_named_configs" in text
    assert "frugalseg train print_config alpnet" in text


def test_starting_imports_nothing_slow():
    code = (
        "import sys, frugalseg; frugalseg.dispatch(['--help']); frugalseg.dispatch(['train', '--help']); "
        "sys.exit(str({'torch', 'numpy', 'sacred', 'argcomplete', 'models'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "set()"


def test_an_unknown_command_suggests_the_nearest(capsys):
    assert dispatch(["trian", "alpnet"]) == 2
    assert "no command 'trian'. Did you mean `train`?" in capsys.readouterr().err
    assert dispatch(["xyzzy"]) == 2
    assert "`frugalseg --help` lists all" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("train alpnet seed=1", "train with alpnet seed=1"),
        ("train with alpnet seed=1", "train with alpnet seed=1"),
        ("train", "train"),
        ("train -u", "train -u"),
        ("train -l DEBUG", "train -l DEBUG"),
        ("train --unobserved alpnet -l DEBUG", "train with --unobserved alpnet -l DEBUG"),
        ("train print_config alpnet", "print_config with alpnet"),
        ("train -l DEBUG print_config with alpnet", "print_config -l DEBUG with alpnet"),
        ("train print_named_configs", "print_named_configs"),
        ("validate threshold", "validate with threshold"),
        ("collect path.log_dir=exps", "collect with path.log_dir=exps"),
        ("suspects isic2017", "suspects with isic2017"),
        ("probabilities isic2017", "probabilities with isic2017"),
        ("pseudo-labels fundus", "export with fundus"),
    ],
)
def test_words_reach_the_experiment(words, expected, monkeypatch):
    seen = []
    monkeypatch.setattr(type(ex), "run_commandline", lambda self, argv: seen.append((self.default_command, argv[1:])))
    assert not dispatch(words.split())
    ((default, passed),) = seen
    assert passed == expected.split()
    assert default == ("train" if words.startswith("train") else "validate")
    assert passed[0] in {"train", *dict(ex.gather_commands())}


def test_the_scripts_read_their_own_command_line(monkeypatch):
    seen = []
    monkeypatch.setattr(type(ex), "run_commandline", lambda self, argv: seen.append(argv))
    assert training.main() == 0
    assert validation.main() is None
    assert seen == [None, None]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("prepare --jobs 0 chaost2", 2, "frugalseg prepare: error: argument --jobs"),
        ("check nosuch", 2, "error: dataset='nosuch': unknown data set"),
        ("check chaost2 --data-dir nowhere", 1, ""),
        ("predict --checkpoint no.pt --images a --out b", 1, "error: no.pt"),
        ("train n_step=3", 2, "error: n_step: unknown setting; did you mean n_steps"),
        ("validate alpnet nosuch", 2, "error: nosuch: neither a named configuration"),
        ("train optim=", 2, "optim"),
        ("train alpnet path.data_dir=nowhere", 1, "error: nowhere"),
        ("train -x", 2, "error: unknown option -x"),
        ("train -l", 2, "error: -l requires argument"),
    ],
)
def test_exit_codes(words, code, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["frugalseg", *words.split()])
    with pytest.raises(SystemExit) as stopped:
        frugalseg.main()
    assert stopped.value.code == code
    assert told in capsys.readouterr().err


def test_exit_codes_of_processes():
    assert run().returncode == 0
    unknown = run("train", "alpnet", "n_step=3", "-u")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "Traceback" not in unknown.stderr


def test_an_unknown_command_of_a_script_is_wrong_usage(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["training.py", "trian"])
    with pytest.raises(SystemExit) as stopped:
        training.main()
    assert stopped.value.code == 2


@pytest.mark.parametrize(("error", "code"), [(UserError("x"), 1), (ConfigError("x"), 2), (KeyboardInterrupt(), 130)])
def test_errors_become_exit_codes(error, code, monkeypatch):
    def fail(_):
        raise error

    monkeypatch.setattr("util.demo.main", fail)
    monkeypatch.setattr(sys, "argv", ["frugalseg", "demo"])
    with pytest.raises(SystemExit) as stopped:
        frugalseg.main()
    assert stopped.value.code == code


def test_the_document_has_every_command_and_code():
    text = (ROOT / "docs/command_line.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows[: len(COMMANDS)]] == list(COMMANDS)
    assert all(f"| {code} |" in text for code in (0, 1, 2, os.EX_TEMPFAIL, 130))


def test_presets_as_json(capsys):
    found = json.loads(page(capsys, "presets", "isic2017", "tloss", "--json"))
    assert found
    assert all("isic2017" in each["words"] and each.keys() == set(PUBLISHED) for each in found)


PUBLISHED = ("words", "source", "hardware", "expected")


def test_the_demo_runs_the_script_in_the_folder_of_the_user(tmp_path, monkeypatch):
    calls = []

    def note(command, env, check):
        calls.append((command, env["OUT"], env["JOBS"], env["PYTHON"]))
        return subprocess.CompletedProcess(command, -15)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", note)
    assert dispatch(["demo", "--out", "mine", "--jobs", "3"]) == 128 + 15
    assert calls == [(["bash", str(ROOT / "examples/demo.sh")], str(tmp_path / "mine"), "3", sys.executable)]


def completions(line, tmp_path):
    out = tmp_path / "completions"
    environment = {"COMP_LINE": line, "COMP_POINT": str(len(line)), "COMP_TYPE": "9", "_ARGCOMPLETE": "1"}
    environment |= {"_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(out)}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    run(**environment)
    return [word.rstrip() for word in out.read_text().splitlines()]


def test_completion(tmp_path, monkeypatch):
    assert completions("frugalseg pre", tmp_path) == ["prepare", "presets", "predict"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    remembered("words", known_words)  # as the first completion does
    found = completions("frugalseg train alpn", tmp_path)
    assert {"alpnet", "alpnet_annotated"} == set(found)
    assert "optim.lr=" in completions("frugalseg validate alpnet optim.l", tmp_path)
    assert not [word for word in completions("frugalseg train ", tmp_path) if word.endswith("=")]
    assert "--step" in completions("frugalseg prepare chaost2 --st", tmp_path)
    assert "superpixels" in completions("frugalseg prepare chaost2 --step ", tmp_path)


def test_completions_are_made_again_when_the_code_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("util.completion.ROOT", tmp_path)
    (tmp_path / "a.py").touch()
    assert remembered("x", lambda: ["old"]) == ["old"]
    assert remembered("x", lambda: ["new"]) == ["old"]
    os.utime(tmp_path / "a.py", ns=(1, 1))
    assert remembered("x", lambda: ["new"]) == ["new"]
    (tmp_path / "cache/frugalseg/completion-x.json").write_text("damaged")
    assert remembered("x", lambda: ["newer"]) == ["newer"]
