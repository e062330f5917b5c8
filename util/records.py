"""What derived files were made from: the one place that decides whether they are up to date.

A `Record` holds the settings and the content hashes of the files that something was made from, and of the files that
were made. It holds no times, so that it is the same on every machine. `hash_files` makes comparing cheap: a file is
read again only if its size or its time of change differ from those of the last reading, which are remembered in
`.hashes.json` of the prepared folder.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from util.errors import DataError, UserError
from util.files import file_sha256, read_json, write_text

CACHE_NAME = ".hashes.json"
FORMAT = 1  # of records and of the remembered hashes
SETTLED_NS = 2_000_000_000  # a file changed less than this before it was read may change again with the same time
NAMED_AT_MOST = 3  # files of a kind of change

log = logging.getLogger(__name__)


def hash_files(files: Iterable[Path], folder: Path, jobs: int = 4) -> dict[str, str]:
    """Name -> hexadecimal SHA-256 of the content of each file; files that do not exist are left out.

    Args:
        files: in or below `folder`, or elsewhere.
        folder: where the hashes are remembered, relative to which the names count; where it cannot be written to, all
            files are read each time.
        jobs: files read at a time.

    Raises:
        DataError: a file exists but cannot be read.
    """
    paths = {os.path.relpath(file, folder).replace(os.sep, "/"): file for file in files}
    stamps = {name: stamp for name, path in paths.items() if (stamp := _stamp(path)) is not None}
    known = _load(folder / CACHE_NAME, tuple(_stamp(folder / CACHE_NAME) or ()))
    found = {name: known[name][2] for name, stamp in stamps.items() if name in known and known[name][:2] == stamp}
    due = [name for name in stamps if name not in found]
    before = time.time_ns() - SETTLED_NS
    with ThreadPoolExecutor(max(1, jobs)) as pool:
        found |= dict(zip(due, pool.map(_sha256, (paths[name] for name in due)), strict=True))
    settled = {name: [*stamps[name], found[name]] for name in due if stamps[name][1] < before}
    if settled:
        _save(folder / CACHE_NAME, known | settled)
    return {name: found[name] for name in stamps}


def _stamp(path: Path) -> list[int] | None:
    try:
        state = path.stat()
    except OSError:  # absent, or a link to nowhere
        return None
    return [state.st_size, state.st_mtime_ns]


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"{path}: cannot be read ({reason}). Make it readable, or copy it again.") from error


@lru_cache(maxsize=4)
def _load(path: Path, stamp: tuple[int, ...]) -> dict[str, list[Any]]:
    """The remembered [size, time, hash] of each file, not to be changed; empty where there are none.

    Args:
        path: of the file that holds them.
        stamp: its size and time, with which it is read once.
    """
    try:
        content = read_json(path)
    except UserError:
        return {}
    files = content.get("files") if isinstance(content, dict) and content.get("format") == FORMAT else None
    if not isinstance(files, dict):
        return {}
    return {name: entry for name, entry in files.items() if isinstance(entry, list) and len(entry) == 3}


def _save(path: Path, files: Mapping[str, list[Any]]) -> None:
    try:
        write_text(path, json.dumps({"format": FORMAT, "files": files}))
    except UserError as error:
        log.debug("the files will be read again the next time: %s", error)


@dataclass(frozen=True)
class Record:
    """What a set of files was made from, and what came out.

    Attributes:
        settings: plain values as in JSON: parameters, and a version where the same parameters may give other files.
        made_from: name -> SHA-256 of each file that was read.
        made: name -> SHA-256 of each file that was written.
        facts: what was found or measured; not compared.
    """

    settings: dict[str, Any]
    made_from: dict[str, str]
    made: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The record as it is stored, see `from_json`."""
        return {"record": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, content: Any) -> "Record | None":
        """What `to_json` returned; None for anything else, such as a record of an earlier version."""
        keys = ("settings", "made_from", "made", "facts")
        if not isinstance(content, dict) or content.get("record") != FORMAT:
            return None
        values = {key: content[key] for key in keys if isinstance(content.get(key), dict)}
        return cls(**values) if len(values) == len(keys) else None

    def differences(self, settings: Mapping[str, Any], made_from: Mapping[str, str]) -> str:
        """What differs between the time of the record and now, in words; empty: nothing."""
        parts = [_different_settings(self.settings, settings), different_contents(self.made_from, made_from)]
        return "; ".join(filter(None, parts))

    def staleness(
        self, folder: Path, settings: Mapping[str, Any] | None = None, expected: Iterable[str] | None = None
    ) -> str:
        """What has changed of the settings and of the files that it was made from, in words; empty: nothing.

        Args:
            folder: relative to which `made_from` names files. Names that begin with "../" are taken on trust: files
                outside the prepared folder need not be kept.
            settings: of now; None: not compared.
            expected: names of the files that it would be made from now; None: the recorded ones.

        Raises:
            DataError: a file cannot be read.
        """
        then = {name: content for name, content in self.made_from.items() if not name.startswith("../")}
        now = hash_files([folder / name for name in (then if expected is None else expected)], folder)
        return Record(self.settings, then).differences(self.settings if settings is None else settings, now)

    def is_intact(self, folder: Path) -> bool:
        """Whether the files that were made are in the folder, as they were written."""
        return hash_files([folder / name for name in self.made], folder) == self.made


def _different_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    now = json.loads(json.dumps(now))
    keys = sorted(key for key in then.keys() | now.keys() if then.get(key) != now.get(key))
    return "; ".join(f"{key}: {then.get(key)!r} then, {now.get(key)!r} now" for key in keys)


def different_contents(then: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What differs between two sets of contents, {name: hash or text}, in words; empty: nothing."""
    kinds = {
        "changed": [name for name in then if name in now and then[name] != now[name]],
        "gone": [name for name in then if name not in now],
        "new": [name for name in now if name not in then],
    }
    return "; ".join(f"{kind}: {_listed(sorted(names))}" for kind, names in kinds.items() if names)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED_AT_MOST} more" if len(names) > NAMED_AT_MOST else ""
    return ", ".join(names[:NAMED_AT_MOST]) + more


def digest(contents: Mapping[str, str]) -> str:
    """Hexadecimal SHA-256 over names and contents, in their order."""
    return hashlib.sha256(json.dumps(list(contents.items())).encode()).hexdigest()


def read_record(path: Path) -> Record | None:
    """The record in a file; None where there is none, or it is damaged or of an earlier version."""
    try:
        return Record.from_json(read_json(path))
    except UserError:
        return None
