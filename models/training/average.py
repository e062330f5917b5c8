"""The moving average of what a training has learnt."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from util.errors import ConfigError


@dataclass(frozen=True)
class AverageConfig:
    """The averaged weights that are saved beside the last ones."""

    decay: float = 0.999  # per step; less in the beginning
    every: int = 10  # steps from one move of the average to the next

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1:
            raise ConfigError(f"ema.decay={self.decay}: expected a value in [0, 1).")
        if self.every < 1:
            raise ConfigError(f"ema.every={self.every}: expected 1 or more.")


class MovingAverage:
    """Exponential average of a method's weights and buffers, its window growing up to 1 / (1 - decay) steps.

    It copies the weights of the first step and moves with each `every`-th one, then by as much as in `every` steps: a
    pass over all weights costs a visible share of a step, and weights that lie a few steps apart hardly differ.
    After n steps the decay of one is at most (1 + n) / (10 + n), so that the fresh weights are soon forgotten. The
    count is a number of the host: nothing here waits for the device.
    """

    def __init__(self, method: nn.Module, config: AverageConfig) -> None:
        self.module = copy.deepcopy(method).requires_grad_(False)
        self.config, self.count = config, 0
        self._followed: nn.Module | None = None
        self._averaged: list[list[Tensor]] = []  # real numbers, and whole ones
        self._current: list[list[Tensor]] = []

    @torch.no_grad()
    def update(self, method: nn.Module) -> None:
        """Counts a step and, where it is the average's turn, moves it towards the method as it is now.

        The method's tensors are looked up at its first update: from then on they are to change in place.
        """
        if self._followed is not method:
            self._followed, self._averaged, self._current = method, _tensors(self.module), _tensors(method)
        before, self.count = self.count, self.count + 1
        if before and self.count % self.config.every:
            return
        decay = min(self.config.decay, (1 + before) / (10 + before)) ** self.config.every if before else 0.0
        (reals, wholes), (current_reals, current_wholes) = self._averaged, self._current
        torch._foreach_lerp_(reals, current_reals, 1 - decay)  # type: ignore[attr-defined]
        if wholes:
            torch._foreach_copy_(wholes, current_wholes)  # type: ignore[attr-defined]


def _tensors(method: nn.Module) -> list[list[Tensor]]:
    """Its parameters and buffers: those of real numbers, and those of whole ones."""
    tensors = [*method.parameters(), *method.buffers()]
    return [[each for each in tensors if each.is_floating_point() == is_real] for is_real in (True, False)]
