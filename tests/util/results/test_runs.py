"""The index of runs: records in folders, the list in the terminal, and the page in a browser."""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from util.errors import ConfigError, DataError
from util.results import runs
from util.results.run_index import read_folder
from util.results.run_list import distinguishing, ordered, select, settings_of, to_text

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
HOSTILE = "<script>document.title='broken in'</script>"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def iso(hours_ago):
    return (NOW - timedelta(hours=hours_ago)).replace(tzinfo=None).isoformat()


def write_run(folder, *, config=None, metrics=None, info=None, comment=None, **entry):
    folder.mkdir(parents=True)
    entry = {
        "command": "validate", "status": "COMPLETED", "start_time": iso(3), "heartbeat": iso(1), "stop_time": iso(1),
        "result": None, "experiment": {"name": "frugalseg", "mainfile": "config_ssl_upload.py"},
        "meta": {"options": {"--comment": comment}},
    } | entry  # fmt: skip
    settings = {"method": "alpnet", "dataset": "CHAOST2", "seed": 1, "optim": {"lr": 0.001}} | (config or {})
    for name, content in {"run": entry, "config": settings, "metrics": metrics, "info": info}.items():
        if content is not None:
            (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def exps(tmp_path):
    """Runs of every status, of ours and of the reference's code."""
    out = tmp_path / "exps"
    write_run(out / "a/runs/1", command="train", result="a/checkpoint.pt", config={"eval_fold": 0}, start_time=iso(9))
    write_run(out / "a/validation/1", result=0.75, config={"eval_fold": 0}, start_time=iso(8))
    (out / "a/validation/1/report.html").write_text("the report")
    write_run(out / "b/validation/2", result=0.25, config={"eval_fold": 1, "num_workers": 7}, start_time=iso(7))
    trace = ["Traceback (most recent call last):\n", "  a line\n", "ValueError: no <b>memory</b>\n"]
    write_run(out / "b/runs/1", command="train", status="FAILED", fail_trace=trace, config={"eval_fold": 1})
    write_run(out / "c/runs/1", command="train", status="RUNNING", stop_time=None, heartbeat=iso(1 / 120))
    write_run(out / "c/runs/2", command="train", status="RUNNING", stop_time=None, heartbeat=iso(2))
    write_run(out / "c/runs/3", command="train", info={"stopped_at_step": 70}, comment=HOSTILE)
    write_run(
        out / "mySSL_train_SABS/4", command="main", status="INTERRUPTED", start_time=iso(30), stop_time=iso(29),
        config={"method": None, "dataset": "SABS_Superpix", "path": {"log_dir": "/x"}}, heartbeat=iso(29),
        experiment={"name": "mySSL", "mainfile": "validation.py"},
        metrics={
            "mar_val_batches_classDice": {"steps": [0], "values": [0.1], "timestamps": [iso(29)]},
            "mar_val_batches_meanDice": {"steps": [0, 1], "values": [0.2, 0.5], "timestamps": [iso(29)] * 2},
            "train_dice_loss": {"steps": [0], "values": [0.9], "timestamps": [iso(29)]},
        },
    )  # fmt: skip
    (out / "mySSL_train_SABS/4/snapshots/9").mkdir(parents=True)
    (out / "mySSL_train_SABS/4/snapshots/9/config.json").write_text("{}")  # part of the run above, no run
    return out


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
    folder = write_run(tmp_path / "exps/a/runs/1", result=0.5)
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
    write_run(tmp_path / "1", metrics={"val/dice": 3, "dice": {"values": "abc"}}, info=[1], **entry)
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
    write_run(tmp_path / "1", comment="red \x1b[31m\nnext", config={"method": "a\tb"})
    text = to_text(read_folder(tmp_path, NOW), {})
    assert r"red \x1b[31m\nnext" in text
    assert r"a\tb" in text
    assert text.count("\n") == 2


# Acts on the page as a person would; each line it logs is compared below.
PROBE = """<script>
const ids = () => [...document.querySelectorAll("#body tr")].map(row => row.lastChild.lastChild.textContent).join(" ");
const sorts = () => [...document.querySelectorAll("th")].map(th => th.getAttribute("aria-sort"));
const state = () => sorts().filter(each => each !== "none").join();
const say = name => console.log(`${name}: ${state()}: ${ids()}`);
const button = name => [...document.querySelectorAll("th button")].find(each => each.textContent === name);
const set = (id, value) => { document.getElementById(id).value = value;
  document.getElementById(id).dispatchEvent(new Event("input", { bubbles: true })); };
say("first");
button("Score").click(); say("best");
button("Score").click(); say("worst");
button("Folder").click(); say("folder");
set("text", "eval_fold nothing"); say("nothing");
set("text", "VALUEERROR"); say("found");
set("text", ""); set("status", "running"); say("running");
set("status", ""); set("from", "2026-11-19"); set("to", "2026-11-19"); say("date");
console.log(`title: ${document.title}: ${document.querySelectorAll("b").length}`);
console.log(`link: ${document.querySelector("a") ? "shown" : "none"}`);
set("from", ""); set("to", ""); set("text", "a/validation/1");
console.log(`link: ${document.querySelector("a").getAttribute("href")}`);
console.log(`count: ${document.getElementById("count").textContent}`);
</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_sorts_and_filters_in_a_browser(exps, tmp_path, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    page = exps / "pages/runs.html"
    found = ordered(read_folder(exps, NOW))
    runs.save_page(page, found, distinguishing(found))
    text = page.read_text()
    assert HOSTILE not in text
    assert not re.search(r"https?://|src=|@import", text)
    page.write_text(text.replace("</body>", PROBE))
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--enable-logging=stderr", f"--user-data-dir={tmp_path}/profile", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    said = re.findall(r'CONSOLE:\d+\]? "(.*)", source', done.stderr)
    newest = ["../b/runs/1", "../c/runs/1", "../c/runs/2", "../c/runs/3"]
    older = ["../b/validation/2", "../a/validation/1", "../a/runs/1", "../mySSL_train_SABS/4"]
    lines = dict(line.split(": ", 1) for line in said if not line.startswith("link"))
    assert lines["first"].split()[0] == "descending:"
    assert set(lines["first"].split()[1:5]) == set(newest)
    assert lines["first"].split()[5:] == older
    assert lines["best"].split()[:4] == [
        "descending:",
        "../a/validation/1",
        "../mySSL_train_SABS/4",
        "../b/validation/2",
    ]
    assert lines["worst"].split()[:4] == [
        "ascending:",
        "../b/validation/2",
        "../mySSL_train_SABS/4",
        "../a/validation/1",
    ]
    assert lines["folder"].split()[1:3] == ["../a/runs/1", "../a/validation/1"]
    assert lines["nothing"] == "ascending: "
    assert lines["found"] == "ascending: ../b/runs/1"
    assert lines["running"] == "ascending: ../c/runs/1"
    assert lines["date"] == "ascending: ../mySSL_train_SABS/4"
    assert lines["title"] == "Runs: 0"
    assert lines["count"] == "1 of 8 runs"
    assert [line for line in said if line.startswith("link")] == ["link: none", "link: ../a/validation/1/report.html"]
    assert len(said) == 12  # and nothing else, such as an error
