"""Runs of the studies: commands of the experiment in this process, each once."""

import contextlib
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

import training  # noqa: F401 - registers the command
import validation  # noqa: F401 - likewise
from config_ssl_upload import Settings, ex, read_settings
from util.files import read_json_object, write_json

DONE = "headline.json"


def settings_of(words: Sequence[str], keys: Mapping[str, Any]) -> Settings:
    """The whole configuration of named configurations and further settings."""
    with contextlib.redirect_stdout(io.StringIO()):
        config = ex.run("print_config", dict(keys), named_configs=tuple(words)).config
    return read_settings(config)


def run_once(
    words: Sequence[str], keys: Mapping[str, Any], commands: Sequence[str] = ("train", "validate")
) -> Settings:
    """Runs commands one after the other on one thread; a configuration that has run before is left as it is.

    Args:
        words: named configurations.
        keys: further settings.
        commands: of training.py and validation.py.

    Returns:
        The settings, whose experiment folder holds what the commands returned, see `results`.
    """
    with _one_quiet_thread():
        settings = settings_of(words, keys)
        done = settings.experiment_folder / DONE
        if not done.exists():
            found = {name: ex.run(name, dict(keys), named_configs=tuple(words)).result for name in commands}
            write_json(done, found)
    return settings


@contextlib.contextmanager
def _one_quiet_thread() -> Iterator[None]:
    """One thread of torch, and errors alone in the log; both are as before at the end."""
    n_threads, disabled = torch.get_num_threads(), logging.root.manager.disable
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)
        logging.disable(disabled)


def results(settings: Settings) -> dict[str, Any]:
    """What each command of a run returned, by name."""
    return read_json_object(settings.experiment_folder / DONE)
