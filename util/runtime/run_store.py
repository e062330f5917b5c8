"""Where Sacred keeps its runs: files (the default), an SQL database, or MongoDB.

    python training.py with ... store=sql:sqlite:////home/me/runs.db       # one machine
    python training.py with ... store=sql:postgresql://me@server/runs      # many; password in ~/.pgpass
    python training.py with ... 'store=$RUN_STORE'                         # the address stays out of the stored run

Databases need `pip install -r requirements-stores.txt`. An SQLite file must not lie on a network disk, whose locks it
cannot trust. However many runs start at once on one store, each gets a number of its own.
"""

import json
import logging
import os
import re
import warnings
from pathlib import Path
from threading import RLock
from typing import Any

from util.errors import ConfigError
from util.files import write_text

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    from sacred.observers import FileStorageObserver, MongoObserver, RunObserver, SqlObserver
    from sacred.serializer import flatten

logger = logging.getLogger(__name__)

RUN_STORES = (FileStorageObserver, SqlObserver, MongoObserver)
WAIT_S = 10  # for a server to answer
LOCK_WAIT_S = 60  # for other processes to finish with an SQLite file

# What makes a transaction wait for its turn, before it looks which runs there are.
_TAKE_TURN = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(hashtext('sacred runs'))"}
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}


def observer_for(store: str, folder: Path) -> RunObserver:
    """The observer that keeps a run, once the store has been found to be reachable and writable.

    Args:
        store: "file"; "sql:" and an SQLite or PostgreSQL address; or a MongoDB address, whose database is `sacred`
            unless it names another. Environment variables ($NAME) are filled in.
        folder: of the files, and of what a MongoDB server that went away could not take.

    Raises:
        ConfigError: no such kind of store, a package for it is missing, or it cannot be reached or written to.
    """
    address = os.path.expandvars(store)
    if address == "file":
        return FileStore(folder)
    kind, _, rest = address.partition(":")
    try:
        if kind == "sql":
            return _open_sql(store, rest)
        if kind in ("mongodb", "mongodb+srv"):
            return _open_mongo(store, address, folder)
    except ImportError as error:
        raise ConfigError(
            f"{_named(store)}: this kind of store needs a package that is missing ({error}). Run `pip install -r "
            "requirements-stores.txt`, or keep the runs in files with store=file."
        ) from error
    raise ConfigError(
        f"{_named(store)}: expected file, sql:sqlite:///FILE, sql:postgresql://USER@HOST/DATABASE or "
        "mongodb://HOST/DATABASE."
    )


class FileStore(FileStorageObserver):
    """Sacred's store of files; a reader, or a run that is killed, never meets a half-written one.

    Run numbers are safe as they are: Sacred counts on until it could make the folder itself.
    """

    def save_json(self, obj: Any, filename: str) -> None:
        """Writes one of the run's JSON files, whole or not at all."""
        write_text(Path(str(self.dir)) / filename, json.dumps(flatten(obj), sort_keys=True, indent=2))


