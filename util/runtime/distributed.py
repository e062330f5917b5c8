"""One process or many, on CPU, CUDA or ROCm: rank, process group, reductions and stop signals.

Plain `torch.distributed`, started by `python`, `torchrun` or `srun`. With one process every function here is a no-op.
"""

import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType, TracebackType
from typing import Any

import torch
import torch.distributed as dist

from util.errors import ConfigError, UserError
from util.runtime.device import choose_device, group_backend

POLL_EVERY = 8  # steps between two exchanges of stop signals between processes: each waits for the device
GROUP_TIMEOUT = timedelta(minutes=30)  # a broken group fails instead of waiting forever


@dataclass(frozen=True)
class Plan:
    """Rank of this process among all."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    launcher: str = "python"  # python, torchrun or srun

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and logs."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """The device of this process (auto, cpu or cuda). Under torchrun every process sees all GPUs of its node.

        Raises:
            ConfigError: unknown device, no GPU although one was requested, or more processes than GPUs.
        """
        return choose_device(name, self.local_rank, sees_one_gpu=self.launcher != "torchrun")


def plan(environment: Mapping[str, str] = os.environ) -> Plan:
    """Reads the launcher's environment variables: torchrun's, else those of a Slurm step, else one process.

    A batch script without `srun` is one process, whatever the size of its allocation.
    """
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK"} <= set(environment):
        return Plan(*(int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")), launcher="torchrun")
    if "SLURM_STEP_ID" in environment and "SLURM_PROCID" in environment and "SLURM_STEP_NUM_TASKS" in environment:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        return Plan(*(int(environment.get(name, 0)) for name in names), launcher="srun")
    return Plan()


def first_host(node_list: str) -> str:
    """The first host of a Slurm node list such as "a[003-005,9],b7"."""
    match = re.match(r"([^\[,]+)(?:\[([^\]]+)\])?([^,]*)", node_list)
    if match is None:
        raise ConfigError(
            f"SLURM_STEP_NODELIST={node_list!r}: no host name; set MASTER_ADDR to the first node's address."
        )
    prefix, ranges, suffix = match.groups()
    return prefix + (re.split(r"[-,]", ranges)[0] if ranges else "") + suffix


class ProcessGroup:
    """The group of all processes within a `with` block; nothing for a single process."""

    def __init__(self, plan: Plan, device: torch.device, environment: Mapping[str, str] = os.environ) -> None:
        self.plan, self.device, self.environment = plan, device, environment

    def __enter__(self) -> "ProcessGroup":
        if self.plan.world_size > 1:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            host, port = self._rendezvous()
            dist.init_process_group(
                group_backend(self.device),
                init_method=f"tcp://{host}:{port}",
                rank=self.plan.rank,
                world_size=self.plan.world_size,
                timeout=GROUP_TIMEOUT,
            )
        return self

    def _rendezvous(self) -> tuple[str, int]:
        nodes = self.environment.get("SLURM_STEP_NODELIST")
        host = self.environment.get("MASTER_ADDR") or (first_host(nodes) if nodes else None)
        job = int(self.environment.get("SLURM_JOB_ID", 0))
        port = self.environment.get("MASTER_PORT") or (str(20000 + job % 20000) if job else None)
        if host is None or port is None:
            raise ConfigError(
                f"{self.plan.world_size} processes, but MASTER_ADDR and MASTER_PORT are not set: they cannot find "
                "each other. Start with torchrun or srun, or set both to the first process's address and a free port."
            )
        return host, int(port)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if dist.is_initialized():
            dist.destroy_process_group()


def mean_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """Average of a tensor over all processes; itself for one process."""
    if not dist.is_initialized():
        return value
    total = value.clone()
    dist.all_reduce(total)
    return total / dist.get_world_size()


def n_ranks() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def sum_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over all processes, with gradient; itself for one process.

    A loss of this sum is the same on all processes. Its gradient with respect to the value of one process is summed
    over them as well, so that `DistributedDataParallel`, which averages the gradients of weights, gives those that one
    process with all data would have.
    """
    return _SumOverRanks.apply(value) if dist.is_initialized() else value


class _SumOverRanks(torch.autograd.Function):
    @staticmethod
    def forward(value: torch.Tensor) -> torch.Tensor:
        total = value.detach().clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return _SumOverRanks.forward(gradients[0])


def max_over_ranks(value: int, device: torch.device | None = None) -> int:
    """The largest of all processes' values."""
    if not dist.is_initialized():
        return value
    shared = torch.tensor(value, device=device)
    dist.all_reduce(shared, dist.ReduceOp.MAX)
    return int(shared)


def barrier() -> None:
    """Waits for all processes."""
    if dist.is_initialized():
        dist.barrier()


def run_on_first_rank(task: Callable[[], None], plan: Plan, device: torch.device) -> None:
    """Runs a task on the first process, while the others wait; an error ends all of them.

    Raises:
        UserError: the task's own on the first process, a reference to it on the others.
    """
    failure: UserError | None = None
    if plan.is_first:
        try:
            task()
        except UserError as error:
            failure = error
    if max_over_ranks(int(failure is not None), device):
        raise failure or UserError("the first process stopped with an error; see its message.")


class StopSignal:
    """Notes SIGTERM, SIGINT or SIGUSR1, so that the training loop saves and stops.

    Further signals change nothing; only a second SIGINT (Ctrl-C) interrupts at once. Blocks can be nested: an inner one
    knows what an outer one has noted.

    Attributes:
        received: the first signal; None: none yet.
    """

    def __init__(self, until_exit: bool = False) -> None:
        """Prepares a block; `until_exit`: once a signal is noted, the process also ends undisturbed after the block."""
        self.received: int | None = None
        self.until_exit = until_exit

    def __enter__(self) -> "StopSignal":
        self._former = {number: signal.signal(number, self._set) for number in STOPPING}
        outer = getattr(self._former[signal.SIGTERM], "__self__", None)
        if isinstance(outer, StopSignal):
            self.received = outer.received
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            if not (self.until_exit and self.received):
                signal.signal(number, handler)

    def should_stop(self, step: int, plan: Plan, device: torch.device) -> bool:
        """Whether to stop after this step: all processes after the same one, whichever received the signal."""
        if plan.world_size > 1 and step % POLL_EVERY:
            return False
        return bool(max_over_ranks(int(self.received is not None), device))

    def _set(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.received == number:
            raise KeyboardInterrupt
        if number == signal.SIGINT:  # written past the buffers, which the signal may have interrupted
            os.write(2, b"\nstopping after this step; Ctrl-C again stops at once.\n")
        self.received = self.received or number
        outer = getattr(self._former[signal.SIGTERM], "__self__", None)
        if isinstance(outer, StopSignal):
            outer.received = self.received


STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


@contextmanager
def signals_held() -> Iterator[None]:
    """Processes that are started in the block begin with the signals that stop a run held back."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def ignore_signals(_: int = 0) -> None:
    """Leaves the signals that stop a run to its main process: called in each of its loader processes."""
    for number in STOPPING:
        signal.signal(number, signal.SIG_IGN)
