"""Which files of a folder are used, and why the others are not: nothing is left out in silence."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

NAMED_AT_MOST = 5  # of the files left out for one reason
HIDDEN, DANGLING, EMPTY = "hidden", "link to nothing", "empty folder"
LOCKED, ARCHIVE = "folder that cannot be read", "archive, to be unpacked first"
ARCHIVE_SUFFIXES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zst")


@dataclass
class Inventory:
    """What became of everything that was found in a folder.

    Attributes:
        n_used: files that are used.
        left_out: reason -> names of the files that are not.
    """

    n_used: int = 0
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, reason: str, *names: str | Path) -> None:
        """Notes files that are not used."""
        if names:
            self.left_out.setdefault(reason, []).extend(map(str, names))

    def add(self, other: "Inventory") -> None:
        """Adds another place's."""
        self.n_used += other.n_used
        for reason, names in other.left_out.items():
            self.leave_out(reason, *names)

    @property
    def n_left_out(self) -> int:
        """Files that are not used."""
        return sum(map(len, self.left_out.values()))

    def __str__(self) -> str:
        """Such as "5 files found, 3 used, 2 left out: hidden: ._a.png, ._b.png"."""
        counts = f"{self.n_used + self.n_left_out} files found, {self.n_used} used, {self.n_left_out} left out"
        reasons = [f"{reason}: {name_some(names)}" for reason, names in self.left_out.items()]
        return counts + (f": {'; '.join(reasons)}" if reasons else "")


def name_some(names: Iterable[str], at_most: int = NAMED_AT_MOST) -> str:
    """Different names, separated by commas; the first ones only, with the number of the others."""
    different = list(dict.fromkeys(names))
    more = f" and {len(different) - at_most} more" if len(different) > at_most else ""
    return ", ".join(different[:at_most]) + more


def entries_below(folder: Path) -> Iterator[Path]:
    """Yields every file below a folder, links to nothing, and folders that are empty, hidden or cannot be read.

    Links to folders are followed, but a folder is visited only once.
    """
    visited = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        path, real = Path(place), os.path.realpath(place)
        is_new, closed = real not in visited, []
        visited.add(real)
        if is_new:
            closed = [name for name in folders if name.startswith(".") or not _has_entries(path / name)]
            yield from (path / name for name in sorted([*files, *closed]))
        folders[:] = sorted(set(folders) - set(closed)) if is_new else []


def _has_entries(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def plain_reason(path: Path) -> str:
    """Why an entry of `entries_below` is of no use to anybody; empty: it may be of use."""
    if path.name.startswith("."):
        return HIDDEN
    if path.is_symlink() and not path.exists():
        return DANGLING
    if path.is_dir():
        return EMPTY if os.access(path, os.R_OK | os.X_OK) else LOCKED
    return ARCHIVE if path.name.lower().endswith(ARCHIVE_SUFFIXES) else ""
