"""One of many independent runs, as a task of a Slurm job: trains, then validates, without a process group.

    srun -n8 python -m util.launch.item --sweep eval_fold=0,1,2,3 label_sets=0,1 -- alpnet chaost2 setting2
    python -m util.launch.item --item 3 --sweep seed=1,2,3,4 -- alpnet chaost2 setting2
    srun -n8 python -m util.launch.item --runs runs.txt --finished exps/finished -- path.log_dir=exps

Task k of a job step runs item k of the sweep; the second job of an array continues where the first one's tasks end.
Tasks beyond the last item do nothing. With --runs, the items are the lines of a file, each with the words of a run; a
line that begins with --validate-only is not trained. Exit codes: 0 on success, the run's own code if it failed, 75
(requeue) if a signal stopped it.
"""

import argparse
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType

from util.cli import run_main, whole
from util.errors import ConfigError
from util.files import short_digest, write_text
from util.launch.sweeps import read_runs, sweep_items

logger = logging.getLogger(__name__)

ROOT = Path(__file__).parents[2]
ENTRIES = ("training.py", "validation.py")
VALIDATE_ONLY = "--validate-only"
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def main(arguments: Sequence[str] | None = None, environment: Mapping[str, str] = os.environ) -> int:
    """Runs this task's item; returns the exit code."""
    given = _parser().parse_args(arguments)
    if given.runs and given.sweep:
        raise ConfigError("--runs and --sweep: expected one of them.")
    items = read_runs(given.runs) if given.runs else sweep_items(given.sweep)
    index = item_index(environment) if given.item is None else given.item
    if not 0 <= index < len(items):
        logger.info("item %d: nothing to do, there are %d items.", index, len(items))
        return 0
    words = items[index]
    is_untrained = given.validate_only or words[:1] == (VALIDATE_ONLY,)
    settings = [*given.settings, *(word for word in words if word != VALIDATE_ONLY)]
    entries = ("validation.py",) if is_untrained else ("training.py",) if given.train_only else ENTRIES
    record = given.finished and given.finished / f"{short_digest({'run': settings, 'commands': entries})}.txt"
    if record and record.exists():
        logger.info("%s: has run before. To run it again, delete %s", " ".join(settings), record)
        return 0
    logger.info("item %d of %d: %s", index, len(items), " ".join(settings))
    with CommandRunner(single_process_environment(environment)) as runner:
        code = runner.run([[sys.executable, str(ROOT / entry), "with", *settings] for entry in entries])
    if record and code == 0:
        write_text(record, " ".join(settings) + "\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweep", nargs="+", default=[], metavar="KEY=VALUE,VALUE", help="run all combinations")
    parser.add_argument("--runs", type=Path, metavar="FILE", help="a line per run, in place of --sweep")
    parser.add_argument("--item", type=whole(0), help="index of the item (default: from the Slurm task id)")
    parser.add_argument("--finished", type=Path, metavar="FOLDER", help="record runs there, and skip recorded ones")
    stages = parser.add_mutually_exclusive_group()
    stages.add_argument("--train-only", action="store_true", help="skip validation")
    stages.add_argument(VALIDATE_ONLY, action="store_true", help="skip training")
    parser.add_argument("settings", nargs="*", help="named configs and KEY=VALUE common to all runs")
    return parser


def item_index(environment: Mapping[str, str]) -> int:
    """Item of this task, from its Slurm array index, number of tasks and task id."""
    job, tasks, task = (
        int(environment.get(name, default))
        for name, default in (("SLURM_ARRAY_TASK_ID", 0), ("SLURM_STEP_NUM_TASKS", 1), ("SLURM_PROCID", 0))
    )
    return job * tasks + task


def single_process_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment with a world size of 1 that keeps this task's GPU."""
    variables = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": environment.get("SLURM_LOCALID", "0")}
    return dict(environment) | variables


class CommandRunner:
    """Runs commands in sequence and forwards stop signals to the running one; a context manager."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.environment = environment
        self.received: int | None = None
        self.running: subprocess.Popen | None = None

    def __enter__(self) -> "CommandRunner":
        self._previous = {number: signal.signal(number, self._forward_signal) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _forward_signal(self, number: int, _: FrameType | None) -> None:
        self.received = self.received or number
        if self.running is not None and self.running.poll() is None:
            self.running.send_signal(number)

    def run(self, commands: Sequence[Sequence[str]]) -> int:
        """Runs the commands until one fails or a signal arrives; returns 0, the exit code, or 75 after a signal."""
        for command in commands:
            if self.received is None:
                self.running = subprocess.Popen(command, env=self.environment)
                if self.received is not None:  # it arrived while the process was starting
                    self.running.send_signal(self.received)
                code = self.running.wait()
                if code and self.received is None:
                    return code if code > 0 else 128 - code
        return 0 if self.received is None else os.EX_TEMPFAIL


if __name__ == "__main__":
    run_main(main)
