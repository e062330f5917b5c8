"""Networks for inference alone: batch norms become part of the convolutions before them."""

import copy
from itertools import chain, pairwise
from typing import Any

import torch
from jaxtyping import Float
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

TOLERANCE = 1e-3  # of the outputs of both forms, as a share of the largest value; rounding alone gives about 1e-6


class FoldedForm:
    """The folded form of a network, which is made at the first use, and anew after its weights have changed."""

    def __init__(self) -> None:
        self._made: tuple[tuple[nn.Module, list[tuple[torch.device, int]]], nn.Module] | None = None

    def of(self, network: nn.Module, example: Float[Tensor, "B C H W"]) -> nn.Module:
        """The folded form.

        Args:
            network: in evaluation mode; the same at every call.
            example: an input, on the network's device, on which both forms are compared.
        """
        tensors = chain(network.parameters(), network.buffers())
        state = (network, [(each.device, each._version) for each in tensors])
        if self._made is None or self._made[0] != state:
            self._made = (state, folded(network, example))
        return self._made[1]


@torch.no_grad()
def folded(network: nn.Module, example: Float[Tensor, "B C H W"]) -> nn.Module:
    """A copy whose batch norms are folded into the convolutions before them, which saves passes over the features.

    A norm follows a convolution if it comes next among the children of a module. Where a network calls them in another
    order, its output on the example differs.

    Args:
        network: in evaluation mode.
        example: an input.

    Returns:
        The copy; the network itself if the copy's output differs.
    """
    copied = copy.deepcopy(network)
    for parent in list(copied.modules()):
        for (name, convolution), (norm_name, norm) in pairwise(list(parent.named_children())):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and not norm.training:
                parent.set_submodule(name, fuse_conv_bn_eval(convolution, norm))
                rest: Any = (norm.drop, norm.act) if isinstance(norm, BatchNormAct2d) else ()
                parent.set_submodule(norm_name, nn.Sequential(*rest))
    expected, found = network(example), copied(example)
    largest = expected.abs().max()
    return copied if bool((found - expected).abs().max() <= TOLERANCE * largest) else network
