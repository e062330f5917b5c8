"""Where Sacred stores runs: files (the default), an SQL database or MongoDB.

    python training.py with ... store=sql:sqlite:////home/me/runs.db       # one machine
    python training.py with ... store=sql:postgresql://me@server/runs      # several machines; password in ~/.pgpass
    python training.py with ... 'store=$RUN_STORE'                         # the URL is not stored with the run

Databases require `pip install -r requirements-stores.txt`. Do not place an SQLite file on a network file system, where
file locking is unreliable. Runs that start at the same time get distinct run ids.
"""

import json
import logging
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar

from util.errors import ConfigError, UserError
from util.files import write_text

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
    from sacred.observers import FileStorageObserver, MongoObserver, RunObserver, SqlObserver
    from sacred.serializer import flatten

logger = logging.getLogger(__name__)

Opened = TypeVar("Opened")

RUN_STORES = (FileStorageObserver, SqlObserver, MongoObserver)
CONNECT_TIMEOUT_S = 10  # of a database server
LOCK_TIMEOUT_S = 60  # for the lock of an SQLite file

# Statements that lock the database before a transaction reads the existing run ids.
_LOCK_STATEMENTS = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(hashtext('sacred runs'))"}
_DRIVERS = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg"}


def create_observer(store: str, folder: Path) -> RunObserver:
    """Creates the Sacred observer of a run after checking that the store is reachable and writable.

    Args:
        store: "file"; "sql:" followed by an SQLite or PostgreSQL URL; or a MongoDB URL, with the database `sacred` by
            default. Environment variables ($NAME) are expanded.
        folder: of the file store; also receives runs that could not be saved to MongoDB.

    Raises:
        ConfigError: unknown kind of store, missing package, or a store that is not reachable or not writable.
    """
    if os.path.expandvars(store) == "file":
        return FileStore(folder)
    return open_database(
        store, partial(_open_sql, store), lambda address: _open_mongo(store, address, folder), "file, "
    )


def open_database(store: str, sql: Callable[[str], Opened], mongo: Callable[[str], Opened], others: str = "") -> Opened:
    """What `sql` or `mongo` makes of the URL of a store; it depends on the kind of database which of them is called.

    Args:
        store: see `create_observer`.
        sql: takes the URL after "sql:".
        mongo: takes a MongoDB URL.
        others: kinds of stores that the caller knows, for messages.

    Raises:
        ConfigError: unknown kind of store, or a missing package.
    """
    address = os.path.expandvars(store)
    kind, _, rest = address.partition(":")
    try:
        if kind == "sql":
            return sql(rest)
        if kind in ("mongodb", "mongodb+srv"):
            return mongo(address)
    except ImportError as error:
        raise ConfigError(
            f"{describe_store(store)}: a required package is missing ({error}). Run `pip install -r "
            "requirements-stores.txt`, or store runs as files with store=file."
        ) from error
    raise ConfigError(
        f"{describe_store(store)}: expected {others}sql:sqlite:///FILE, sql:postgresql://USER@HOST/DATABASE or "
        "mongodb://HOST/DATABASE."
    )


class FileStore(FileStorageObserver):
    """Sacred's file store with atomic writes, so that readers never see partial files, even after a crash.

    Run ids need no lock: Sacred increments the id until it can create the folder.
    """

    leaves_no_record = False  # of a run that fails, see `refusals_leave_no_record`

    def failed_event(self, fail_time: Any, fail_trace: Any) -> None:
        """Records the failure, or removes the record with the folders that it alone has filled."""
        super().failed_event(fail_time, fail_trace)
        if not self.leaves_no_record:
            return
        shutil.rmtree(str(self.dir), ignore_errors=True)
        runs = Path(str(self.basedir))
        if {path.name for path in runs.iterdir()} <= {"_sources"}:
            shutil.rmtree(runs, ignore_errors=True)
        remove_empty(runs, runs.parent)

    def save_json(self, obj: Any, filename: str) -> None:
        """Writes one of the run's JSON files, atomically."""
        write_text(Path(str(self.dir)) / filename, json.dumps(flatten(obj), sort_keys=True, indent=2))


@contextmanager
def refusals_leave_no_record(run: Any, folder: Path) -> Iterator[None]:
    """A user error in the block leaves neither a record of the run in the file store nor empty folders.

    Args:
        run: the Sacred run.
        folder: of the experiment.
    """
    try:
        yield
    except UserError:
        for observer in run.observers:
            if isinstance(observer, FileStore):
                observer.leaves_no_record = True
        remove_empty(folder / "runs", folder / "validation", folder)
        raise


