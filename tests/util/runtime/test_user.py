"""Users that the system does not know, as in containers started with `--user`."""

import getpass
import os
import subprocess
import sys
from pathlib import Path

import pytest

from util.runtime.user import ensure_user

ROOT = Path(__file__).parents[3]
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


@pytest.fixture
def unknown_user(monkeypatch, tmp_path):
    def fail(*_):
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("pwd.getpwuid", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in (*NAMES, "HOME"):
        monkeypatch.setenv(name, "")  # so that it is restored afterwards
        monkeypatch.delenv(name)


@pytest.mark.usefixtures("unknown_user")
def test_an_unknown_user_gets_a_name_and_a_home(tmp_path):
    ensure_user()
    assert getpass.getuser() == f"uid{os.getuid()}"
    assert Path.home() == tmp_path / f"frugalseg-uid{os.getuid()}"
    assert Path.home().stat().st_mode & 0o777 == 0o700


@pytest.mark.usefixtures("unknown_user")
@pytest.mark.parametrize("home", ["/nowhere", ""])
def test_an_unknown_user_needs_a_home_that_can_be_written_to(monkeypatch, tmp_path, home):
    monkeypatch.setenv("HOME", home)
    ensure_user()
    assert Path.home() == tmp_path / f"frugalseg-uid{os.getuid()}"
    (tmp_path / "cache").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "cache"))  # as our container sets it
    ensure_user()
    assert Path.home() == tmp_path / "cache"


@pytest.mark.usefixtures("unknown_user")
def test_a_home_that_others_can_enter_is_not_used(tmp_path):
    taken = tmp_path / f"frugalseg-uid{os.getuid()}"
    taken.mkdir()
    taken.chmod(0o777)
    ensure_user()
    assert Path.home() != taken
    assert Path.home().stat().st_mode & 0o777 == 0o700


def test_a_known_user_stays_as_it_is(monkeypatch):
    monkeypatch.setenv("USER", "anna")
    monkeypatch.setenv("HOME", "/home/anna")
    ensure_user()
    assert (os.environ["USER"], os.environ["HOME"]) == ("anna", "/home/anna")


def test_a_known_user_keeps_a_home_that_cannot_be_written_to(monkeypatch):
    monkeypatch.setenv("HOME", "/nowhere")  # weights may be cached there
    ensure_user()
    assert os.environ["HOME"] == "/nowhere"


def test_importing_any_part_of_the_program_is_enough():
    code = (
        "import pwd\ndef fail(uid): raise KeyError(uid)\npwd.getpwuid = fail\n"
        "import util.errors, getpass\nprint(getpass.getuser())"
    )
    known = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=known, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"uid{os.getuid()}"
