"""A user name and a home folder for users that the system does not know, as in containers started with `--user`."""

import getpass
import os
import pwd
import tempfile
from pathlib import Path


def ensure_user() -> None:
    """Sets USER and HOME for this process and those it starts, where the user database has no entry for its user.

    Libraries name their caches after the user (PyTorch, Triton) or place them in the home folder, and fail on import
    where they find neither. Container engines set HOME to `/`, which such a user cannot write to: it is replaced, too.
    """
    name = f"uid{os.getuid()}"
    try:
        getpass.getuser()
    except (KeyError, OSError, ImportError):
        os.environ["USER"] = name
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        if not os.access(os.environ.get("HOME") or "/nowhere", os.W_OK | os.X_OK):
            os.environ["HOME"] = str(_private_folder(name))


def _private_folder(name: str) -> Path:
    """A folder for temporary files that only this user can enter."""
    folder = Path(tempfile.gettempdir()) / f"frugalseg-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    facts = folder.lstat()
    if folder.is_symlink() or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
        return Path(tempfile.mkdtemp(prefix="frugalseg-"))
    return folder
