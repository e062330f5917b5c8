import json

import pytest

from models.training.trained_on import CASES, record_cases, warn_of_trained_cases


@pytest.mark.parametrize(
    ("dataset", "tested", "named"),
    [
        ("MINE", {"a": "p", "x": "q"}, "1 of the 2 cases that are scored now, or on others of their patients (a)"),
        ("MINE", {"x": "p2", "y": "r"}, "1 of the 2 cases that are scored now, or on others of their patients (x)"),
        ("MINE", {"x": "q"}, None),
        ("OTHER", {"a": "p"}, None),  # ids of another data set mean nothing
    ],
)
def test_tested_cases_and_patients_that_were_trained_on_are_named(tmp_path, caplog, dataset, tested, named):
    record_cases({"a": "p", "b": "p2"}, "MINE", tmp_path / "checkpoint.pt", is_new=True)
    for path in (tmp_path / "checkpoint.pt", tmp_path / "snapshots/5.pth"):
        caplog.clear()
        warn_of_trained_cases(path, dataset, tested)
        assert [named in each for each in caplog.messages] == ([True] if named else [])


def test_what_was_trained_on_before_is_remembered_when_a_run_is_resumed(tmp_path):
    path = tmp_path / "checkpoint.pt"
    for cases, is_new in (({"old": "p"}, True), ({"a": "p"}, True), ({"b": "q"}, False)):
        record_cases(cases, "MINE", path, is_new)
    assert json.loads((tmp_path / CASES).read_text())["cases"] == {"a": "p", "b": "q"}


@pytest.mark.parametrize("content", [None, "{", "[]", '{"dataset": "MINE", "cases": 3}'])
def test_without_a_record_nothing_is_said(tmp_path, caplog, content):
    if content is not None:
        (tmp_path / CASES).write_text(content)
    warn_of_trained_cases(tmp_path / "checkpoint.pt", "MINE", {"a": "p"})
    assert caplog.messages == []
