"""Means of what a training logs."""

import math

import torch
from torch import Tensor

from util.distributed import mean_over_ranks
from util.errors import UserError


class RunningMeans:
    """Means of logged values since the last reading, summed on the device so that no step waits for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, values: dict[str, Tensor]) -> None:
        """Adds one step's scalars."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value.detach()
        self.count += 1

    def read(self, step: int) -> dict[str, float]:
        """The means over steps and processes; starts anew.

        Raises:
            UserError: one of them is not finite.
        """
        means = {name: float(mean_over_ranks(total / self.count)) for name, total in self.sums.items()}
        if not all(math.isfinite(value) for value in means.values()):
            raise UserError(
                f"a loss is not finite between steps {step - self.count + 1} and {step}: {means}. The last checkpoint "
                "is from before. Look for extreme intensities with `python -m data.check`, or lower optim.lr."
            )
        self.sums, self.count = {}, 0
        return means
