import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import mongomock
import pytest
import sqlalchemy
from mongomock.gridfs import enable_gridfs_integration
from sacred import Experiment
from sacred.run import Run
from sqlalchemy.exc import OperationalError

from util.errors import ConfigError
from util.runtime import run_store
from util.runtime.run_store import FileStore

ROOT = Path(__file__).parents[3]
N_STARTS = 16

# Starts runs in several processes at the same time, synchronised by a barrier.
STARTS = """
import multiprocessing, sys
from pathlib import Path
import psycopg, sqlalchemy  # imported before the barrier, so that the starts are closer in time
from sacred import Experiment
from util.runtime.run_store import create_observer

def start(gate, store, folder, number):
    ex = Experiment("many", save_git_info=False)
    ex.add_config(number=number, seed=1)
    gate.wait()
    ex.observers.append(create_observer(store, folder))

    @ex.main
    def main(_run):
        _run.log_scalar("loss", float(number), number)
        return number

    ex.run()

if __name__ == "__main__":
    store, folder, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    fork = multiprocessing.get_context("fork")
    gate = fork.Barrier(count)
    processes = [fork.Process(target=start, args=(gate, store, folder, number)) for number in range(count)]
    [process.start() for process in processes]
    [process.join() for process in processes]
    sys.exit(sum(process.exitcode != 0 for process in processes))
"""


def create_observer(store, folder) -> Any:
    return run_store.create_observer(store, folder)


def start_together(store, tmp_path):
    script = tmp_path / ("deep" * 20) / "starts.py"  # a path longer than Sacred's columns
    script.parent.mkdir()
    script.write_text(STARTS)
    command = [sys.executable, str(script), store, str(tmp_path / "runs"), str(N_STARTS)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def one_run(observer, result="a path"):
    """A short run that logs two metrics, with a heartbeat from the other thread in between."""
    ex = Experiment("one", save_git_info=False)
    ex.add_config(seed=1, path={"log_dir": "x" * 100})
    ex.observers.append(observer)

    @ex.main
    def main(_run: Run):
        _run.beat_interval = 0.05
        _run.log_scalar("loss", 0.5, 1)
        time.sleep(0.02)
        _run.log_scalar("loss", 0.25, 2)
        return result

    return ex.run()


def sql_rows(database, columns="run_id, status, result, config, info"):
    with sqlite3.connect(database) as connection:
        rows = connection.execute(f"select {columns} from run order by id").fetchall()
    connection.close()
    return rows


def assert_all_stored(run_ids, statuses, configs, infos):
    assert len(set(run_ids)) == N_STARTS
    assert set(statuses) == {"COMPLETED"}
    numbers = [json.loads(config)["number"] for config in configs]
    assert sorted(numbers) == list(range(N_STARTS))
    assert [json.loads(info)["metrics"]["loss"]["values"] for info in infos] == [[float(n)] for n in numbers]


def test_concurrent_starts_get_distinct_folders(tmp_path):
    start_together("file", tmp_path)
    folders = [folder for folder in (tmp_path / "runs").iterdir() if folder.name.isdigit()]
    assert {folder.name for folder in folders} == {str(number) for number in range(1, N_STARTS + 1)}
    read = [
        {name: json.loads((f / f"{name}.json").read_text()) for name in ("config", "run", "metrics")} for f in folders
    ]
    assert {each["run"]["status"] for each in read} == {"COMPLETED"}
    assert sorted(each["run"]["result"] for each in read) == list(range(N_STARTS))
    assert all(each["metrics"]["loss"]["values"] == [each["config"]["number"]] for each in read)
    (source,) = (tmp_path / "runs" / "_sources").iterdir()
    assert source.read_text() == STARTS
    assert not list((tmp_path / "runs").rglob(".writing-*"))


def test_concurrent_starts_on_one_sqlite_file(tmp_path):
    start_together(f"sql:sqlite:///{tmp_path}/runs.db", tmp_path)
    ids, statuses, _, configs, infos = zip(*sql_rows(tmp_path / "runs.db"), strict=True)
    assert_all_stored(ids, statuses, configs, infos)


@pytest.fixture
def postgres(tmp_path):
    """URL of an empty PostgreSQL database on a Unix socket; skipped if PostgreSQL is not installed."""
    if not shutil.which("initdb"):
        pytest.skip("PostgreSQL's initdb is not installed")
    user: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}  # it refuses to run as root
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        if user:
            shutil.chown(folder, "postgres")
        initdb = ["initdb", "--no-sync", "--auth=trust", "--username=me", f"--pgdata={folder}/data"]
        subprocess.run(initdb, cwd=folder, check=True, capture_output=True, **user)
        options = ["-D", f"{folder}/data", "-k", name, "-c", "listen_addresses=", "-c", "fsync=off"]
        log = tmp_path / "postgres.log"
        with log.open("w") as stream:
            server = subprocess.Popen(["postgres", *options], cwd=folder, stderr=stream, **user)
            while "ready to accept connections" not in log.read_text() and server.poll() is None:
                time.sleep(0.05)
            yield f"postgresql://me@/postgres?host={name}"
            server.send_signal(signal.SIGINT)  # shuts down even with open connections
            server.wait(timeout=30)


