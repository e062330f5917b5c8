"""The moving average of what a training has learnt."""

import copy

import torch
from torch import nn


class MovingAverage:
    """Exponential average of a method's weights and buffers, its window growing up to 1 / (1 - decay) steps.

    After n updates the decay is at most (1 + n) / (10 + n), so that the fresh weights are soon forgotten. The count is
    a number of the host: nothing here waits for the device.
    """

    def __init__(self, method: nn.Module, decay: float) -> None:
        self.module = copy.deepcopy(method).requires_grad_(False)
        self.decay, self.count = decay, 0

    @torch.no_grad()
    def update(self, method: nn.Module) -> None:
        """Moves the average towards the method as it is now; the first update copies it."""
        decay = min(self.decay, (1 + self.count) / (10 + self.count)) if self.count else 0.0
        averaged, current = (_tensors(each) for each in (self.module, method))
        is_real = [tensor.is_floating_point() for tensor in averaged]
        reals = [[t for t, real in zip(each, is_real, strict=True) if real] for each in (averaged, current)]
        torch._foreach_lerp_(reals[0], reals[1], 1 - decay)  # type: ignore[attr-defined]
        others = [[t for t, real in zip(each, is_real, strict=True) if not real] for each in (averaged, current)]
        if others[0]:
            torch._foreach_copy_(others[0], others[1])  # type: ignore[attr-defined]
        self.count += 1


def _tensors(method: nn.Module) -> list[torch.Tensor]:
    return [*(parameter.detach() for parameter in method.parameters()), *method.buffers()]
