"""Lists of runs: all combinations of some keys' values."""

import math
import re
from collections.abc import Sequence
from itertools import product

from util.errors import ConfigError


def sweep_items(sweeps: Sequence[str]) -> list[tuple[str, ...]]:
    """The words of each run of a sweep, the last key changing fastest; one run without words for no sweep.

    Args:
        sweeps: "key=value,value" each, or "word,word" for named configurations. A list such as [2,3] is one value.

    Raises:
        ConfigError: an empty value, or the same key or value twice, so that two runs would share a folder.
    """
    axes = [_axis(sweep) for sweep in sweeps]
    keys = [sweep.partition("=")[0] for sweep in sweeps if "=" in sweep]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise ConfigError(f"--sweep: {twice[0]} is given twice; give all its values at once, {twice[0]}=value,value.")
    return list(product(*axes))


def _axis(sweep: str) -> list[str]:
    key, equals, values = sweep.rpartition("=") if "=" not in sweep else sweep.partition("=")
    choices = [value.strip() for value in re.split(r",(?![^\[]*\])", values)]
    if not all(choices) or len(set(choices)) < len(choices):
        raise ConfigError(f"--sweep {sweep}: expected different values between commas, such as eval_fold=0,1,2.")
    return [f"{key}{equals}{value}" for value in choices]


def n_jobs(n_items: int, per_job: int) -> int:
    """Jobs for all items, `per_job` in each but the last."""
    return math.ceil(n_items / per_job)
