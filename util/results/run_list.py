"""A list of runs: what distinguishes them, filters, order, and the list as text."""

import fnmatch
import json
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from util.errors import ConfigError
from util.ids import natural_key
from util.results.run_index import Run, local_time

LONGEST_VALUE = 60  # characters of a setting
LONGEST_KEY = 200  # characters that decide the order
WIDEST = {"settings": 48, "note": 72}  # characters of columns in a terminal
COLUMNS = ("id", "method", "dataset", "settings", "command", "status", "start", "duration", "score", "path", "note")
HIGHEST_FIRST = ("start", "duration", "score")
FINDABLE = ("id", "method", "dataset", "command", "status", "start", "path", "comment", "error")

# Settings that say where and how fast a run was computed, which is no reason to tell two runs apart.
INCIDENTAL = re.compile(
    r"(path|store|device|gpu_id|num_workers|data_on|channels_last|compile|\w+_interval|\w+_every|check_data|"
    r"accept_changed_data|surface_scores|save_predictions|pictures|export_\w+|pseudo_label)(\.|$)"
)


def distinguishing(runs: Iterable[Run]) -> dict[tuple[str, str], list[str]]:
    """The settings in which runs of one method and data set differ, those that vary in most runs first.

    Returns:
        (method, data set) -> keys.
    """
    values: dict[tuple[str, str], dict[str, set[Any]]] = defaultdict(lambda: defaultdict(set))
    sizes: Counter[tuple[str, str]] = Counter()
    for run in runs:
        group = run.method, run.dataset
        sizes[group] += 1
        for key, value in run.config.items():
            values[group][key].add(value if isinstance(value, str | int | float) else repr(value))
    differing = {
        group: [key for key, found in keys.items() if len(found) > 1 and not INCIDENTAL.match(key)]
        for group, keys in values.items()
    }
    weights: Counter[str] = Counter()
    for group, keys in differing.items():
        weights.update(dict.fromkeys(keys, sizes[group]))
    return {group: sorted(keys, key=lambda key: (-weights[key], key)) for group, keys in differing.items()}


def settings_of(run: Run, differing: Mapping[tuple[str, str], Sequence[str]]) -> dict[str, Any]:
    """The settings that distinguish a run, see `distinguishing`."""
    keys = differing.get((run.method, run.dataset), ())
    return {key: run.config[key] for key in keys if key in run.config}


def value_text(value: Any) -> str:
    """A setting on one line, cut to `LONGEST_VALUE` characters."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def select(runs: Sequence[Run], filters: Sequence[tuple[str, str]]) -> list[Run]:
    """The runs that all filters match.

    Args:
        runs: to choose from.
        filters: name of a column or setting, and its value: capitals do not matter, `*` stands for any text.

    Raises:
        ConfigError: no run has such a setting.
    """
    for key, _ in filters:
        _require_known(key, runs, FINDABLE)
    return [run for run in runs if all(_matches(run, key, wanted) for key, wanted in filters)]


def _matches(run: Run, key: str, wanted: str) -> bool:
    if key not in FINDABLE and key not in run.config:
        return False
    found = cell(run, key) if key in FINDABLE else _whole(run.config[key])
    return fnmatch.fnmatchcase(found.lower(), wanted.lower())


def _whole(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _require_known(key: str, runs: Sequence[Run], columns: Sequence[str]) -> None:
    if runs and key not in columns and not any(key in run.config for run in runs):
        raise ConfigError(
            f"{key}: neither a column ({', '.join(columns)}) nor a setting of any run, such as eval_fold or optim.lr."
        )


def ordered(runs: Sequence[Run], column: str = "start", reverse: bool = False) -> list[Run]:
    """The runs in the order of a column or setting; those without a value are last.

    `HIGHEST_FIRST` begin with the largest value, all others with the smallest; `reverse` turns this round.

    Raises:
        ConfigError: no run has such a setting.
    """
    _require_known(column, runs, (*HIGHEST_FIRST, *FINDABLE))
    rank = _rank(column)
    ranks = {id(run): rank(run) for run in runs}
    known = [run for run in runs if ranks[id(run)] is not None]
    numbers = all(isinstance(ranks[id(run)], float) for run in known)

    def key(run: Run) -> Any:
        value = ranks[id(run)]
        return value if numbers else natural_key(str(value)[:LONGEST_KEY])

    known.sort(key=key, reverse=(column in HIGHEST_FIRST) != reverse)
    return known + [run for run in runs if ranks[id(run)] is None]


def _rank(column: str) -> Callable[[Run], float | str | None]:
    """What a run is ordered by; None: it has no value."""
    numbers: dict[str, Callable[[Run], float | None]] = {
        "start": lambda run: run.start.timestamp() if run.start else None,
        "duration": lambda run: run.duration_s,
        "score": lambda run: run.score,
    }
    if column in numbers:
        return numbers[column]
    if column in FINDABLE:
        return lambda run: cell(run, column) or None

    def of_setting(run: Run) -> float | str | None:
        value = run.config.get(column)
        if value is None:
            return None
        return float(value) if isinstance(value, int | float) else _whole(value)

    return of_setting


def cell(run: Run, column: str) -> str:
    """The text of a column other than "settings"; empty if there is none."""
    if column == "start":
        return local_time(run.start)
    if column == "duration":
        return "" if run.duration_s is None else duration_text(run.duration_s)
    if column == "score":
        return "" if run.score is None else f"{run.score:.4f}"
    if column == "note":
        return "; ".join(filter(None, (run.error, run.comment)))
    return str(getattr(run, column))


def duration_text(seconds: float) -> str:
    """Such as 0:00:05 or 26:10:00: hours, minutes, seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def to_text(runs: Sequence[Run], differing: Mapping[tuple[str, str], Sequence[str]]) -> str:
    """The list for a terminal; a column that is empty throughout is left out."""
    rows = [[_fit(column, _cell(run, column, differing)) for column in COLUMNS] for run in runs]
    shown = [place for place in range(len(COLUMNS)) if any(row[place] for row in rows)]
    table = [[COLUMNS[place] for place in shown], *([row[place] for place in shown] for row in rows)]
    widths = [max(map(_width, column)) for column in zip(*table, strict=True)]
    lines = ("  ".join(_pad(text, width) for text, width in zip(row, widths, strict=True)).rstrip() for row in table)
    return "\n".join(lines) + "\n"


def _cell(run: Run, column: str, differing: Mapping[tuple[str, str], Sequence[str]]) -> str:
    if column == "settings":
        return " ".join(f"{key}={value_text(value)}" for key, value in settings_of(run, differing).items())
    return cell(run, column)


def _fit(column: str, text: str) -> str:
    """Text for a terminal: on one line, with what could control the terminal as escapes."""
    shown = "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)
    limit = WIDEST.get(column)
    return shown if limit is None or len(shown) <= limit else f"{shown[: limit - 1]}…"


def _width(text: str) -> int:
    """Columns that a text takes in a terminal."""
    return len(text) + sum(unicodedata.east_asian_width(letter) in "WF" for letter in text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def to_record(run: Run, differing: Mapping[tuple[str, str], Sequence[str]]) -> dict[str, Any]:
    """What is listed of a run, as plain data; times are those of UTC."""
    return {
        "id": run.id, "method": run.method, "dataset": run.dataset, "settings": settings_of(run, differing),
        "command": run.command, "status": run.status, "start": run.start.isoformat() if run.start else None,
        "duration_s": run.duration_s, "score": run.score, "score_name": run.score_name, "path": run.path,
        "report": None if run.report is None else str(run.report), "error": run.error, "comment": run.comment,
    }  # fmt: skip
