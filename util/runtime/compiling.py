"""Compiled networks and functions, with a fallback to the uncompiled ones if the compiler fails."""

import logging
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn

from util.runtime.device import compile_support, supports_cuda_graphs

logger = logging.getLogger(__name__)

# Settings of torch's `torch._functorch.config` under which a function is compiled.
COMPILING = {
    "force_non_lazy_backward_lowering": True,  # compile backward with forward, where a failure can be caught
    "backward_pass_autocast": "off",  # as uncompiled: float32 in the forward pass gives float32 gradients
}


def can_compile(device: torch.device, choice: Literal["off", "auto", "on"]) -> bool:
    """Whether to compile: if requested ("auto": on a GPU) and possible; else a warning gives the reason."""
    if choice == "off" or (choice == "auto" and device.type != "cuda"):
        return False
    is_possible, reason = compile_support(device)
    if not is_possible:
        logger.warning("compile=%s: running uncompiled: %s", choice, reason)
    return is_possible


class CompiledFunction:
    """A compiled function of tensors, which falls back to the function itself if the compiler fails.

    Forward and backward pass are both compiled at the first call, before anything is computed, so that a failure in
    either costs only time. Shapes are expected to be constant.
    """

    def __init__(self, function: Callable[..., Any], mode: str = "default") -> None:
        self.function = function
        self.run = torch.compile(function, dynamic=False, mode=mode)

    @property
    def has_failed(self) -> bool:
        """Whether the compiler failed, so that the function now runs uncompiled."""
        return self.run is self.function

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Calls the function."""
        from torch._dynamo.exc import TorchDynamoException  # here: importing it takes seconds
        from torch._functorch import config

        try:
            with config.patch(COMPILING):
                return self.run(*arguments, **named)
        except TorchDynamoException as error:
            logger.warning("running uncompiled: %s", " ".join(str(error).splitlines()[:2]).strip())
            self.run = self.function
            return self.function(*arguments, **named)


class Compiled(nn.Module):
    """A network that runs as a `CompiledFunction`, recorded as CUDA graphs if the device can replay them."""

    def __init__(self, net: nn.Module, device: torch.device) -> None:
        super().__init__()
        self.net = net
        self.run = CompiledFunction(net, "reduce-overhead" if supports_cuda_graphs(device) else "default")

    @property
    def has_failed(self) -> bool:
        """Whether the compiler failed, so that the network now runs uncompiled."""
        return self.run.has_failed

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """Calls the network."""
        torch.compiler.cudagraph_mark_step_begin()  # the results of the last step have been read
        return self.run(*arguments, **named)
