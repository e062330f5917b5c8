"""Which sample a training step sees: a function of the seed and the sample's number, not of processes or restarts."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from util.runtime.distributed import Plan
from util.runtime.seeding import generator_for


@dataclass(frozen=True)
class LoaderOptions:
    """How batches are made, which changes nothing about them but this process's share."""

    num_workers: int = 0  # processes that prepare batches; none where the data lie on a device
    plan: Plan = field(default_factory=Plan)
    pin_memory: bool = False
    device: torch.device | None = None  # where the data are kept and batches made; None: memory-mapped, on the host
    compiles: bool = False  # whether what runs on the device is compiled; of the data: the augmentation of episodes


def step_loader(dataset: Dataset, steps: range, options: LoaderOptions) -> DataLoader:
    """A loader of a data set whose item k is the batch of step k: it yields the items of `steps`."""
    return DataLoader(
        dataset,
        batch_size=None,
        sampler=steps,
        num_workers=0 if options.device else options.num_workers,
        pin_memory=options.pin_memory and options.device is None,
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

    They run over steps, then processes, then the batch: n processes with batches of b see together what one process
    with a batch of n * b sees, and a run resumed at step k goes on with step k.
    """
    first = (step * world_size + rank) * batch_size
    return range(first, first + batch_size)


def item_at(items: np.ndarray, number: int, seed: int, pass_length: int) -> int:
    """The item of a sample: each pass of `pass_length` samples goes through `items`, shuffled, again and again."""
    which, position = divmod(number, pass_length)
    return int(items[_order(seed, which, pass_length)[position] % len(items)])


@lru_cache(maxsize=2)
def _order(seed: int, which: int, pass_length: int) -> np.ndarray:
    return generator_for(seed, "order", which).permutation(pass_length)
