"""The promises of SECURITY.md: each names tests, and no command connects to a network."""

import re
import socket
from pathlib import Path

import pytest

import training  # noqa: F401 - registers its command
import validation  # noqa: F401
from config_ssl_upload import ex

ROOT = Path(__file__).parents[1]
PROMISES = [line for line in (ROOT / "SECURITY.md").read_text().splitlines() if line.startswith("| ")][1:]


@pytest.mark.parametrize("promise", PROMISES, ids=range(len(PROMISES)))
def test_every_promise_names_tests_that_exist(promise):
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", promise)
    assert named
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / file).read_text(), f"{file} has no {test}"


def test_training_and_validation_connect_to_nothing(prepared_folder, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("a connection to a network")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    changes = {
        **{"modelname": "resnet18", "encoder_weights": "none", "n_steps": 1, "num_workers": 0, "device": "cpu"},
        **{"surface_scores": False, "path": {"data_dir": str(prepared_folder), "log_dir": str(tmp_path)}},
    }
    for command in ("train", "validate"):
        ex.run(command, named_configs=["alpnet", "chaost2"], config_updates=changes)
    assert list(tmp_path.glob("*/validation/1/scores.csv"))
