"""Accounts for every file of a folder: which there are, which are used, and which are left out for what reason."""

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

SYSTEM_FILES = frozenset({"thumbs.db", "desktop.ini", "icon\r"})
HIDDEN = "hidden, or a file of the operating system"
LOST, TWICE = "a link to nothing, or no regular file", "the same folder as another one, by a link"
EMPTY, ARCHIVE = "empty folder", "archive, to be unpacked first"
ARCHIVE_SUFFIXES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tbz2", ".txz", ".tar.gz", ".tar.bz2", ".tar.xz", ".zst")
NAMED_AT_MOST = 5  # names per reason


def is_hidden(name: str) -> bool:
    """Whether a name is none of the user's data: `.DS_Store`, macOS's `._*`, `~$*`, `__MACOSX`, `Thumbs.db`."""
    return name.startswith((".", "~$", "__MACOSX", "@eaDir")) or name.lower() in SYSTEM_FILES


def is_archive(name: str) -> bool:
    """Whether a name is that of packed files."""
    return name.lower().endswith(ARCHIVE_SUFFIXES)


def list_files(root: Path, skipped_folders: str = "prepared_*") -> tuple[list[Path], dict[Path, str]]:
    """All files below a folder, in the order of their paths; links are followed, each folder is visited once.

    Args:
        root: the folder.
        skipped_folders: pattern of folders directly below `root` that are outputs, neither listed nor left out; empty:
            there are none.

    Returns:
        The visible files; and path -> reason of what cannot be used: hidden files, links to nothing, empty folders and
        those without permission.
    """
    files: list[Path] = []
    left_out: dict[Path, str] = {}
    visited: set[Path] = set()
    pending = [root]
    while pending:
        folder = pending.pop()
        if skipped_folders and folder.parent == root and folder.match(skipped_folders):
            continue
        if folder.resolve() in visited:
            left_out[folder] = TWICE
            continue
        visited.add(folder.resolve())
        try:
            children = sorted(folder.iterdir())
        except OSError as error:
            left_out[folder] = f"cannot be read ({error.strerror})"
            continue
        if not children and folder != root:
            left_out[folder] = EMPTY
        for child in children:
            if is_hidden(child.name):
                left_out[child] = HIDDEN
            elif child.is_dir():
                pending.append(child)
            elif child.is_file():
                files.append(child)
            else:
                left_out[child] = LOST
    return sorted(files), left_out


def summary(n_found: int, left_out: Mapping[Path, str], root: Path) -> str:
    """`9 files found, 6 used, 3 left out: 2 no picture (a.txt, b.txt); 1 hidden (.c)`, in one line.

    Args:
        n_found: number of all files, with those left out.
        left_out: path -> reason.
        root: paths are shown relative to it.
    """
    counts = f"{n_found} files found, {n_found - len(left_out)} used, {len(left_out)} left out"
    return f"{counts}: {'; '.join(_reasons(left_out, root))}" if left_out else counts


def first_names(names: Sequence[str]) -> str:
    """Up to five names, in the given order; dots stand for further ones."""
    return ", ".join(names[:NAMED_AT_MOST]) + ", ..." * (len(names) > NAMED_AT_MOST)


def _reasons(left_out: Mapping[Path, str], root: Path) -> Iterator[str]:
    """One text for each reason, the most frequent first."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for path in sorted(left_out):
        by_reason[left_out[path]].append(os.path.relpath(path, root))
    for reason, names in sorted(by_reason.items(), key=lambda item: -len(item[1])):
        yield f"{len(names)} {reason} ({first_names(names)})"
