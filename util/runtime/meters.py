"""Means of what a training logs."""

import math
from typing import Any

from torch import Tensor

from util.errors import UserError
from util.runtime.distributed import mean_over_ranks


class RunningMeans:
    """Means of logged values since the last reading, summed on the device so that no step waits for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.count = 0

    def add(self, values: dict[str, Tensor]) -> None:
        """Adds one step's scalars."""
        for name, value in values.items():
            before = self.sums.get(name)
            self.sums[name] = value.detach().clone() if before is None else before + value.detach()
        self.count += 1

    def settle(self, step: int) -> None:
        """Makes the sums those of all processes, so that the first one's checkpoint can hold them.

        Raises:
            UserError: one of them is not finite.
        """
        self.sums = {name: mean_over_ranks(total) for name, total in self.sums.items()}
        if not all(math.isfinite(total) for total in self.sums.values()):
            means = {name: float(total) / self.count for name, total in self.sums.items()}
            raise UserError(
                f"a loss is not finite between steps {step - self.count + 1} and {step}: {means}. The last checkpoint "
                "is from before. Look for extreme intensities with `python -m data.check`, or lower optim.lr."
            )

    def read(self, step: int) -> dict[str, float]:
        """The means over steps and processes; starts anew.

        Raises:
            UserError: one of them is not finite.
        """
        self.settle(step)
        means = {name: float(total / self.count) for name, total in self.sums.items()}
        self.sums, self.count = {}, 0
        return means

    def state(self) -> dict[str, Any]:
        """What has been added since the last reading."""
        return {"sums": self.sums, "count": self.count}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a state."""
        self.sums, self.count = state["sums"], state["count"]
