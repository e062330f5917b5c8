"""The list of runs as one HTML page that needs no network: it sorts, filters, and links to the report of each run."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from util.files import write_text
from util.results.run_index import Run
from util.results.run_list import cell, settings_of, value_text
from util.results.templates import environment

TEMPLATE = Path(__file__).with_name("runs.html.j2")
N_SETTINGS = 5  # settings with a column each; further ones share one
N_SHOWN = 200  # rows that are drawn at once

# Key -> heading and kind: of numbers cells are [text, number], of all others text.
LEADING = {"id": ("Id", "text"), "method": ("Method", "text"), "dataset": ("Data set", "text")}
TRAILING = {
    "command": ("Command", "text"), "status": ("Status", "status"), "start": ("Start", "number"),
    "duration": ("Duration", "number"), "score": ("Score", "number"), "note": ("Note", "note"),
    "path": ("Folder", "path"),
}  # fmt: skip


def save_page(path: Path, runs: Sequence[Run], differing: Mapping[tuple[str, str], Sequence[str]]) -> None:
    """Writes the page, atomically.

    Args:
        path: of the page; reports are linked relative to it.
        runs: the page opens with the newest first.
        differing: see `distinguishing`.
    """
    settings = [settings_of(run, differing) for run in runs]
    counts = Counter(key for each in settings for key in each)
    own = [key for key, _ in counts.most_common(N_SETTINGS)]
    has_more = len(counts) > len(own)
    columns = [
        *LEADING.values(),
        *((key, "setting") for key in own),
        *([("Other settings", "text")] if has_more else ()),
        *TRAILING.values(),
    ]
    folder = path.absolute().parent
    rows = [_row(run, each, own, has_more, folder) for run, each in zip(runs, settings, strict=True)]
    content = {"columns": columns, "rows": rows, "shown": N_SHOWN}
    written = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    write_text(path, environment(TEMPLATE.parent).get_template(TEMPLATE.name).render(content=content, written=written))


def _row(run: Run, settings: Mapping[str, Any], own: Sequence[str], has_more: bool, folder: Path) -> list[Any]:
    """The cells of a run."""
    others = " ".join(f"{key}={value_text(value)}" for key, value in settings.items() if key not in own)
    numbers = {"start": run.start.timestamp() if run.start else None, "duration": run.duration_s, "score": run.score}
    special: dict[str, Any] = {key: [cell(run, key), value] for key, value in numbers.items()}
    special["score"].append(run.score_name)
    special["path"] = [_relative(run.path, folder), _link(run.report, folder)]
    special["note"] = [run.error, run.comment]
    return [
        *(cell(run, key) for key in LEADING),
        *(value_text(settings[key]) if key in settings else "" for key in own),
        *([others] if has_more else ()),
        *(special.get(key, cell(run, key)) for key in TRAILING),
    ]


def _relative(path: str, folder: Path) -> str:
    """A folder relative to that of the page; an address of a database as it is."""
    return path if "://" in path or path.startswith("sql:") else os.path.relpath(path, folder)


def _link(report: Path | None, folder: Path) -> str:
    """A relative URL; empty: there is no report."""
    return "" if report is None else quote(os.fsencode(os.path.relpath(report, folder)))
