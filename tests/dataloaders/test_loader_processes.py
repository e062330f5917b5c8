"""Loader processes: signals to their whole group leave them at work, and they end with their main process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Prints the process ids of both loader processes, then the items, one at each line that it reads.
PROGRAM = """
import sys
from dataloaders.ordering import LoaderOptions, step_loader
from util.runtime.distributed import StopSignal

class Numbers:
    def __getitem__(self, step):
        return step

with StopSignal() as stop:
    batches = iter(step_loader(Numbers(), range(100), LoaderOptions(num_workers=2)))
    print(*(process.pid for process in batches._workers), flush=True)
    for _ in sys.stdin:
        print(next(batches), stop.received, flush=True)
"""


@pytest.fixture
def program():
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    ) as process:  # fmt: skip
        yield process
        process.kill()


def ask(process):
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().split()


def is_running(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def test_loader_processes_survive_signals_and_end_with_the_main_process(program):
    workers = [int(pid) for pid in program.stdout.readline().split()]
    os.killpg(program.pid, signal.SIGTERM)  # at once: before they have set up anything
    for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGUSR1):
        os.killpg(program.pid, number)
        time.sleep(0.05)
    for step in range(12):  # more than are loaded in advance
        assert ask(program) in ([str(step), str(int(number))] for number in (signal.SIGTERM, signal.SIGUSR1))
    assert all(map(is_running, workers))
    program.kill()
    program.wait()
    end = time.monotonic() + 30
    while any(map(is_running, workers)):
        assert time.monotonic() < end, "a loader process has outlived its main process"
        time.sleep(0.05)
