"""The one kind of error that a user can cause."""

from sacred.utils import SacredError


class UserError(SacredError, ValueError):
    """Something the user can put right: a file, a setting, a folder.

    The message says what is wrong, what was found, what was expected and what to do next. Command lines print it
    without a traceback and leave with exit code 1.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, print_traceback=False, print_usage=False)


class DataError(UserError):
    """A data file is missing, damaged, or does not fit the others."""


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, or out of range."""


class CheckpointError(UserError):
    """A checkpoint cannot be read, is damaged, or belongs to another model."""