def test_concurrent_starts_on_one_postgresql_server(postgres, tmp_path):
    start_together(f"sql:{postgres}", tmp_path)
    engine = sqlalchemy.create_engine(postgres.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        rows = connection.exec_driver_sql("select run_id, status, config, info from run").fetchall()
    engine.dispose()
    assert_all_stored(*zip(*rows, strict=True))
    assert one_run(create_observer(f"sql:{postgres}", tmp_path)).status == "COMPLETED"


def test_a_file_store_has_sacreds_layout(tmp_path):
    run = one_run(create_observer("file", tmp_path))
    assert run._id == "1"
    metrics = json.loads((tmp_path / "1" / "metrics.json").read_text())
    assert metrics["loss"]["values"] == [0.5, 0.25]
    assert json.loads((tmp_path / "1" / "run.json").read_text())["result"] == "a path"


def test_a_failed_write_keeps_the_previous_file(tmp_path, monkeypatch):
    store = FileStore(tmp_path)
    store.dir = str(tmp_path)
    store.save_json({"status": "RUNNING"}, "run.json")

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", die)
    with pytest.raises(KeyboardInterrupt):
        store.save_json({"status": "COMPLETED"}, "run.json")
    assert json.loads((tmp_path / "run.json").read_text()) == {"status": "RUNNING"}


@pytest.mark.parametrize(("result", "kept"), [("a path", None), (0.75, 0.75), (None, None)])
def test_an_sql_store_saves_metrics_and_numeric_results(tmp_path, result, kept):
    observer = create_observer(f"sql:sqlite:///{tmp_path}/runs.db", tmp_path)
    assert one_run(observer, result).status == "COMPLETED"
    ((_, status, stored, config, info),) = sql_rows(tmp_path / "runs.db")
    assert (status, stored) == ("COMPLETED", kept)
    assert json.loads(config)["path"]["log_dir"] == "x" * 100
    loss = json.loads(info)["metrics"]["loss"]
    assert (loss["steps"], loss["values"], len(loss["timestamps"])) == ([1, 2], [0.5, 0.25], 2)


def test_an_sql_store_has_the_metrics_of_a_killed_run(tmp_path):
    observer = create_observer(f"sql:sqlite:///{tmp_path}/runs.db", tmp_path)
    ex = Experiment("long", save_git_info=False)
    ex.observers.append(observer)
    found = []

    @ex.main
    def main(_run: Run):
        _run.log_scalar("loss", 0.5, 1)
        _run._stop_heartbeat()  # the last heartbeat comes from its thread, before the run ends
        found.extend(sql_rows(tmp_path / "runs.db", "status, info"))

    ex.run(config_updates={"seed": 1})
    ((status, info),) = found
    assert status == "RUNNING"
    assert json.loads(info)["metrics"]["loss"]["values"] == [0.5]


def test_the_heartbeat_after_a_failed_one_includes_its_update(tmp_path, monkeypatch, caplog):
    observer = create_observer(f"sql:sqlite:///{tmp_path}/runs.db", tmp_path)
    failures = iter([OperationalError("UPDATE run", {}, Exception("server closed the connection"))])
    commit = observer.session.commit

    def commit_or_fail():
        if observer.run is not None and observer.run in observer.session and observer.run.info:
            for failure in failures:
                raise failure
        commit()

    monkeypatch.setattr(observer.session, "commit", commit_or_fail)
    ex = Experiment("shaky", save_git_info=False)
    ex.observers.append(observer)

    @ex.main
    def main(_run: Run):
        _run.log_scalar("loss", 0.5, 1)
        _run._emit_heartbeat()
        _run.log_scalar("loss", 0.25, 2)

    ex.run(config_updates={"seed": 1})
    assert "server closed the connection" in caplog.text
    ((status, info),) = sql_rows(tmp_path / "runs.db", "status, info")
    assert status == "COMPLETED"
    assert json.loads(info)["metrics"]["loss"]["values"] == [0.5, 0.25]


@pytest.fixture
def mongo(monkeypatch):
    """An in-memory mock of MongoDB."""
    enable_gridfs_integration()
    monkeypatch.setattr("pymongo.MongoClient", mongomock.MongoClient)
    return mongomock.MongoClient


@pytest.mark.parametrize(("path", "database"), [("/mine", "mine"), ("", "sacred")])
def test_a_mongodb_store_uses_the_given_database(mongo, tmp_path, path, database):
    observer = create_observer(f"mongodb://somewhere:27017{path}", tmp_path)
    runs = [one_run(observer) for _ in range(2)]
    assert [run._id for run in runs] == [1, 2]
    assert observer.runs.database.name == database
    first = observer.runs.find_one({"_id": 1})
    assert (first["status"], first["result"]) == ("COMPLETED", "a path")
    assert observer.metrics.find_one({"run_id": 1, "name": "loss"})["values"] == [0.5, 0.25]


def test_the_store_may_come_from_an_environment_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("RUN_STORE", f"sql:sqlite:///{tmp_path}/runs.db")
    create_observer("$RUN_STORE", tmp_path).join()
    assert (tmp_path / "runs.db").exists()


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("files", r"store='files': expected file, sql:sqlite:///FILE"),
        ("$NOT_SET", r"store='\$NOT_SET': expected file"),
        ("sql:", r"store='sql:': no valid URL after sql:"),
        ("sql:oracle://me@host/runs", r"SQL database 'oracle'; expected sqlite or postgresql"),
        ("sql:sqlite:////nowhere/at/all/runs.db", r"not reachable.*unable to open.*store=file"),
        ("sql:postgresql://me:secret@127.0.0.1:1/runs", r"me:\*\*\*@127.*not reachable.*refused.*that the server"),
        ("mongodb://me:secret@127.0.0.1:1/runs", r"me:\*\*\*@127.*not reachable.*refused.*that the server"),
        ("mongodb://", r"store='mongodb://': not reachable"),
    ],
)
def test_unusable_stores_are_rejected_before_the_run(tmp_path, monkeypatch, store, message):
    monkeypatch.setattr("util.runtime.run_store.CONNECT_TIMEOUT_S", 1)
    with pytest.raises(ConfigError, match=message) as caught:
        create_observer(store, tmp_path)
    assert "secret" not in str(caught.value)


def test_a_file_that_is_not_a_database_is_rejected_before_the_run(tmp_path):
    (tmp_path / "runs.db").write_text("not a database, but text longer than a database header " * 20)
    with pytest.raises(ConfigError, match=r"file is not a database.*store=file"):
        create_observer(f"sql:sqlite:///{tmp_path}/runs.db", tmp_path)


@pytest.mark.parametrize(
    ("store", "package"),
    [
        ("sql:sqlite:///runs.db", "sqlalchemy"),
        ("sql:postgresql://me@host/runs", "psycopg"),
        ("mongodb://host/runs", "pymongo"),
    ],
)
def test_the_error_names_a_missing_package_and_a_fix(tmp_path, monkeypatch, store, package):
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(ConfigError, match=rf"store=.*{package}.*pip install -r requirements-stores\.txt"):
        create_observer(store, tmp_path)
