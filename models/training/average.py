"""Exponential moving average of a method's weights."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from util.schema import check_bounds, option


@dataclass(frozen=True)
class AverageConfig:
    """The averaged weights that are saved next to the last ones."""

    decay: float = option(0.999, ge=0, lt=1)  # per step; smaller in the beginning
    every: int = option(10, ge=1)  # steps between two updates of the average

    def __post_init__(self) -> None:
        check_bounds(self, "ema.")


class MovingAverage:
    """Exponential moving average of weights and buffers, with a window that grows up to 1 / (1 - decay) steps.

    It copies the weights of the first step and is updated at each `every`-th one, then by as much as in `every` steps:
    a pass over all weights costs a visible share of a step, and weights a few steps apart hardly differ. After n steps
    the decay of one step is at most (1 + n) / (10 + n), so that the initial weights are soon forgotten.

    Note: torch's `AveragedModel` copies its counter to the device at each update, for which the host waits, and would
    average integer buffers too; only its update rule is used.
    """

    def __init__(self, module: nn.Module, config: AverageConfig) -> None:
        self.module = copy.deepcopy(module).requires_grad_(False)
        self.config, self.count = config, 0
        self._followed: nn.Module | None = None
        self._averaged: list[list[Tensor]] = []  # floating-point tensors, and integer ones
        self._current: list[list[Tensor]] = []

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Counts a step and, at each `every`-th one, moves the average towards the module's present weights.

        The module's tensors are looked up at its first update; from then on they must change in place.
        """
        if self._followed is not module:
            self._followed, self._averaged, self._current = (
                module,
                tensors_by_kind(self.module),
                tensors_by_kind(module),
            )
        before, self.count = self.count, self.count + 1
        if before and self.count % self.config.every:
            return
        decay = min(self.config.decay, (1 + before) / (10 + before)) ** self.config.every if before else 0.0
        (floats, integers), (current_floats, current_integers) = self._averaged, self._current
        if floats:
            get_ema_multi_avg_fn(decay)(floats, current_floats, before)  # type: ignore[arg-type]
        if integers:
            torch._foreach_copy_(integers, current_integers)  # type: ignore[attr-defined]


def tensors_by_kind(module: nn.Module) -> list[list[Tensor]]:
    """Parameters and buffers: the floating-point ones, and the integer ones."""
    tensors = [*module.parameters(), *module.buffers()]
    return [[each for each in tensors if each.is_floating_point() == is_float] for is_float in (True, False)]