def remove_empty(*folders: Path) -> None:
    """Removes those of the folders that are empty, in this order."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


class SqlStore(SqlObserver):
    """Sacred's SQL store, extended: concurrent starts, heartbeats from a thread, metrics, and non-numeric results.

    Sacred's own observer drops metrics; here they are stored in the run's `info` under "metrics", as in the file store.
    Non-numeric results are not stored, because the column is numeric.
    """

    @classmethod
    def open(cls, engine: Any) -> "SqlStore":
        """Opens the store in a database; creates missing tables."""
        from sqlalchemy.orm import Session

        shared = tables()
        with engine.begin() as connection:
            connection.exec_driver_sql(_LOCK_STATEMENTS[engine.dialect.name])
            shared.create_all(connection)
        self = cls.create_from(engine, Session(engine, expire_on_commit=False))
        self.lock = RLock()  # the heartbeat thread shares the session of the main thread
        return self

    def _add_event(self, *arguments: Any, **named: Any) -> Any:
        """Adds the run under a lock against other processes."""
        try:
            self.session.connection().exec_driver_sql(_LOCK_STATEMENTS[self.engine.dialect.name])
            with self.session.no_autoflush:
                return super()._add_event(*arguments, **named)
        finally:
            self.session.rollback()  # releases the lock if the transaction was not committed

    def log_metrics(self, metrics_by_name: dict[str, Any], info: dict[str, Any]) -> None:
        """Appends the metrics since the last heartbeat to `info`."""
        for name, measured in metrics_by_name.items():
            kept = info.setdefault("metrics", {}).setdefault(name, {"steps": [], "values": [], "timestamps": []})
            kept["steps"] += measured["steps"]
            kept["values"] += measured["values"]
            kept["timestamps"] += [time.isoformat() for time in measured["timestamps"]]

    def heartbeat_event(self, info: Any, captured_out: str, beat_time: Any, result: Any) -> None:
        """Updates the run; if the server is unavailable, the next heartbeat includes the missed update."""
        from sqlalchemy.exc import DBAPIError

        with self.lock:
            try:
                super().heartbeat_event(info, captured_out, beat_time, _number(result))
            except DBAPIError as error:
                self.session.rollback()
                logger.warning("writing to the run store failed (%s); retrying.", _error_text(error))

    def completed_event(self, stop_time: Any, result: Any) -> None:
        """Marks the run as completed."""
        with self.lock:
            super().completed_event(stop_time, _number(result))

    def join(self) -> None:
        """Closes the database connection at the end of a run."""
        self.session.close()
        self.engine.dispose()


def _open_sql(store: str, url: str) -> SqlStore:
    from sqlalchemy.exc import DBAPIError

    engine = sql_engine(store, url)
    try:
        return SqlStore.open(engine)
    except DBAPIError as error:
        raise connection_error(store, error) from error


def sql_engine(store: str, url: str) -> Any:
    """The SQLAlchemy engine of a store; nothing is opened yet.

    Raises:
        ConfigError: no valid URL, or of an unknown kind of database.
    """
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError

    try:
        address = sqlalchemy.make_url(url)
    except ArgumentError as error:
        raise ConfigError(
            f"{describe_store(store)}: no valid URL after sql:, such as sql:sqlite:///runs.db."
        ) from error
    kind = address.get_backend_name()
    if kind not in _DRIVERS:
        raise ConfigError(f"{describe_store(store)}: SQL database {kind!r}; expected {' or '.join(_DRIVERS)}.")
    options = (
        {"timeout": LOCK_TIMEOUT_S, "check_same_thread": False}
        if kind == "sqlite"
        else {"connect_timeout": CONNECT_TIMEOUT_S}
    )
    return sqlalchemy.create_engine(address.set(drivername=_DRIVERS[kind]), connect_args=options, pool_pre_ping=True)


def _open_mongo(store: str, address: str, folder: Path) -> MongoObserver:
    client = mongo_client(store, address)
    return MongoObserver(db_name=client.get_default_database("sacred").name, client=client, failure_dir=folder)


def mongo_client(store: str, address: str) -> Any:
    """The client of a MongoDB store.

    Raises:
        ConfigError: no valid URL, or not reachable.
    """
    import pymongo
    from pymongo.errors import PyMongoError

    try:
        client = pymongo.MongoClient(address, serverSelectionTimeoutMS=1000 * CONNECT_TIMEOUT_S)
    except PyMongoError as error:  # invalid URL
        raise connection_error(store, error) from error
    try:
        client.admin.command("ping")
    except PyMongoError as error:
        client.close()
        raise connection_error(store, error) from error
    return client


def tables() -> Any:
    """Sacred's tables with unlimited string length: PostgreSQL rejects paths longer than Sacred's columns."""
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


def describe_store(store: str) -> str:
    """The setting as shown in messages, with the password masked."""
    return "store=" + repr(re.sub(r"(://[^:@/]*):[^@/]*@", r"\1:***@", store))


def _error_text(error: Exception) -> str:
    """The database's error message on one line, without the SQL statement."""
    return " ".join(str(getattr(error, "orig", None) or error).split())[:300]


def connection_error(store: str, error: Exception) -> ConfigError:
    """The error of a database that does not answer."""
    return ConfigError(
        f"{describe_store(store)}: not reachable or not writable ({_error_text(error)}). Check the URL, that the "
        "server is running and accepts your login, and that the folder exists; or store runs as files with store=file."
    )
