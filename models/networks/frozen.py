"""Networks whose weights count as constants: for adversarial terms, in one backward pass with the discriminator's."""

from typing import Any

from torch import nn
from torch.func import functional_call


def call_frozen(network: nn.Module, *inputs: Any) -> Any:
    """Output of the network; gradients reach the inputs but not the weights.

    The generator's adversarial term uses `call_frozen(discriminator, maps)`, the discriminator's own loss
    `discriminator(maps.detach())`; one backward pass of their sum then gives each network the gradient of its own term.

    Note: buffers are those of the network. In training mode its batch norm, if any, sees both calls.
    """
    weights = {name: weight.detach() for name, weight in network.named_parameters()}
    return functional_call(network, weights, inputs)
