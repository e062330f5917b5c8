import os
import signal
import subprocess
import sys

import pytest
import torch

from util.errors import ConfigError, DataError
from util.runtime import distributed

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}
STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "5"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1, 0, "python")),
        (TORCHRUN, (3, 4, 1, "torchrun")),
        (STEP, (5, 8, 5, "srun")),
        (STEP | TORCHRUN, (3, 4, 1, "torchrun")),
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, (0, 1, 0, "python")),
    ],
)
def test_the_launcher_is_recognised(environment, expected):
    place = distributed.plan(environment)
    assert (place.rank, place.world_size, place.local_rank, place.launcher) == expected
    assert place.is_first == (expected[0] == 0)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node1", "node1"),
        ("a[003-005,9],b7", "a003"),
        ("b7,a[1-2]", "b7"),
        ("frontier[00012]", "frontier00012"),
        ("10.0.0.[4-6]", "10.0.0.4"),
    ],
)
def test_the_first_host_of_a_node_list(nodes, first):
    assert distributed.first_host(nodes) == first


def test_many_processes_without_an_address_are_told_how_to_start():
    group = distributed.ProcessGroup(distributed.Plan(0, 2), torch.device("cpu"), {})
    with pytest.raises(ConfigError, match="torchrun or srun"):
        group.__enter__()


def test_one_process_needs_no_group():
    with distributed.ProcessGroup(distributed.Plan(), torch.device("cpu")):
        assert distributed.mean_over_ranks(torch.tensor(2.0)) == 2
        distributed.barrier()


def test_what_the_first_process_cannot_do_is_its_own_error():
    done, cpu = [], torch.device("cpu")
    distributed.run_on_first_rank(lambda: done.append(1), distributed.Plan(), cpu)
    assert done == [1]

    def fail():
        raise DataError("image_1.nii.gz: cut short")

    with pytest.raises(DataError, match="cut short"):
        distributed.run_on_first_rank(fail, distributed.Plan(), cpu)


def test_blocks_for_signals_can_be_nested_and_last_until_the_process_ends():
    former = {number: signal.getsignal(number) for number in distributed.STOPPING}
    try:
        with distributed.StopSignal(until_exit=True) as outer:
            os.kill(os.getpid(), signal.SIGTERM)  # as while Sacred prepares the run
            with distributed.StopSignal() as inner:
                assert inner.received == signal.SIGTERM
            os.kill(os.getpid(), signal.SIGTERM)
            assert outer.received == signal.SIGTERM
        os.kill(os.getpid(), signal.SIGTERM)  # as while the process ends
        with distributed.StopSignal() as later:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert later.received
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def test_only_a_second_ctrl_c_interrupts_at_once(capfd):
    with distributed.StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received == signal.SIGINT
        assert "Ctrl-C again stops at once" in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_processes_can_be_started_with_the_signals_held_back():
    code = "import signal; print(*map(int, signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with distributed.signals_held():
        held = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert {int(number) for number in held.split()} >= {int(number) for number in distributed.STOPPING}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_signal_only_sets_a_flag_and_may_come_twice():
    former = signal.getsignal(signal.SIGUSR1)
    with distributed.StopSignal() as stop:
        assert stop.received is None
        assert not stop.should_stop(8, distributed.Plan(), torch.device("cpu"))
        for number in (signal.SIGUSR1, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.received == signal.SIGUSR1
        cpu, many = torch.device("cpu"), distributed.Plan(0, 2)
        assert stop.should_stop(3, distributed.Plan(), cpu)
        assert [step for step in range(1, 20) if stop.should_stop(step, many, cpu)] == [8, 16]
    assert signal.getsignal(signal.SIGUSR1) == former
