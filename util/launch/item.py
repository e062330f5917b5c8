"""One of many independent runs, as a task of a Slurm job: trains, then validates; joins no process group.

    srun -n8 python -m util.launch.item --sweep eval_fold=0,1,2,3 label_sets=0,1 -- alpnet chaost2 setting2
    python -m util.launch.item --item 3 --sweep seed=1,2,3,4 -- alpnet chaost2 setting2

Task k of a step runs item k; the second job of an array goes on where the first one's tasks end. A task without an item
has nothing to do. Leaves with 0, with a run's own code if that failed, or with 75 (try again) if a signal stopped it.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import FrameType

from util.cli import run_main
from util.launch.sweeps import sweep_items

logger = logging.getLogger(__name__)

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Runs this task's item; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", nargs="+", default=[], metavar="KEY=VALUE,VALUE", help="runs all combinations")
    parser.add_argument("--item", type=int, help="which one (default: by the task's place in the job)")
    parser.add_argument("--train-only", action="store_true", help="without validation")
    parser.add_argument("words", nargs="*", help="what follows `training.py with` in every run")
    given = parser.parse_args(arguments)
    items = sweep_items(given.sweep)
    number = item_number(environment) if given.item is None else given.item
    if not 0 <= number < len(items):
        logger.info("item %d: nothing to do, there are %d.", number, len(items))
        return 0
    words = [*given.words, *items[number]]
    logger.info("item %d of %d: %s", number, len(items), " ".join(words))
    entries = ("training.py",) if given.train_only else ("training.py", "validation.py")
    with Commands(alone(environment)) as commands:
        return commands.run([[sys.executable, entry, "with", *words] for entry in entries])


def item_number(environment: Mapping[str, str]) -> int:
    """The item of this task: counted over the tasks of a step, then over the jobs of an array."""
    job, tasks, task = (
        int(environment.get(name, default))
        for name, default in (("SLURM_ARRAY_TASK_ID", 0), ("SLURM_STEP_NUM_TASKS", 1), ("SLURM_PROCID", 0))
    )
    return job * tasks + task


def alone(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which a process is the only one of its world, and still takes this task's GPU."""
    place = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": environment.get("SLURM_LOCALID", "0")}
    return dict(environment) | place


class Commands:
    """Runs commands one after the other while the `with` block lasts, and hands signals on to the one that runs."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.received: int | None = None
        self.running: subprocess.Popen | None = None

    def __enter__(self) -> "Commands":
        self._former = {number: signal.signal(number, self._hand_on) for number in STOPPING}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _hand_on(self, number: int, _: FrameType | None) -> None:
        self.received = self.received or number
        if self.running is not None and self.running.poll() is None:
            self.running.send_signal(number)

    def run(self, commands: Sequence[Sequence[str]]) -> int:
        """Runs them until one fails or a signal comes; returns 0, its code, or 75 after a signal."""
        for command in commands:
            if self.received is None:
                self.running = subprocess.Popen(command, env=self.environment)
                if self.received is not None:  # it came while the process was being started
                    self.running.send_signal(self.received)
                code = self.running.wait()
                if code and self.received is None:
                    return code if code > 0 else 128 - code
        return 0 if self.received is None else os.EX_TEMPFAIL


if __name__ == "__main__":
    run_main(main)
