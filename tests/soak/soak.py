"""Interrupts a run repeatedly at random moments and compares it bit for bit with an uninterrupted one.

    python tests/soak/soak.py --minutes 60 --method alpnet --kill-every 60 240 --seed 0 --out soak
    python tests/soak/soak.py --memory 20 2000 --out soak     # memory of training on few and on many scans

Writes `report.json`; exit code 1 if the runs differ or if memory grows. Runs on a CPU with small generated data.
"""

import argparse
import importlib.util
import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import memory  # noqa: E402
import trainee  # noqa: E402
from differences import differences_of_runs  # noqa: E402

from util.errors import CheckpointError  # noqa: E402
from util.files import write_json  # noqa: E402
from util.runtime import checkpoint  # noqa: E402

logger = logging.getLogger("soak")

PROBE_STEPS = 60  # of the run that measures the speed
HOWS = ("kill", "kill while saving", "terminate", "kill and damage", "terminate twice", "kill while starting")
EXPECTED = (0, os.EX_TEMPFAIL, -signal.SIGKILL)  # exit codes after an interruption


@dataclass
class Blow:
    """An interruption of the run, and the state of its files afterwards."""

    how: str
    after_s: float  # since the process was started
    exit_code: int
    is_unfinished: bool  # whether a checkpoint was partly written
    step: int  # of the checkpoint from which the next start resumes; 0: none


@dataclass
class Report:
    """Settings and results."""

    method: str
    seed: int
    n_steps: int = 0
    checkpoint_every: int = 0
    starting_s: float = 0.0  # until the first step
    alone_s: float = 0.0
    broken_s: float = 0.0
    blows: list[Blow] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)