class SqlStore(SqlObserver):
    """Sacred's SQL store for simultaneous starts, heartbeats from a thread, scalars, and results that are text.

    Scalars, which Sacred leaves out, stand in the run's `info` under "metrics", as in the store of files. Results that
    are no numbers, for which there is no column, are left out.
    """

    @classmethod
    def open(cls, engine: Any) -> "SqlStore":
        """The store in a database; makes its tables where there are none."""
        from sqlalchemy.orm import Session

        tables = _tables()
        with engine.begin() as connection:
            connection.exec_driver_sql(_TAKE_TURN[engine.dialect.name])
            tables.create_all(connection)
        self = cls.create_from(engine, Session(engine, expire_on_commit=False))
        self.lock = RLock()  # one session for both threads, so that a heartbeat reaches the run of the main thread
        return self

    def _add_event(self, *arguments: Any, **named: Any) -> Any:
        """Adds the run, while no other process adds one."""
        try:
            self.session.connection().exec_driver_sql(_TAKE_TURN[self.engine.dialect.name])
            with self.session.no_autoflush:
                return super()._add_event(*arguments, **named)
        finally:
            self.session.rollback()  # ends a turn that did not come to its commit

    def log_metrics(self, metrics_by_name: dict[str, Any], info: dict[str, Any]) -> None:
        """Adds the scalars since the last heartbeat to `info`."""
        for name, measured in metrics_by_name.items():
            kept = info.setdefault("metrics", {}).setdefault(name, {"steps": [], "values": [], "timestamps": []})
            kept["steps"] += measured["steps"]
            kept["values"] += measured["values"]
            kept["timestamps"] += [time.isoformat() for time in measured["timestamps"]]

    def heartbeat_event(self, info: Any, captured_out: str, beat_time: Any, result: Any) -> None:
        """Updates the run; where the server is away for a while, the next heartbeat brings it all."""
        from sqlalchemy.exc import DBAPIError

        with self.lock:
            try:
                super().heartbeat_event(info, captured_out, beat_time, _number(result))
            except DBAPIError as error:
                self.session.rollback()
                logger.warning("the run store could not be written to (%s); tried again.", _reason(error))

    def completed_event(self, stop_time: Any, result: Any) -> None:
        """Marks the run as completed."""
        with self.lock:
            super().completed_event(stop_time, _number(result))

    def join(self) -> None:
        """Lets go of the database at the end of a run."""
        self.session.close()
        self.engine.dispose()


def _open_sql(store: str, url: str) -> SqlStore:
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError, DBAPIError

    try:
        address = sqlalchemy.make_url(url)
    except ArgumentError as error:
        raise ConfigError(f"{_named(store)}: no address follows sql:; expected e.g. sql:sqlite:///runs.db.") from error
    kind = address.get_backend_name()
    if kind not in _DRIVERS:
        raise ConfigError(f"{_named(store)}: SQL database {kind!r}; expected {' or '.join(_DRIVERS)}.")
    waits = {"timeout": LOCK_WAIT_S, "check_same_thread": False} if kind == "sqlite" else {"connect_timeout": WAIT_S}
    engine = sqlalchemy.create_engine(address.set(drivername=_DRIVERS[kind]), connect_args=waits, pool_pre_ping=True)
    try:
        return SqlStore.open(engine)
    except DBAPIError as error:
        raise _unreachable(store, error) from error


def _open_mongo(store: str, address: str, folder: Path) -> MongoObserver:
    import pymongo
    from pymongo.errors import PyMongoError

    try:
        client = pymongo.MongoClient(address, serverSelectionTimeoutMS=1000 * WAIT_S)
    except PyMongoError as error:  # what is wrong with the address alone
        raise _unreachable(store, error) from error
    try:
        client.admin.command("ping")
    except PyMongoError as error:
        client.close()
        raise _unreachable(store, error) from error
    return MongoObserver(db_name=client.get_default_database("sacred").name, client=client, failure_dir=folder)


def _tables() -> Any:
    """Sacred's tables, with text of any length: PostgreSQL would refuse a path longer than Sacred expects."""
    from sqlalchemy import String
    from sqlalchemy.exc import MovedIn20Warning

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=MovedIn20Warning)
        from sacred.observers.sql_bases import Base
    for table in Base.metadata.tables.values():
        for column in table.columns:
            if type(column.type) is String:
                column.type.length = None
    return Base.metadata


def _number(result: Any) -> float | None:
    return float(result) if isinstance(result, int | float) else None


def _named(store: str) -> str:
    """The setting, for messages; without a password."""
    return "store=" + repr(re.sub(r"(://[^:@/]*):[^@/]*@", r"\1:***@", store))


def _reason(error: Exception) -> str:
    """What the database said, on one line and without the statement."""
    return " ".join(str(getattr(error, "orig", None) or error).split())[:300]


def _unreachable(store: str, error: Exception) -> ConfigError:
    return ConfigError(
        f"{_named(store)}: cannot be reached or written to ({_reason(error)}). Check the address, that the server "
        "runs and lets you in, and that the folder exists; or keep the runs in files with store=file."
    )
