"""What a training changes and a checkpoint holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

from dataloaders.images.labels import LabelStore, RefinedLabels
from dataloaders.scans.normalise import Normalisation
from models import build_method
from models.methods.base import Method
from models.training.average import AverageConfig, MovingAverage
from models.training.speed import ordered
from util.runtime.distributed import barrier, max_over_ranks
from util.runtime.meters import RunningMeans
from util.runtime.seeding import seed_everything


@dataclass(frozen=True)
class OptimConfig:
    """The optimiser. Source of the defaults: SSL-ALPNet, section 4.2."""

    name: Literal["sgd", "adam"] = "sgd"
    lr: float = 1e-3
    momentum: float = 0.9  # of sgd
    weight_decay: float = 5e-4

    def build(self, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        """An optimiser of these parameter groups; what a group sets itself stays.

        It is fused: each weight is read and written once per step, and a GPU has one kernel for all of them.
        """
        if self.name == "adam":
            return torch.optim.Adam(groups, self.lr, weight_decay=self.weight_decay, fused=True)
        return torch.optim.SGD(groups, self.lr, self.momentum, weight_decay=self.weight_decay, fused=True)


@dataclass
class Learner:
    """Everything that changes while training, and so everything that a checkpoint holds."""

    method: Method
    averaged: MovingAverage
    optimisers: dict[str, torch.optim.Optimizer]
    normalisation: Normalisation
    settings: dict[str, Any] = field(default_factory=dict)
    preparation: dict[str, Any] | None = None  # of the training scans, as in their manifest; None: unknown
    labels: LabelStore | None = None  # of dense methods; a method may refine them
    refined: RefinedLabels | None = None  # where refined labels are kept
    history: list[dict[str, float]] = field(default_factory=list)  # what each evaluation during training has found
    scalars: dict[str, list[list[float]]] = field(default_factory=dict)  # name -> steps, values: all that was logged
    means: RunningMeans = field(default_factory=RunningMeans)  # of what the next line of the log will say
    step: int = 0  # completed steps

    def note(self, found: Mapping[str, float]) -> None:
        """Remembers what was logged at this step, for the record of a run that goes on."""
        for name, value in found.items():
            steps, values = self.scalars.setdefault(name, [[], []])
            steps.append(self.step)
            values.append(float(value))

    def set_learning_rates(self, optimiser: torch.optim.Optimizer, lr: float) -> None:
        """Sets the learning rate of all parameter groups but those with one of their own."""
        for group in optimiser.param_groups:
            if not group["is_constant"]:
                group["lr"] = lr * self.method.learning_rate_factor()

    def close_round(self, is_first: bool, device: torch.device) -> dict[str, float]:
        """Lets the method look back on a round, and refine the labels: on the first process, for all.

        The method's buffers reach the other processes with the next step.

        Returns:
            What the method has to log; nothing on the other processes.
        """
        before = 0 if self.labels is None else self.labels.n_replaced
        logged = self.method.after_round(self.labels) if is_first else {}
        if self.labels is not None and self.refined is not None:
            number = max_over_ranks(self.labels.n_replaced, device)
            if number > before:
                if is_first:
                    self.refined.save(self.labels)
                barrier()
                if not is_first:
                    self.refined.restore(self.labels, number)
        return logged

    def state(self) -> dict[str, Any]:
        """The checkpoint's content."""
        return self.snapshot() | {
            "optimisers": {player: optimiser.state_dict() for player, optimiser in self.optimisers.items()},
            "averaged_count": self.averaged.count,
            "generator": torch.get_rng_state(),
            "scalars": self.scalars,
            "means": self.means.state(),
            "n_replaced_labels": 0 if self.labels is None else self.labels.n_replaced,
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
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Goes back to a checkpoint."""
        self.method.load_state_dict(state["method"])
        self.averaged.module.load_state_dict(state["ema"])
        self.averaged.count = int(state["averaged_count"])
        for player, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][player])
            _follow_memory_order(optimiser)
        torch.set_rng_state(state["generator"].cpu())
        self.normalisation = Normalisation.from_dict(state["normalisation"])
        self.history, self.scalars = state["history"], state["scalars"]
        self.means.restore(state["means"])
        if self.labels is not None and self.refined is not None:
            self.refined.restore(self.labels, state["n_replaced_labels"])
        self.step = state["step"]


def _follow_memory_order(optimiser: torch.optim.Optimizer) -> None:
    """Lays out what the optimiser remembers of each weight as the weight itself lies in memory.

    A checkpoint keeps the order of the machine that wrote it, and fused optimisers walk along memory whatever it is.
    """
    for weight, remembered in optimiser.state.items():
        for name, value in remembered.items():
            if torch.is_tensor(value) and value.shape == weight.shape:
                remembered[name] = torch.empty_like(weight.detach()).copy_(value)


def make_learner(
    settings: dict[str, Any],
    seed: int,
    optim: OptimConfig,
    ema: AverageConfig,
    normalisation: Normalisation,
    device: torch.device,
    preparation: dict[str, Any] | None = None,
    channels_last: Literal["auto", "on", "off"] = "auto",
) -> Learner:
    """The method with fresh weights from the seed, its average and its optimisers.

    Args:
        settings: all configuration keys, flat.
        seed: of the fresh weights.
        optim: of every player's optimiser.
        ema: of the averaged weights.
        normalisation: of the data; kept with the weights.
        device: where everything lies.
        preparation: how the scans were prepared; kept with the weights.
        channels_last: memory order of the weights, see `models.training.speed.ordered`.
    """
    seed_everything(seed)
    method = ordered(build_method(settings).to(device), device, channels_last)
    averaged = MovingAverage(method, ema)
    optimisers = {}
    for player in method.players:
        groups = [group | {"is_constant": "lr" in group} for group in method.parameter_groups(player)]
        optimisers[player] = optim.build(groups)
    return Learner(method, averaged, optimisers, normalisation, settings, preparation)
