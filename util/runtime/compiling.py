"""Compiled networks and functions, which go on uncompiled where the compiler fails."""

import logging
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from util.runtime.device import compile_support, supports_cuda_graphs

logger = logging.getLogger(__name__)

# Settings of torch's `torch._functorch.config` under which a function is compiled.
COMPILING = {
    "force_non_lazy_backward_lowering": True,  # the backward pass with the forward pass, where a failure can be mended
    "backward_pass_autocast": "off",  # as uncompiled: what is float32 in the forward pass has float32 gradients
}


def can_compile(device: torch.device, choice: Literal["off", "auto", "on"]) -> bool:
    """Whether to compile: where asked for ("auto": on a GPU) and possible; a warning gives the reason where not."""
    if choice == "off" or (choice == "auto" and device.type != "cuda"):
        return False
    is_possible, reason = compile_support(device)
    if not is_possible:
        logger.warning("compile=%s: goes on uncompiled: %s", choice, reason)
    return is_possible


class CompiledFunction:
    """A function of tensors that runs compiled, and goes on without where the compiler fails.

    Forward and backward pass are both compiled at the first call, before anything has been computed: a failure in
    either costs nothing but the time. Shapes are meant to stay.
    """

    def __init__(self, function: Callable[..., Any], mode: str = "default") -> None:
        self.function = function
        self.run = torch.compile(function, dynamic=False, mode=mode)

    @property
    def has_failed(self) -> bool:
        """Whether the compiler has, so that the function now runs as it is."""
        return self.run is self.function

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """As the function itself."""
        from torch._dynamo.exc import TorchDynamoException  # here: importing it takes seconds
        from torch._functorch import config

        try:
            with config.patch(COMPILING):
                return self.run(*arguments, **named)
        except TorchDynamoException as error:
            logger.warning("goes on uncompiled: %s", " ".join(str(error).splitlines()[:2]).strip())
            self.run = self.function
            return self.function(*arguments, **named)


class Compiled(nn.Module):
    """A network that runs as a `CompiledFunction`, recorded as CUDA graphs where the device can replay them."""

    def __init__(self, net: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.net = net
        self.run = CompiledFunction(net, "reduce-overhead" if supports_cuda_graphs(device) else "default")

    @property
    def has_failed(self) -> bool:
        """Whether the compiler did, so that the network now runs as it is."""
        return self.run.has_failed

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """As the network itself."""
        torch.compiler.cudagraph_mark_step_begin()  # what the last step returned has been read
        return self.run(*arguments, **named)
