"""A method in training, one step at a time as in training.py, and its networks alone."""

from argparse import Namespace
from typing import Any

from torch import Tensor, nn

from dataloaders.scans.normalise import Normalisation
from models.training.average import AverageConfig
from models.training.optim import OptimConfig
from models.training.state import build_state
from util.runtime.compiling import Compiled, can_compile


class Trainee:
    """A method with optimisers and averaged weights; its learning rate is 0, so that all steps take the same time."""

    def __init__(self, settings: dict[str, Any], networks: type[nn.Module], options: Namespace) -> None:
        """Takes the method's settings, the class of its networks, and the command-line options."""
        self.options = options
        self.state = build_state(
            *(settings, 0, OptimConfig(lr=0.0), AverageConfig(), Normalisation(), options.device),
            channels_last=options.channels_last,
        )
        method = self.state.method.train()
        bare = [module for module in method.modules() if isinstance(module, networks)]
        compiles = can_compile(options.device, options.compile)
        self.networks = [Compiled(network, options.device) if compiles else network for network in bare]
        self.net = Compiled(method, options.device) if compiles else method

    def step(self, batch: Any) -> None:
        """Forward, backward, optimisers, averaged weights."""
        self.state.train_step(self.net, batch.to(self.options.device), self.options.autocast)

    def bare(self, images: Tensor) -> None:
        """Each network forward and backward on these images, with the simplest possible loss."""
        self.state.optimisers.zero_grad()
        for network in self.networks:
            with self.options.autocast:
                output = network(images)
            output.float().square().mean().backward()
