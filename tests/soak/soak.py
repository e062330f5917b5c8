"""Kills a training at random moments, again and again, and compares it bit for bit with one that was left alone.

    python tests/soak/soak.py --minutes 60 --method alpnet --kill-every 60 240 --seed 0 --out soak
    python tests/soak/soak.py --memory 20 2000 --out soak     # memory of training on few and on many scans

Writes `report.json`; leaves with exit code 1 where the trainings differ, or where memory grows. On a CPU, with small
made-up data.
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
from differences import differences_of_trainings  # noqa: E402

from util.errors import CheckpointError  # noqa: E402
from util.files import write_json  # noqa: E402
from util.runtime import checkpoint  # noqa: E402

logger = logging.getLogger("soak")

PROBE_STEPS = 60  # from which the speed is told
HOWS = ("kill", "kill while saving", "terminate", "kill and damage", "terminate twice", "kill while starting")
EXPECTED = (0, os.EX_TEMPFAIL, -signal.SIGKILL)  # exit codes after a blow


@dataclass
class Blow:
    """A moment at which the training was struck, and what was left of it."""

    how: str
    after_s: float  # since the process was started
    exit_code: int
    is_unfinished: bool  # whether a checkpoint was half written
    step: int  # of the checkpoint that the next start goes on from; 0: none


@dataclass
class Report:
    """What has been done and seen."""

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
    """A training left alone, the same one broken, and what differs."""

    def __init__(self, method: str, seed: int, out: Path, is_forked: bool) -> None:
        self.report, self.out, self.is_forked = Report(method, seed), out, is_forked
        self.generator = np.random.default_rng(seed)
        self.data = trainee.make_data(method, out / "data")

    def choose_steps(self, minutes: float) -> int:
        """Steps that take about `minutes`, told from a short training."""
        process = self.start("probe", PROBE_STEPS, PROBE_STEPS)
        process.wait_for(process.is_training)
        begin = time.monotonic()
        self.expect_success(process)
        return max(PROBE_STEPS, round(PROBE_STEPS * 60 * minutes / (time.monotonic() - begin)))

    def train_alone(self, n_steps: int, n_checkpoints: int) -> Callable[[], None]:
        """Starts the training that nobody disturbs; what is returned waits for its end."""
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
        """The same training, struck until it is through; without `kill_every` in shares of the undisturbed time."""
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
        """All ways to strike, in an order of their own, again and again."""
        while True:
            yield from (HOWS[index] for index in self.generator.permutation(len(HOWS)))

    def strike(self, process: trainee.Process, how: str, delay_s: float) -> bool:
        """Strikes; False where the training was through before."""
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
        if how == "kill and damage" and is_sent:  # not where the training was through before
            process.end()
            self.damage_newest()
        return is_sent

    def saving_begins(self) -> Callable[[], bool]:
        """Tells when a checkpoint is being written that was not yet."""
        before = set(self.folder("broken").rglob(".writing-checkpoint*"))
        return lambda: bool(set(self.folder("broken").rglob(".writing-checkpoint*")) - before)

    def damage_newest(self) -> None:
        """Cuts the newest checkpoint short, where the one before it is whole."""
        for path in self.folder("broken").rglob("checkpoint.pt"):
            with suppress(CheckpointError):
                checkpoint.load(checkpoint.previous_of(path))
                os.truncate(path, int(self.generator.integers(path.stat().st_size)))

    def newest_step(self) -> int:
        """The step that the next start goes on from."""
        folders = {path.parent for path in self.folder("broken").rglob("checkpoint.pt*")}
        found = [checkpoint.load_newest(folder / "checkpoint.pt") for folder in folders]
        return found[0]["step"] if found and found[0] else 0

    def conclude(self) -> bool:
        """Writes the report; returns whether both trainings came to the same."""
        write_json(self.out / "report.json", asdict(self.report))
        struck = Counter(blow.how for blow in self.report.blows)
        logger.info(
            "%s: %d steps, alone in %.0f s, with %d blows (%s) in %.0f s: %s",
            *(self.report.method, self.report.n_steps, self.report.alone_s, len(self.report.blows)),
            ", ".join(f"{count} x {how}" for how, count in struck.items()),
            *(self.report.broken_s, "identical to the last bit" if not self.report.differences else "DIFFERENT:"),
        )
        for difference in self.report.differences:
            logger.info("  %s", difference)
        return not self.report.differences

    def folder(self, name: str) -> Path:
        """Of the logs and checkpoints of a training."""
        return self.out / name

    def start(self, name: str, n_steps: int, checkpoint_every: int) -> trainee.Process:
        """Starts a training, or goes on with it."""
        log = self.out / f"{name}-{len(self.report.blows)}.log"
        method, logs = self.report.method, self.folder(name)
        return trainee.start(method, n_steps, checkpoint_every, self.data, logs, log, self.is_forked)

    def expect_success(self, process: trainee.Process) -> None:
        """Waits for a training's end, which nobody has caused."""
        while process.exit_code() is None:
            time.sleep(0.05)
        if process.exit_code():
            raise RuntimeError(f"{process.log}: the training failed by itself:\n{process.log.read_text()[-3000:]}")


def main() -> int:
    """Reads the command line, and soaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="an empty or absent folder")
    parser.add_argument("--method", default="alpnet", help="alpnet, or a method of images such as spguided")
    parser.add_argument("--minutes", type=float, default=60, help="that the training takes alone (default 60)")
    parser.add_argument("--steps", type=int, help="of the training, instead of --minutes")
    parser.add_argument("--kill-every", type=float, nargs=2, metavar=("LOW", "HIGH"), help="seconds between blows")
    parser.add_argument("--blows", type=int, help="after which the training is left alone (default: never)")
    parser.add_argument("--side-by-side", action="store_true", help="run both trainings at once; needs --kill-every")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and ways to strike")
    parser.add_argument("--forked", action="store_true", help="start faster: import once, then fork")
    parser.add_argument("--memory", type=int, nargs=2, metavar=("FEW", "MANY"), help="measure memory on so many scans")
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
    soak.report.differences = differences_of_trainings(soak.folder("alone"), soak.folder("broken"))
    return 0 if soak.conclude() else 1


if __name__ == "__main__":
    sys.exit(main())
