"""The index of runs reads the SQL and MongoDB stores."""

from datetime import UTC, datetime

import mongomock
import pytest
from mongomock.gridfs import enable_gridfs_integration
from mongomock.store import ServerStore
from sacred import Experiment

from util.errors import ConfigError
from util.results import runs
from util.results.run_index import read_database
from util.results.run_list import distinguishing, ordered, settings_of
from util.runtime.run_store import create_observer


def store_two_runs(observer):
    ex = Experiment("stored", save_git_info=False)
    ex.add_config(method="tloss", dataset="my sets/skin.json5", seed=1, optim={"lr": 0.5})
    ex.observers.append(observer)

    @ex.command
    def validate(_run):
        _run.log_scalar("test/dice/last", 0.125, 0)
        return 0.5

    @ex.command
    def train(_run, seed):
        _run.log_scalar("val/dice", 0.25, 1)
        _run.log_scalar("val/dice", 0.375, 2)
        raise ValueError("out of luck")

    ex.run("validate", options={"--comment": "a note"})
    with pytest.raises(ValueError, match="luck"):
        ex.run("train", config_updates={"seed": 2})


def assert_both_are_read(found, address):
    done, failed = ordered(found, "id")
    assert (done.command, done.status, done.score, done.error, done.comment) == (
        "validate", "completed", 0.5, "", "a note",
    )  # fmt: skip
    assert (failed.command, failed.status, failed.score, failed.error) == (
        "train", "failed", 0.375, "ValueError: out of luck",
    )  # fmt: skip
    assert {(run.method, run.dataset, run.path) for run in found} == {("tloss", "skin", address)}
    assert settings_of(failed, distinguishing(found)) == {"seed": 2}
    assert done.start is not None
    assert abs((done.start - datetime.now(UTC)).total_seconds()) < 100


def test_runs_in_an_sql_store(tmp_path, capsys):
    address = f"sql:sqlite:///{tmp_path}/runs.db"
    store_two_runs(create_observer(address, tmp_path))
    assert_both_are_read(read_database(address, datetime.now(UTC)), address)
    assert runs.main(["--store", address]) == 0
    assert "out of luck" in capsys.readouterr().out


def test_runs_in_a_mongodb_store(tmp_path, monkeypatch):
    enable_gridfs_integration()
    server = ServerStore()

    class Client(mongomock.MongoClient):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options, _store=server)

    monkeypatch.setattr("pymongo.MongoClient", Client)
    address = "mongodb://me:secret@somewhere:27017/mine"
    store_two_runs(create_observer(address, tmp_path))
    found = read_database(address, datetime.now(UTC))
    assert_both_are_read(found, "mongodb://me:***@somewhere:27017/mine")


@pytest.mark.parametrize(
    ("store", "message"),
    [
        ("file", "store='file': expected sql:sqlite"),
        ("sql:sqlite:///nowhere.db", "nowhere.db.*no such file"),
        ("sql:sqlite:///{}/other.db", "without Sacred's table"),
        ("sql:sqlite:///{}/text.db", "file is not a database"),
    ],
)
def test_a_store_without_runs_is_refused_and_left_as_it_is(tmp_path, monkeypatch, store, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.db").touch()
    (tmp_path / "text.db").write_text("not a database " * 100)
    with pytest.raises(ConfigError, match=message):
        read_database(store.format(tmp_path), datetime.now(UTC))
    assert not (tmp_path / "nowhere.db").exists()
