"""Which runs: all combinations of the values of several keys, or a list in a file."""

import math
import re
import shlex
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from util.errors import ConfigError


def sweep_items(sweeps: Sequence[str]) -> list[tuple[str, ...]]:
    """Settings of each run of a sweep; the last key varies fastest. An empty sweep is one run without settings.

    Args:
        sweeps: each "key=value,value", or "name,name" for named configs. A list such as [2,3] is one value.

    Raises:
        ConfigError: an empty value, or a duplicate key or value: two runs would share a folder.
    """
    axes = [_axis(sweep) for sweep in sweeps]
    keys = [sweep.partition("=")[0] for sweep in sweeps if "=" in sweep]
    duplicates = sorted({key for key in keys if keys.count(key) > 1})
    if duplicates:
        key = duplicates[0]
        raise ConfigError(f"--sweep: {key} is given twice; give all its values at once, {key}=value,value.")
    return list(product(*axes))


def read_runs(path: Path) -> list[tuple[str, ...]]:
    """Settings of each run in a list: a line per run, quoted as for a shell; comments (#) and empty lines are skipped.

    Raises:
        ConfigError: the file cannot be read, has an unclosed quote, contains no run, or one twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        runs = [tuple(words) for line in lines if (words := shlex.split(line, comments=True))]
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read as a list of runs ({error}); expected a line per run.") from error
    if not runs or len(set(runs)) < len(runs):
        found = "no run" if not runs else f"{' '.join(max(runs, key=runs.count))} twice"
        raise ConfigError(f"{path}: {found}; expected a line per run, such as: alpnet chaost2 eval_fold=0.")
    return runs


def _axis(sweep: str) -> list[str]:
    key, equals, values = sweep.rpartition("=") if "=" not in sweep else sweep.partition("=")
    choices = [value.strip() for value in re.split(r",(?![^\[]*\])", values)]
    if equals and not key.strip():
        raise ConfigError(f"--sweep {sweep}: no key before =; expected KEY=VALUE,VALUE, such as eval_fold=0,1,2.")
    if not all(choices) or len(set(choices)) < len(choices):
        raise ConfigError(f"--sweep {sweep}: expected distinct values separated by commas, such as eval_fold=0,1,2.")
    return [f"{key}{equals}{value}" for value in choices]


def n_jobs(n_items: int, per_job: int) -> int:
    """Number of jobs for all items, `per_job` in each."""
    return math.ceil(n_items / per_job)
