"""The mean of several networks as one network."""

import math
from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn


class MeanOfNetworks(nn.Module):
    """Logits whose softmax is the mean of the softmax of several networks: the logarithm of that mean."""

    def __init__(self, networks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)

    def forward(self, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """The logits of images."""
        found = torch.stack([network(image).float().log_softmax(1) for network in self.networks])
        return found.logsumexp(0) - math.log(len(self.networks))


def as_one(networks: Iterable[nn.Module]) -> nn.Module:
    """A network itself, or the mean of several."""
    first, *others = networks
    return MeanOfNetworks([first, *others]) if others else first