class Soak:
    """An uninterrupted run, the same run with interruptions, and their differences."""

    def __init__(self, method: str, seed: int, out: Path, is_forked: bool) -> None:
        self.report, self.out, self.is_forked = Report(method, seed), out, is_forked
        self.generator = np.random.default_rng(seed)
        self.data = trainee.make_data(method, out / "data")

    def choose_steps(self, minutes: float) -> int:
        """Number of steps that takes about `minutes`, measured with a short run."""
        process = self.start("probe", PROBE_STEPS, PROBE_STEPS)
        process.wait_for(process.is_training)
        begin = time.monotonic()
        self.expect_success(process)
        return max(PROBE_STEPS, round(PROBE_STEPS * 60 * minutes / (time.monotonic() - begin)))

    def train_alone(self, n_steps: int, n_checkpoints: int) -> Callable[[], None]:
        """Starts the uninterrupted run; returns a function that waits for its end."""
        report, begin = self.report, time.monotonic()
        report.n_steps, report.checkpoint_every = n_steps, max(1, n_steps // n_checkpoints)
        process = self.start("alone", n_steps, report.checkpoint_every)
        process.wait_for(process.is_training)
        report.starting_s = time.monotonic() - begin

        def wait() -> None:
            self.expect_success(process)
            report.alone_s = time.monotonic() - begin

        return wait

    def train_broken(self, kill_every: tuple[float, float] | None, n_blows: int | None) -> None:
        """The same run, interrupted until it is finished; by default in shares of the uninterrupted time."""
        report, begin = self.report, time.monotonic()
        low, high = kill_every or (0.03 * report.alone_s, 0.15 * report.alone_s)
        hows = self.hows()
        while n_blows is None or len(report.blows) < n_blows:
            process = self.start("broken", report.n_steps, report.checkpoint_every)
            how, half_written = next(hows), self.saving_begins()
            if not self.strike(process, how, self.generator.uniform(low, high)):
                break
            after, code = time.monotonic() - process.started, process.end()
            if code not in EXPECTED:
                raise RuntimeError(f"{process.log}: {how}: exit code {code}\n{process.log.read_text()[-3000:]}")
            report.blows.append(Blow(how, after, code, half_written(), self.newest_step()))
            logger.info("%s", report.blows[-1])
        else:
            process = self.start("broken", report.n_steps, report.checkpoint_every)
        self.expect_success(process)
        report.broken_s = time.monotonic() - begin

    def hows(self) -> Iterator[str]:
        """All kinds of interruption, repeatedly in random order."""
        while True:
            yield from (HOWS[index] for index in self.generator.permutation(len(HOWS)))

    def strike(self, process: trainee.Process, how: str, delay_s: float) -> bool:
        """Interrupts; False if the run had finished before."""
        if how == "kill while starting":
            process.wait_for(lambda: False, self.generator.uniform(0, self.report.starting_s))
            return process.send(signal.SIGKILL)
        process.wait_for(process.is_training)
        process.wait_for(lambda: False, delay_s)
        if how == "kill while saving":
            process.wait_for(self.saving_begins())
        if how.startswith("terminate"):
            is_sent, begins = process.send(signal.SIGTERM), self.saving_begins()
            if how == "terminate twice":
                process.wait_for(begins)
                process.send(signal.SIGTERM)
            return is_sent
        is_sent = process.send(signal.SIGKILL)
        if how == "kill and damage" and is_sent:  # unless the run had finished before
            process.end()
            self.damage_newest()
        return is_sent

    def saving_begins(self) -> Callable[[], bool]:
        """Returns a function that is True as soon as a new checkpoint is being written."""
        before = set(self.folder("broken").rglob(".writing-checkpoint*"))
        return lambda: bool(set(self.folder("broken").rglob(".writing-checkpoint*")) - before)

    def damage_newest(self) -> None:
        """Truncates the newest checkpoint, if the previous one is intact."""
        for path in self.folder("broken").rglob("checkpoint.pt"):
            with suppress(CheckpointError):
                checkpoint.load(checkpoint.previous_path(path))
                os.truncate(path, int(self.generator.integers(path.stat().st_size)))

    def newest_step(self) -> int:
        """The step from which the next start resumes."""
        folders = {path.parent for path in self.folder("broken").rglob("checkpoint.pt*")}
        found = [checkpoint.load_newest(folder / "checkpoint.pt") for folder in folders]
        return found[0]["step"] if found and found[0] else 0

    def conclude(self) -> bool:
        """Writes the report; returns whether both runs have the same result."""
        write_json(self.out / "report.json", asdict(self.report))
        struck = Counter(blow.how for blow in self.report.blows)
        logger.info(
            "%s: %d steps, uninterrupted in %.0f s, with %d interruptions (%s) in %.0f s: %s",
            *(self.report.method, self.report.n_steps, self.report.alone_s, len(self.report.blows)),
            ", ".join(f"{count} x {how}" for how, count in struck.items()),
            *(self.report.broken_s, "identical to the last bit" if not self.report.differences else "DIFFERENT:"),
        )
        for difference in self.report.differences:
            logger.info("  %s", difference)
        return not self.report.differences

    def folder(self, name: str) -> Path:
        """Folder of the logs and checkpoints of a run."""
        return self.out / name

    def start(self, name: str, n_steps: int, checkpoint_every: int) -> trainee.Process:
        """Starts or resumes a run."""
        log = self.out / f"{name}-{len(self.report.blows)}.log"
        method, logs = self.report.method, self.folder(name)
        return trainee.start(method, n_steps, checkpoint_every, self.data, logs, log, self.is_forked)

    def expect_success(self, process: trainee.Process) -> None:
        """Waits for the regular end of a run."""
        while process.exit_code() is None:
            time.sleep(0.05)
        if process.exit_code():
            raise RuntimeError(f"{process.log}: uninterrupted run failed:\n{process.log.read_text()[-3000:]}")


def main() -> int:
    """Reads the command line and runs the test."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="an empty or absent folder")
    parser.add_argument("--method", default="alpnet", help="alpnet, or a method of images such as spguided")
    parser.add_argument("--minutes", type=float, default=60, help="length of the uninterrupted run (default 60)")
    parser.add_argument("--steps", type=int, help="of the run, instead of --minutes")
    parser.add_argument("--kill-every", type=float, nargs=2, metavar=("LOW", "HIGH"), help="seconds between them")
    parser.add_argument("--blows", type=int, help="number of interruptions (default: no limit)")
    parser.add_argument("--side-by-side", action="store_true", help="do both runs at once; needs --kill-every")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and kinds of interruption")
    parser.add_argument("--forked", action="store_true", help="start faster: import once, then fork")
    parser.add_argument("--memory", type=int, nargs=2, metavar=("FEW", "MANY"), help="measure memory for so many scans")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    out = given.out.resolve()
    if out.exists() and any(out.iterdir()):
        parser.error(f"--out {out}: not empty; name another folder")
    if given.side_by_side and not given.kill_every:
        parser.error("--side-by-side needs --kill-every")
    if given.memory:
        few, many = given.memory
        return 0 if memory.compare(trainee.fixtures(), few, many, out)["is_flat"] else 1
    if given.forked:
        importlib.import_module("training")
    soak = Soak(given.method, given.seed, out, given.forked)
    n_steps = given.steps or soak.choose_steps(given.minutes)
    n_checkpoints = round(max(12, 240 * given.minutes / given.kill_every[0])) if given.kill_every else 12
    wait_for_alone = soak.train_alone(n_steps, n_checkpoints)
    if not given.side_by_side:
        wait_for_alone()
    soak.train_broken(given.kill_every, given.blows)
    if given.side_by_side:
        wait_for_alone()
    soak.report.differences = differences_of_runs(soak.folder("alone"), soak.folder("broken"))
    return 0 if soak.conclude() else 1


if __name__ == "__main__":
    sys.exit(main())
