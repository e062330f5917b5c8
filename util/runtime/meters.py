"""Means of logged values."""

import math
from typing import Any

from torch import Tensor

from util.errors import UserError
from util.runtime.distributed import mean_over_ranks


class RunningMeans:
    """Means of values since they were last read, summed on the device so that no step waits for it."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}  # steps that had this value

    def add(self, values: dict[str, Tensor]) -> None:
        """Adds one step's scalars; a mean is over the steps in which its value was given."""
        for name, value in values.items():
            before = self.sums.get(name)
            self.sums[name] = value.detach().clone() if before is None else before + value.detach()
            self.counts[name] = self.counts.get(name, 0) + 1

    def reduce(self, step: int) -> None:
        """Averages the sums over all processes, so that the first one's checkpoint can contain them.

        Raises:
            UserError: one of them is not finite.
        """
        self.sums = {name: mean_over_ranks(total) for name, total in self.sums.items()}
        if not all(math.isfinite(total) for total in self.sums.values()):
            means, n_steps = self._means(), max(self.counts.values())
            raise UserError(
                f"a loss is not finite between steps {step - n_steps + 1} and {step}: {means}. The last checkpoint "
                "is older and intact. Look for extreme intensities with `frugalseg check`, or lower optim.lr."
            )

    def read(self, step: int) -> dict[str, float]:
        """The means over steps and processes; starts again from zero.

        Raises:
            UserError: one of them is not finite.
        """
        self.reduce(step)
        means = self._means()
        self.sums, self.counts = {}, {}
        return means

    def _means(self) -> dict[str, float]:
        return {name: float(total / self.counts[name]) for name, total in self.sums.items()}

    def state_dict(self) -> dict[str, Any]:
        """Sums and counts since the last reading."""
        return {"sums": self.sums, "counts": self.counts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores what `state_dict` returned."""
        self.sums, self.counts = state["sums"], state["counts"]
