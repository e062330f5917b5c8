"""`python -m models.presets [WORD ...]`: lists the published runs whose line holds all the words."""

import logging
import sys
from collections.abc import Sequence

from models.presets import noisy, several_tasks, sources
from util.cli import run_main

logger = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> None:
    """Lists the published runs: what follows `python training.py with`, source, hardware, Dice to expect."""
    wanted = sys.argv[1:] if arguments is None else arguments
    for run in (*noisy.published_runs(), *sources.published_runs(), *several_tasks.published_runs()):
        line = f"{run.words:<55} {run.source}; {run.hardware}; Dice {run.expected}"
        if all(word in line for word in wanted):
            logger.info("%s", line)


if __name__ == "__main__":
    run_main(main)
