"""Some of many, spread evenly."""

import torch
from jaxtyping import Int
from torch import Tensor


def spread(length: int, number: int) -> Int[Tensor, " N"]:
    """At most `number` of the indices 0 to `length` - 1, the first and the last among them; on the host."""
    return torch.linspace(0, max(0, length - 1), min(number, length)).round().long()
