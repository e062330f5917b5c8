"""The averaged teacher that several methods share."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from models.training.average import tensors_by_kind


class Teacher(nn.Module):
    """The moving average of a network: of its weights and of its batch-norm statistics.

    It is always in evaluation mode: it teaches as it predicts, its statistics are those that the student has gathered,
    and they exist even if it has never taught.

    Source: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017.
    """

    def __init__(self, network: nn.Module, student: nn.Module) -> None:
        """Takes a network of the student's kind, which becomes its copy."""
        super().__init__()
        self.network = network.requires_grad_(False).eval()
        self.network.load_state_dict(student.state_dict())

    def train(self, mode: bool = True) -> "Teacher":
        """Stays in evaluation mode."""
        return super().train(False)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Any:
        """What the network returns."""
        return self.network(image)

    @torch.no_grad()
    def follow(self, student: nn.Module, decay: float, step: int) -> None:
        """Moves towards the student; by at least 9 / (10 + step), so that the initial weights are soon forgotten."""
        (floats, integers), (current, current_integers) = map(tensors_by_kind, (self.network, student))
        decay = min(decay, (1 + step) / (10 + step))
        get_ema_multi_avg_fn(decay)(floats, current, step)  # type: ignore[arg-type]
        if integers:
            torch._foreach_copy_(integers, current_integers)  # type: ignore[attr-defined]
