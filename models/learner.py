"""What a training changes and a checkpoint holds."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from dataloaders.normalise import Normalisation
from models import build_method
from models.methods.base import Method
from util.seeding import seed_everything


@dataclass(frozen=True)
class OptimConfig:
    """Stochastic gradient descent. Source: SSL-ALPNet, section 4.2."""

    lr: float = 1e-3
    momentum: float = 0.9
    weight_decay: float = 5e-4


@dataclass
class Learner:
    """Everything that changes while training, and so everything that a checkpoint holds."""

    method: Method
    averaged: AveragedModel
    optimisers: dict[str, torch.optim.Optimizer]
    normalisation: Normalisation
    settings: dict[str, Any] = field(default_factory=dict)
    preparation: dict[str, Any] | None = None  # of the training scans, as in their manifest; None: unknown
    step: int = 0  # completed steps

    def state(self) -> dict[str, Any]:
        """The checkpoint's content."""
        return self.snapshot() | {
            "optimisers": {player: optimiser.state_dict() for player, optimiser in self.optimisers.items()},
            "averaged_count": self.averaged.n_averaged,
            "generator": torch.get_rng_state(),
        }

    def snapshot(self) -> dict[str, Any]:
        """What prediction needs."""
        return {
            "format": "frugalseg-1",
            "step": self.step,
            "settings": self.settings,
            "normalisation": self.normalisation.to_dict(),
            "preparation": self.preparation,
            "method": self.method.state_dict(),
            "ema": self.averaged.module.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a checkpoint."""
        self.method.load_state_dict(state["method"])
        self.averaged.module.load_state_dict(state["ema"])
        self.averaged.n_averaged.copy_(state["averaged_count"])
        for player, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][player])
        torch.set_rng_state(state["generator"].cpu())
        self.normalisation = Normalisation.from_dict(state["normalisation"])
        self.step = state["step"]


def moving_average(decay: float) -> Callable[[Any, Any, Any], None]:
    """An update for `AveragedModel`: exponential, its window growing with the training up to 1 / (1 - decay) steps.

    After n updates the decay is at most (1 + n) / (10 + n), so that the fresh weights are soon forgotten.
    """

    def update(averaged: Any, current: Any, count: Any) -> None:
        n = int(count)
        get_ema_multi_avg_fn(min(decay, (1 + n) / (10 + n)))(averaged, current, count)

    return update


def make_learner(
    settings: dict[str, Any],
    seed: int,
    optim: OptimConfig,
    ema_decay: float,
    normalisation: Normalisation,
    device: torch.device,
    preparation: dict[str, Any] | None = None,
) -> Learner:
    """The method with fresh weights from the seed, its average and its optimisers.

    Args:
        settings: all configuration keys, flat.
        seed: of the fresh weights.
        optim: of every player's optimiser.
        ema_decay: of the averaged weights.
        normalisation: of the data; kept with the weights.
        device: where everything lies.
        preparation: how the scans were prepared; kept with the weights.
    """
    seed_everything(seed)
    method = build_method(settings).to(device)
    averaged = AveragedModel(method, multi_avg_fn=moving_average(ema_decay), use_buffers=True)
    optimisers: dict[str, torch.optim.Optimizer] = {
        player: torch.optim.SGD(
            method.player_parameters(player), optim.lr, optim.momentum, weight_decay=optim.weight_decay
        )
        for player in method.players
    }
    return Learner(method, averaged, optimisers, normalisation, settings, preparation)
