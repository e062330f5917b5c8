"""The moving average of what a training has learnt."""

import copy

import torch
from torch import Tensor, nn


class MovingAverage:
    """Exponential average of a method's weights and buffers, its window growing up to 1 / (1 - decay) steps.

    After n updates the decay is at most (1 + n) / (10 + n), so that the fresh weights are soon forgotten. The count is
    a number of the host: nothing here waits for the device.
    """

    def __init__(self, method: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(method).requires_grad_(False)
        self.decay, self.count = decay, 0
        self._followed: nn.Module | None = None
        self._averaged: list[list[Tensor]] = []  # real numbers, and whole ones
        self._current: list[list[Tensor]] = []

    @torch.no_grad()
    def update(self, method: nn.Module) -> None:
        """Moves the average towards the method as it is now; the first update copies it.

        The method's tensors are looked up at its first update: from then on they are to change in place.
        """
        if self._followed is not method:
            self._followed, self._averaged, self._current = method, _tensors(self.module), _tensors(method)
        decay = min(self.decay, (1 + self.count) / (10 + self.count)) if self.count else 0.0
        (reals, wholes), (current_reals, current_wholes) = self._averaged, self._current
        torch._foreach_lerp_(reals, current_reals, 1 - decay)  # type: ignore[attr-defined]
        if wholes:
            torch._foreach_copy_(wholes, current_wholes)  # type: ignore[attr-defined]
        self.count += 1


def _tensors(method: nn.Module) -> list[list[Tensor]]:
    """Its parameters and buffers: those of real numbers, and those of whole ones."""
    tensors = [*method.parameters(), *method.buffers()]
    return [[each for each in tensors if each.is_floating_point() == is_real] for is_real in (True, False)]
