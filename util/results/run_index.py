"""An index of Sacred runs: finds the records of runs in folders and databases, and reads what a list of them shows.

Only small files are read: `run.json`, `config.json`, `info.json`, and `metrics.json` where the result is no score. So
the records of the code of SSL-ALPNet's authors, which is plain Sacred, are read as our own.
"""

import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePath
from typing import Any

from util.errors import DataError
from util.files import read_text
from util.inventory import is_hidden
from util.runtime.stored_runs import Entry, store_name, stored_entries
from util.schema import flatten

LARGEST_BYTES = 2**21  # of a file that is read
N_READERS = 16  # threads; they gain most on network file systems
DIED_AFTER_S = 600.0  # age of the last heartbeat; Sacred sends one every 10 s
EARLIEST, LATEST = 1971, 9998  # years of times that have a place in every time zone
RECORDS = ("run.json", "config.json", "cout.txt")
STATUSES = {
    "COMPLETED": "completed", "FAILED": "failed", "TIMEOUT": "failed", "INTERRUPTED": "interrupted",
    "RUNNING": "running", "QUEUED": "queued",
}  # fmt: skip
COMMANDS = {"training": "train", "validation": "validate"}  # entry files whose command is named "main"


@dataclass(frozen=True)
class Run:
    """What is listed of a run; what is not known is empty or None.

    Attributes:
        id: number or name that Sacred gave it.
        method: key `method` of its configuration, else the name of the Sacred experiment.
        dataset: key `dataset`; of a description the name of its file.
        command: such as train or validate.
        status: completed, failed, interrupted, running, queued; died: the heartbeat has stopped; broken: no record.
        start: with time zone.
        duration_s: up to the end, the last heartbeat of one that died, or now.
        score: result of a validation, else the last value of a mean Dice.
        score_name: metric of the score.
        path: folder of the run, or address of its database.
        report: its report page.
        error: the last line of the error, or why the record cannot be read.
        comment: given with `--comment`.
        config: all settings, flat with dotted keys.
    """

    id: str
    path: str
    status: str
    method: str = ""
    dataset: str = ""
    command: str = ""
    start: datetime | None = None
    duration_s: float | None = None
    score: float | None = None
    score_name: str = ""
    report: Path | None = None
    error: str = ""
    comment: str = ""
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)


