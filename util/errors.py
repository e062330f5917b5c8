"""Errors caused by user input: settings, files and folders."""

from collections.abc import Mapping


class UserError(ValueError):
    """An error that the user can fix: a file, a setting or a folder.

    The message says what is wrong, what was found, what was expected and what to do next. Command lines print it
    without a traceback and exit with `exit_code` (docs/command_line.md).
    """

    exit_code = 1


class DataError(UserError):
    """A data file is missing, corrupt or inconsistent with the other files."""


class FailedItemsError(DataError):
    """Some items of many failed; the message names each with the reason. All others are done.

    Attributes:
        failed: name of the item -> reason; empty where the message alone tells.
    """

    def __init__(self, message: str, failed: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.failed = dict(failed or {})


class ConfigError(UserError):
    """A setting is unknown, of the wrong type or out of range."""

    exit_code = 2


class CheckpointError(UserError):
    """A checkpoint cannot be read, is corrupt or belongs to a different model."""
