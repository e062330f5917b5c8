"""Reads the records of runs from the SQL and MongoDB stores of `util.runtime.run_store`; nothing is written."""

import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from util.errors import ConfigError
from util.runtime.run_store import connection_error, describe_store, mongo_client, open_database, sql_engine, tables

# What is large and not needed here.
_LARGE = ("captured_out", "artifacts", "resources", "host", "experiment.sources", "experiment.dependencies")
_JSON_COLUMNS = ("config", "info")

Entry = dict[str, Any]


def stored_entries(store: str) -> list[Entry]:
    """The records of all runs in a database, with the keys of Sacred's `run.json`.

    Args:
        store: sql:ADDRESS or a MongoDB URL, see `create_observer`.

    Returns:
        Also with "_id", "config", "info", and "metrics" by name, of which MongoDB returns those with "dice" in it, the
        last value of each. A configuration that is no JSON is None.

    Raises:
        ConfigError: unknown kind of store, missing package, not reachable, or without Sacred's tables.
    """
    return open_database(store, lambda url: _sql_entries(store, url), lambda address: _mongo_entries(store, address))


def _sql_entries(store: str, url: str) -> list[Entry]:
    import sqlalchemy
    from sqlalchemy.exc import DBAPIError

    engine = sql_engine(store, url)
    database = engine.url.database
    if engine.dialect.name == "sqlite" and not (database and Path(database).is_file()):
        raise ConfigError(f"{describe_store(store)}: no such file. Check the path; an absolute one has four slashes.")
    run, experiment = (tables().tables[name] for name in ("run", "experiment"))
    columns = [column for column in run.c if column.name != "captured_out"]
    query = sqlalchemy.select(*columns, experiment.c.name.label("experiment")).select_from(run.outerjoin(experiment))
    try:
        if not sqlalchemy.inspect(engine).has_table("run"):
            raise ConfigError(f"{describe_store(store)}: a database without Sacred's table of runs. Check the URL.")
        with engine.connect() as connection:
            return [_from_row(row) for row in connection.execute(query).mappings()]
    except DBAPIError as error:
        raise connection_error(store, error) from error
    finally:
        engine.dispose()


def _from_row(row: Mapping[str, Any]) -> Entry:
    entry = {name: _iso(value) for name, value in row.items()} | {name: _parse(row[name]) for name in _JSON_COLUMNS}
    return entry | {
        "_id": row["run_id"],
        "experiment": {"name": row["experiment"]},
        "meta": {"options": {"--comment": row["comment"]}},
        "metrics": (entry["info"] or {}).get("metrics"),
    }


def _parse(text: str | None) -> dict[str, Any] | None:
    try:
        content = json.loads(text or "")
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _mongo_entries(store: str, address: str) -> list[Entry]:
    from pymongo.errors import PyMongoError

    client = mongo_client(store, address)
    database = client.get_default_database("sacred")
    wanted = {"name": {"$regex": "dice", "$options": "i"}}
    try:
        entries = list(database.runs.find({}, dict.fromkeys(_LARGE, 0)))
        found = list(database.metrics.find(wanted, {"run_id": 1, "name": 1, "values": {"$slice": -1}}))
    except PyMongoError as error:
        raise connection_error(store, error) from error
    finally:
        client.close()
    metrics: dict[Any, dict[str, Any]] = {}
    for each in found:
        metrics.setdefault(each["run_id"], {})[each["name"]] = {"values": each["values"]}
    return [
        {name: _iso(value) for name, value in entry.items()} | {"metrics": metrics.get(entry["_id"])}
        for entry in entries
    ]


def _iso(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def store_name(store: str) -> str:
    """The URL of a store for display, with the password masked."""
    return describe_store(os.path.expandvars(store)).removeprefix("store=").strip("'\"")
