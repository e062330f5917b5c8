"""The index of runs: records in folders, and the list in the terminal."""

import json
import re

import pytest

from tests.util.results.conftest import NOW, write_record
from util.errors import ConfigError, DataError
from util.results import runs
from util.results.run_index import read_folder
from util.results.run_list import distinguishing, ordered, select, settings_of, to_text


def by_place(found, root):
    return {run.path.removeprefix(f"{root}/"): run for run in found}


def test_every_run_is_read_with_its_status(exps):
    found = by_place(read_folder(exps, NOW), exps)
    assert {place: (run.command, run.status) for place, run in found.items()} == {
        "a/runs/1": ("train", "completed"),
        "a/validation/1": ("validate", "completed"),
        "b/validation/2": ("validate", "completed"),
        "b/runs/1": ("train", "failed"),
        "c/runs/1": ("train", "running"),
        "c/runs/2": ("train", "died"),
        "c/runs/3": ("train", "interrupted"),
        "mySSL_train_SABS/4": ("validate", "interrupted"),
    }
    failed, scored = found["b/runs/1"], found["a/validation/1"]
    assert failed.error == "ValueError: no <b>memory</b>"
    assert (scored.score, scored.report, scored.duration_s) == (0.75, exps / "a/validation/1/report.html", 7 * 3600)
    assert found["a/runs/1"].score is None
    assert found["a/runs/1"].report is None
    assert found["c/runs/1"].duration_s == 3 * 3600  # up to now
    assert found["c/runs/2"].duration_s == 3600  # up to the last heartbeat
    assert found["c/runs/3"].error == "stopped at step 70"
    reference = found["mySSL_train_SABS/4"]
    assert (reference.method, reference.dataset, reference.id) == ("mySSL", "SABS_Superpix", "4")
    assert (reference.score, reference.score_name) == (0.5, "mar_val_batches_meanDice")


def test_a_longer_silence_may_be_allowed(exps):
    found = by_place(read_folder(exps, NOW, died_after_s=3 * 3600.0), exps)
    assert found["c/runs/2"].status == "running"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("run.json", None, "run.json: cannot be read"),
        ("run.json", '{"status": "RUNN', "run.json: not valid JSON, perhaps only half written"),
        ("run.json", "[1]", "run.json: holds a list; expected an object"),
        ("run.json", "", "run.json: not valid JSON"),
        ("run.json", '{"status": "DONE"}', "run.json: status 'DONE'"),
        ("run.json", '{"a": ' + "[" * 100_000, "run.json: not valid JSON"),
        ("run.json", "\0\0", "a NUL character"),
        ("config.json", None, "config.json: cannot be read"),
        ("config.json", b"\xff\xfe\xfa", "config.json"),
        ("config.json", '{"a": ' + '{"a": ' * 700 + "1" + "}" * 701, "config.json"),
    ],
)
def test_a_broken_record_is_listed_as_such(tmp_path, name, content, reason):
    folder = write_record(tmp_path / "exps/a/runs/1", result=0.5)
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (run,) = read_folder(tmp_path, NOW)
    assert run.status == "broken"
    assert reason in run.error
    assert to_text([run], distinguishing([run])).count("\n") == 2


@pytest.mark.parametrize(
    "entry",
    [
        {"start_time": 7, "heartbeat": [], "stop_time": "yesterday"},
        {"start_time": "0001-01-01T00:00:00", "stop_time": "9999-12-31T23:59:59"},
        {"experiment": [], "meta": "x", "command": {}, "fail_trace": 5, "result": {"py/object": "?"}},
        {"result": float("nan")},
    ],
)
def test_unexpected_values_do_no_harm(tmp_path, entry):
    write_record(tmp_path / "1", metrics={"val/dice": 3, "dice": {"values": "abc"}}, info=[1], **entry)
    (run,) = read_folder(tmp_path, NOW)
    assert run.status == "completed"
    assert run.score is None
    json.loads(json.dumps(runs.to_record(run, {}), allow_nan=False))
    assert to_text([run], {}).count("\n") == 2


def test_a_run_whose_record_is_not_begun_is_broken_and_other_numbers_are_none(tmp_path):
    (tmp_path / "a/runs/1").mkdir(parents=True)
    (tmp_path / "scans/1").mkdir(parents=True)
    (tmp_path / "scans/2").mkdir()
    (tmp_path / "scans/2/cout.nii").touch()
    assert [(run.id, run.status) for run in read_folder(tmp_path, NOW)] == [("1", "broken")]


def test_links_are_followed_once(exps):
    (exps / "again").symlink_to(exps)
    assert len(read_folder(exps, NOW)) == 8


def test_no_such_folder(tmp_path):
    with pytest.raises(DataError, match=r"nowhere: no such folder.*path\.log_dir"):
        read_folder(tmp_path / "nowhere", NOW)


def test_runs_are_told_apart_by_what_differs_among_their_like(exps):
    found = read_folder(exps, NOW)
    differing = distinguishing(found)
    assert differing == {("alpnet", "CHAOST2"): ["eval_fold"], ("mySSL", "SABS_Superpix"): []}
    assert settings_of(by_place(found, exps)["b/runs/1"], differing) == {"eval_fold": 1}


def test_filters_take_columns_and_settings(exps):
    found = read_folder(exps, NOW)
    assert {run.id for run in select(found, [("eval_fold", "1"), ("status", "completed")])} == {"2"}
    assert len(select(found, [("method", "ALP*"), ("optim.lr", "0.001")])) == 7
    assert len(select(found, [("start", "2026-11-19*")])) == 1
    with pytest.raises(ConfigError, match="evalfold: neither a column"):
        select(found, [("evalfold", "1")])


def test_order(exps):
    found = read_folder(exps, NOW)
    starts = [run.start for run in ordered(found) if run.start]
    assert len(starts) == len(found)
    assert starts == sorted(starts, reverse=True)
    assert [run.score for run in ordered(found, "score")][:4] == [0.75, 0.5, 0.25, None]
    assert [run.score for run in ordered(found, "score", reverse=True)][:4] == [0.25, 0.5, 0.75, None]
    assert [run.config.get("eval_fold") for run in ordered(found, "eval_fold")][:5] == [0, 0, 1, 1, None]


def test_the_command_prints_a_table_and_json(exps, capsys):
    assert runs.main([str(exps), "--filter", "eval_fold=*", "--sort", "score"]) == 0
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["id", "method", "dataset", "settings", "command"]
    assert re.match(r"1 +alpnet +CHAOST2 +eval_fold=0 +validate +completed +2026-.* 0\.7500 +\S*/a/validation/1", first)
    assert runs.main([str(exps), "--json", "--filter", "status=failed"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["error"] == "ValueError: no <b>memory</b>"
    assert record["start"] == "2026-11-20T09:00:00+00:00"


def test_data_cannot_control_the_terminal(tmp_path):
    write_record(tmp_path / "1", comment="red \x1b[31m\nnext", config={"method": "a\tb"})
    text = to_text(read_folder(tmp_path, NOW), {})
    assert r"red \x1b[31m\nnext" in text
    assert r"a\tb" in text
    assert text.count("\n") == 2
