"""The errors that a user can cause, and put right."""


class UserError(ValueError):
    """Something the user can put right: a file, a setting, a folder.

    The message says what is wrong, what was found, what was expected and what to do next. Command lines print it
    without a traceback and leave with exit code 1.
    """


class DataError(UserError):
    """A data file is missing, damaged, or does not fit the others."""


class ConfigError(UserError):
    """A setting is unknown, of the wrong type, or out of range."""


class CheckpointError(UserError):
    """A checkpoint cannot be read, is damaged, or belongs to another model."""
