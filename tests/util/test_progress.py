"""Progress: lines of a log at intervals, a bar in a terminal."""

import logging
import sys
import time

import pytest

from util import progress
from util.progress import ProgressBar


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(progress, "INTERVAL_S", 0.02)


def test_long_work_leaves_a_line_at_intervals(caplog, capsys):
    with caplog.at_level(logging.INFO), ProgressBar(total=8, initial=2, desc="training") as bar:
        bar.set_postfix({"loss": "0.5"}, refresh=False)
        for _ in range(6):
            time.sleep(0.03)
            bar.update()
    assert 2 <= len(caplog.messages) <= 8
    assert caplog.messages[0].startswith("training: 3 of 8 (38 %), 00:00 so far, 00:")
    assert caplog.messages[0].endswith(" left, loss=0.5")
    assert capsys.readouterr().err == ""


def test_short_work_and_what_is_not_shown_leave_none(monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        for _ in ProgressBar(range(3), desc="hidden", is_shown=False):
            time.sleep(0.03)
        monkeypatch.setattr(progress, "INTERVAL_S", 60.0)
        assert list(ProgressBar(range(3), desc="short")) == [0, 1, 2]
    assert not caplog.messages


def test_a_new_postfix_is_no_reason_for_a_line(monkeypatch, caplog):
    monkeypatch.setattr(progress, "INTERVAL_S", 0.2)
    with caplog.at_level(logging.INFO), ProgressBar(total=50, desc="training") as bar:
        for step in range(50):
            time.sleep(0.01)
            bar.update()
            bar.set_postfix({"loss": f"{step}"})
    assert 1 <= len(caplog.messages) <= 5


def test_of_unknown_length(caplog):
    with caplog.at_level(logging.INFO):
        for _ in ProgressBar(iter(range(3)), desc="scans"):
            time.sleep(0.03)
    assert caplog.messages[0].startswith("scans: ")


def test_a_terminal_has_a_bar(monkeypatch, caplog, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with caplog.at_level(logging.INFO):
        assert list(ProgressBar(range(3), desc="scans")) == [0, 1, 2]
    assert not caplog.messages
    assert "3/3" in capsys.readouterr().err
