"""A training run as a process."""

import importlib.util
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dataloaders.catalog import dataset

CHAOST2 = dataset("CHAOST2")

ROOT = Path(__file__).resolve().parents[2]
COMMON = {"device": "cpu", "num_workers": 2, "print_interval": 20, "save_snapshot_every": 0, "batch_size": 2}
FEWSHOT = {"modelname": "resnet18", "encoder_weights": "none", "proto_grid_size": 4, "label_sets": "all"}
DENSE = {
    **{"size_px": 32, "noise.alpha": 0.7, "noise.beta": 0.7, "superpixel.n_segments": 24, "optim.lr": 0.01},
    **{"unet.base_features": 4, "unet.max_features": 8, "unet.halvings": [2, 2]},
}
SETTINGS = {"alpnet": FEWSHOT, "spguided": DENSE | {"refine.patience": 1}}  # all others: dense methods
WAIT_S = 600  # after which a run that should stop or start counts as hanging
METHODS_OF_SCANS = ("alpnet", "ssl_panet", "panet")


@dataclass
class Process:
    """A running process."""

    pid: int
    exit_code: Callable[[], int | None]  # None: still running
    log: Path
    started: float = field(default_factory=time.monotonic)

    def wait_for(self, is_there: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
        """Waits for a condition; False if the process ends before, or after the timeout."""
        end = time.monotonic() + timeout_s
        while self.exit_code() is None and time.monotonic() < end:
            if is_there():
                return True
            time.sleep(0.002)
        return False

    def is_training(self) -> bool:
        """Whether data and checkpoint have been read."""
        return "training on" in self.log.read_text(errors="replace")

    def end(self) -> int:
        """Waits for its end."""
        self.wait_for(lambda: False)
        code = self.exit_code()
        if code is None:
            os.kill(self.pid, signal.SIGKILL)
            raise TimeoutError(f"{self.log}: the run hangs")
        return code

    def send(self, number: signal.Signals) -> bool:
        """Sends a signal; False if the run had finished before.

        SIGKILL reaches the main process alone; others reach its loader processes too, as from Slurm.
        """
        if self.exit_code() is not None:
            return False
        if number == signal.SIGKILL or os.getpgid(self.pid) != self.pid:
            os.kill(self.pid, number)
        else:
            os.killpg(self.pid, number)
        return True


def start(method: str, n_steps: int, checkpoint_every: int, data: Path, logs: Path, log: Path, forked: bool) -> Process:
    """Starts or resumes a run; `forked`: without importing everything again."""
    given = COMMON | SETTINGS.get(method, DENSE) | {"n_steps": n_steps, "checkpoint_every": checkpoint_every}
    given |= {"eval_every": max(1, n_steps // 5), "path.data_dir": data, "path.log_dir": logs}
    given |= {} if method in METHODS_OF_SCANS else {"round_steps": max(2, n_steps // 10)}
    words = ["train", "with", "chaost2" if method in METHODS_OF_SCANS else "isic2017", method]
    words += [f"{key}={value}" for key, value in given.items()]
    log.write_text("")
    if forked:
        child = multiprocessing.get_context("fork").Process(target=_run, args=(words, log))
        child.start()
        return Process(child.pid or 0, lambda: child.exitcode, log)
    with log.open("w") as stream:
        popen = subprocess.Popen(
            [sys.executable, "training.py", *words], cwd=ROOT, stdout=stream, stderr=stream, start_new_session=True
        )
    return Process(popen.pid, popen.poll, log)


def _run(words: list[str], log: Path) -> None:
    """Runs in the forked process: `python training.py` with inherited imports."""
    os.setsid()
    with log.open("w") as stream:
        os.dup2(stream.fileno(), sys.stdout.fileno())
        os.dup2(stream.fileno(), sys.stderr.fileno())
    from training import ex

    os.chdir(ROOT)
    ex.run_commandline(["training.py", *words])


def make_data(method: str, folder: Path) -> Path:
    """Writes eight small scans or sixteen small images, as in the tests."""
    if not folder.exists():
        if method in METHODS_OF_SCANS:
            fixtures().write_prepared(folder, CHAOST2.cases[:8])
        else:
            fixtures().write_images(folder)
    return folder


def fixtures() -> Any:
    """The module of the tests that generates their data."""
    path = ROOT / "tests" / "conftest.py"
    spec = importlib.util.spec_from_file_location("conftest", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
