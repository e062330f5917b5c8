"""Runs of the studies: commands of the experiment in this process, each once."""

import contextlib
import io
import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch

import training  # noqa: F401 - registers the command
import validation  # noqa: F401 - likewise
from config_ssl_upload import Settings, ex, read_settings
from util.files import read_json_object, write_json

DONE = "headline.json"


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
    torch.set_num_threads(1)
    logging.disable(logging.INFO)
    with contextlib.redirect_stdout(io.StringIO()):
        config = ex.run("print_config", dict(keys), named_configs=tuple(words)).config
    settings = read_settings(config)
    done = settings.experiment_folder / DONE
    if not done.exists():
        options = {"--loglevel": "ERROR"}
        found = {}
        for name in commands:
            found[name] = ex.run(name, dict(keys), named_configs=tuple(words), options=options).result
        write_json(done, found)
    return settings


def results(settings: Settings) -> dict[str, Any]:
    """What each command of a run returned, by name."""
    return read_json_object(settings.experiment_folder / DONE)