def read_folder(folder: Path, now: datetime, died_after_s: float = DIED_AFTER_S) -> list[Run]:
    """All runs below a folder; records that cannot be read are listed as "broken".

    Raises:
        DataError: there is no such folder.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Name the folder of your runs, such as path.log_dir of training.py.")
    with ThreadPoolExecutor(N_READERS) as pool:
        return list(pool.map(partial(read_run, now=now, died_after_s=died_after_s), find_runs(folder)))


def read_database(store: str, now: datetime, died_after_s: float = DIED_AFTER_S) -> list[Run]:
    """All runs in an SQL or MongoDB store, see `stored_entries`."""
    path = store_name(store)
    return [make_run(str(entry.get("_id")), path, entry, now, died_after_s) for entry in stored_entries(store)]


def find_runs(folder: Path) -> Iterator[Path]:
    """The folders of runs at and below a folder; nothing within a run is searched, and links are followed once.

    A run has `run.json`; or its name is a number and it has another record of Sacred's, or is empty next to runs.
    """
    visited: set[tuple[int, int]] = set()
    pending = [str(folder)]
    while pending:
        place = pending.pop()
        try:
            about = Path(place).stat()
            with os.scandir(place) as found:
                entries = list(found)
        except OSError:
            continue  # no permission, or just removed
        if (about.st_dev, about.st_ino) in visited:
            continue
        visited.add((about.st_dev, about.st_ino))
        if _is_run(PurePath(place), {entry.name for entry in entries}):
            yield Path(place)
        else:
            folders = [entry for entry in entries if entry.is_dir() and not is_hidden(entry.name)]
            pending += [entry.path for entry in folders if entry.name not in ("_sources", "_resources")]


def _is_run(place: PurePath, names: set[str]) -> bool:
    if "run.json" in names or not place.name.isdecimal():
        return "run.json" in names
    return not names.isdisjoint(RECORDS) or (not names and place.parent.name in ("runs", "validation"))


def read_run(folder: Path, now: datetime, died_after_s: float = DIED_AFTER_S) -> Run:
    """Reads the record of a run from its folder; never raises for what is in it."""
    problems: list[str] = []
    entry = _read(folder / "run.json", problems)
    config = _read(folder / "config.json", problems)
    read: Entry = {**entry, "config": config, "info": _read(folder / "info.json", [])}
    if _number(entry.get("result")) is None and not problems:
        read["metrics"] = _read(folder / "metrics.json", [])
    report = folder / "report.html"
    return make_run(
        folder.name, str(folder), read, now, died_after_s, "; ".join(problems), report if report.is_file() else None
    )


def make_run(
    name: str,
    path: str,
    entry: Entry,
    now: datetime,
    died_after_s: float = DIED_AFTER_S,
    problem: str = "",
    report: Path | None = None,
) -> Run:
    """What is listed of a run.

    Args:
        name: its id.
        path: where it is stored.
        entry: content of `run.json`, with "config", "info" and "metrics" of the other files.
        now: with time zone.
        died_after_s: age of the heartbeat from which a running one counts as dead.
        problem: why its record cannot be read; empty: it can.
        report: its page.
    """
    config = _mapping(entry.get("config"))
    flat, deep = _flat(config)
    experiment = _mapping(entry.get("experiment"))
    start, beat, stop = (_time(entry.get(key)) for key in ("start_time", "heartbeat", "stop_time"))
    status = STATUSES.get(str(entry.get("status")), "")
    if not problem and not status:
        problem = f"run.json: status {str(entry.get('status'))[:40]!r}; expected one of Sacred's"
    problem = problem or deep
    error = _last_line(entry.get("fail_trace"))
    last = beat or start
    if problem:
        status, error = "broken", problem
    elif status == "running" and (last is None or (now - last).total_seconds() > died_after_s):
        status, stop, error = "died", last, f"no heartbeat since {local_time(last)}" if last else "no heartbeat"
    elif status == "completed" and "stopped_at_step" in _mapping(entry.get("info")):
        status, error = "interrupted", f"stopped at step {_mapping(entry.get('info'))['stopped_at_step']}"
    end = stop or (now if status == "running" else beat)
    score, score_name = _score(entry)
    return Run(
        id=name, path=path, status=status, start=start, report=report, error=error, score=score, score_name=score_name,
        method=_text(config.get("method") or experiment.get("name")),
        dataset=PurePath(_text(config.get("dataset"))).name.removesuffix(".json5"),
        command=_command(_text(entry.get("command")), _text(experiment.get("mainfile"))),
        duration_s=max(0.0, (end - start).total_seconds()) if start and end else None,
        comment=_text(_mapping(_mapping(entry.get("meta")).get("options")).get("--comment")),
        config=flat,
    )  # fmt: skip


def _read(file: Path, problems: list[str]) -> dict[str, Any]:
    """A JSON object; where it cannot be read an empty one, and the reason is added to `problems`."""
    try:
        content = json.loads(read_text(file, largest_bytes=LARGEST_BYTES))
    except DataError as error:
        problems.append(str(error).removeprefix(f"{file.parent}{os.sep}"))
    except (ValueError, RecursionError):
        problems.append(f"{file.name}: not valid JSON, perhaps only half written")
    else:
        if isinstance(content, dict):
            return content
        problems.append(f"{file.name}: holds a {type(content).__name__}; expected an object")
    return {}


def _flat(config: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """The settings with dotted keys, and why there are none."""
    try:
        flat = flatten(config)
        json.dumps(list(flat.values()))
    except (RecursionError, TypeError, ValueError):
        return {}, "config.json: settings nested too deeply, or no plain data"
    return flat, ""


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def local_time(time: datetime | None) -> str:
    """A time in the zone of this machine, to the minute; empty if it is not known."""
    return f"{time.astimezone():%Y-%m-%d %H:%M}" if time else ""


def _command(command: str, mainfile: str) -> str:
    return COMMANDS.get(PurePath(mainfile).stem, command) if command == "main" else command


def _time(value: Any) -> datetime | None:
    """Sacred's times are those of UTC, without saying so."""
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    if not EARLIEST <= time.year <= LATEST:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def _last_line(trace: Any) -> str:
    text = "".join(map(str, trace)) if isinstance(trace, list) else _text(trace)
    return text.strip().rpartition("\n")[2].strip()


def _number(value: Any) -> float | None:
    """A finite number; also of NumPy, as Sacred stores it."""
    value = value.get("value") if isinstance(value, Mapping) else value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _score(entry: Entry) -> tuple[float | None, str]:
    """The result where it is a number, else the last value of the metric that most likely is the mean Dice."""
    result = _number(entry.get("result"))
    if result is not None:
        return result, "mean Dice" if entry.get("command") == "validate" else "result"
    metrics = _mapping(entry.get("metrics"))
    names = [name for name in metrics if re.search("dice", name, re.IGNORECASE) and not re.search("loss|train", name)]
    for name in sorted(names, key=lambda name: ("mean" not in name.lower(), len(name), name)):
        values = _mapping(metrics[name]).get("values")
        if isinstance(values, Sequence) and values and (value := _number(values[-1])) is not None:
            return value, name
    return None, ""
