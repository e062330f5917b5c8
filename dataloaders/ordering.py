"""Which samples a training step sees: a function of the seed and the sample's number, not of processes or restarts."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from dataloaders.samples import JointBatch
from util.runtime.distributed import Plan, ignore_signals, signals_held
from util.runtime.seeding import generator_for


@dataclass(frozen=True)
class LoaderOptions:
    """How batches are made; their content depends on it only through this process's share."""

    num_workers: int = 0  # processes that prepare batches; none if the data are kept on a device
    plan: Plan = field(default_factory=Plan)
    pin_memory: bool = False
    device: torch.device | None = None  # where the data are kept and batches made; None: memory-mapped, on the host
    compiles: bool = False  # whether to compile what runs on the device; here: the augmentation of episodes


class StepLoader(DataLoader):
    """A loader whose processes leave the signals that stop a run to the main process, from their first moment on."""

    def __iter__(self) -> Any:
        with signals_held():
            return super().__iter__()


def step_loader(dataset: Dataset, steps: range, options: LoaderOptions) -> StepLoader:
    """A loader of a data set whose item k is the batch of step k: it yields the items of `steps`."""
    return StepLoader(
        dataset,
        batch_size=None,
        sampler=steps,
        num_workers=0 if options.device else options.num_workers,
        pin_memory=options.pin_memory and options.device is None,
        worker_init_fn=ignore_signals,
        generator=torch.Generator(),  # so that iterating does not advance the global one
    )


def rounds(first: int, n_steps: int, round_steps: int) -> Iterator[range]:
    """The steps from `first` to `n_steps`, round by round ("epochs"); `round_steps` = 0: all in one round."""
    while first < n_steps:
        last = min(n_steps, first - first % round_steps + round_steps) if round_steps else n_steps
        yield range(first, last)
        first = last


def numbers_of_step(step: int, batch_size: int, rank: int, world_size: int) -> range:
    """Sample numbers of a process at a step.

    They count steps, then processes, then the batch: n processes with batches of b together see the samples of one
    process with a batch of n * b, and a run resumed at step k continues with the samples of step k.
    """
    first = (step * world_size + rank) * batch_size
    return range(first, first + batch_size)


def item_at(items: np.ndarray, number: int, seed: int, pass_length: int, stream: str = "order") -> int:
    """The item of a sample: `items` are shuffled anew in each pass of `pass_length` samples."""
    which, position = divmod(number, pass_length)
    return int(items[_order(seed, stream, which, pass_length)[position] % len(items)])


@lru_cache(maxsize=32)  # two passes of each part of a batch
def _order(seed: int, stream: str, which: int, pass_length: int) -> np.ndarray:
    return generator_for(seed, stream, which).permutation(pass_length)


@dataclass(frozen=True)
class Part:
    """The samples of one part of every step's batch, such as the labelled images or those of one data set.

    Each part has its own size, pass length and random streams, whatever the other parts are.

    Attributes:
        items: (N,) what it draws from, such as positions in a `LabelStore`.
        batch_size: samples per step and process.
        seed: of the whole run.
        plan: this process among all.
        name: distinguishes its random streams, see `generator_for`; "" for the only part of a batch.
        pass_length: samples in one pass over the items; None: every item once.
    """

    items: np.ndarray
    batch_size: int
    seed: int
    plan: Plan = field(default_factory=Plan)
    name: str = ""
    pass_length: int | None = None

    def numbers(self, step: int) -> range:
        """Sample numbers of this process at a step."""
        return numbers_of_step(step, self.batch_size, self.plan.rank, self.plan.world_size)

    def item(self, number: int) -> int:
        """The item of a sample."""
        return item_at(self.items, number, self.seed, self.pass_length or len(self.items), self._stream("order"))

    def generator(self, use: str, number: int) -> np.random.Generator:
        """The random numbers of a sample for one use, such as "augmentation"."""
        return generator_for(self.seed, self._stream(use), number)

    def _stream(self, use: str) -> str:
        return f"{use}/{self.name}" if self.name else use


class JointDataset(Dataset[JointBatch]):
    """Item k is the batch of step k, made of the items k of several data sets."""

    def __init__(self, datasets: Mapping[str, Any]) -> None:
        """Takes name -> data set whose item k is that part of the batch of step k."""
        self.datasets = dict(datasets)

    def __getitem__(self, step: int) -> JointBatch:
        return JointBatch({name: dataset[step] for name, dataset in self.datasets.items()})
