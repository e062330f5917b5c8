"""Optimisers with their learning-rate rules: what moves which parameters, and how fast."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from util.errors import ConfigError
from util.runtime import schedules
from util.schema import check_bounds, option

FOLLOWS_LENGTH = {"polynomial", "cosine"}  # schedules that need the length of the run


@dataclass(frozen=True)
class OptimConfig:
    """An optimiser and its learning-rate rule. Source of the defaults: SSL-ALPNet, section 4.2 and released code."""

    name: Literal["sgd", "adam", "adamw"] = "sgd"  # adamw: decoupled weight decay (Loshchilov and Hutter, ICLR 2019)
    lr: float = option(1e-3, ge=0)  # learning rate before schedule and warm-up
    momentum: float = option(0.9, ge=0, lt=1)  # of sgd
    betas: tuple[float, float] = option((0.9, 0.999), ge=0, lt=1)  # of adam and adamw: decay per step of both moments
    weight_decay: float = option(5e-4, ge=0)  # per unit of learning rate
    schedule: Literal["constant", "step", "polynomial", "cosine"] = "step"  # factor on lr as a function of the step
    step_every: int = option(1000, ge=1)  # steps between two drops of schedule=step
    step_gamma: float = option(0.95, ge=0)  # factor on lr at each of them
    power: float = option(1.0, gt=0)  # of schedule=polynomial: (1 - step / n_steps) ** power (DeepLab: 0.9; PSSNet: 1)
    end_factor: float = option(0.0, ge=0, le=1)  # factor on lr at n_steps, for polynomial and cosine
    warmup_steps: int = option(0, ge=0)  # steps of linear warm-up, on top of any schedule; 0: none (PSSNet: 1500)
    warmup_factor: float = option(1e-6, ge=0, le=1)  # factor on lr at step 0 of the warm-up (PSSNet)

    def __post_init__(self) -> None:
        check_bounds(self, "optim.")

    def factor(self, step: int, n_steps: int) -> float:
        """What the learning rate is multiplied by at a step, counted from 0, of a run of `n_steps`."""
        warmup = schedules.linear_warmup(step, self.warmup_steps, self.warmup_factor)
        if self.schedule == "step":
            return warmup * schedules.step_decay(step, self.step_every, self.step_gamma)
        if self.schedule == "polynomial":
            return warmup * schedules.polynomial_decay(step, n_steps, self.power, self.end_factor)
        if self.schedule == "cosine":
            return warmup * schedules.cosine_decay(step, n_steps, self.end_factor)
        return warmup

    def build(self, parameters: list[nn.Parameter] | list[dict[str, Any]]) -> torch.optim.Optimizer:
        """A fused optimiser: each weight is read and written once per step, by one kernel for all of them on a GPU."""
        if self.name == "sgd":
            return torch.optim.SGD(parameters, self.lr, self.momentum, weight_decay=self.weight_decay, fused=True)
        kind = torch.optim.Adam if self.name == "adam" else torch.optim.AdamW
        return kind(parameters, self.lr, self.betas, weight_decay=self.weight_decay, fused=True)


@dataclass(frozen=True)
class Trainable:
    """Parameters with an optimiser of their own."""

    parameters: list[nn.Parameter] | list[dict[str, Any]]  # or groups, as torch.optim takes them
    optim: OptimConfig


NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)


def groups_by_decay(module: nn.Module) -> list[dict[str, Any]]:
    """The trainable parameters in two groups, the second without weight decay: norms and tables of relative positions.

    Source: Liu et al., "Swin transformer", ICCV 2021, released code for segmentation.
    """
    free = {id(weight) for each in module.modules() if isinstance(each, NORMS) for weight in each.parameters()}
    decayed, undecayed = [], []
    for name, weight in module.named_parameters():
        if weight.requires_grad:
            is_free = id(weight) in free or name.endswith("relative_position_bias_table")
            (undecayed if is_free else decayed).append(weight)
    return [{"params": decayed}, {"params": undecayed, "weight_decay": 0.0}]


class Optimisers:
    """All optimisers of a run, by name. They step together, each at its own learning rate."""

    def __init__(self, trainables: Mapping[str, Trainable], n_steps: int) -> None:
        """Builds an optimiser for each of `trainables`; `n_steps` is the length of the run."""
        self.trainables, self.n_steps = dict(trainables), n_steps
        schedules_used = {each.optim.schedule for each in self.trainables.values()}
        if n_steps < 1 and schedules_used & FOLLOWS_LENGTH:
            raise ConfigError(f"n_steps={n_steps}: the schedules polynomial and cosine need the length of the run.")
        self.by_name = {name: each.optim.build(each.parameters) for name, each in self.trainables.items()}
        for optimiser in self.by_name.values():
            for group in optimiser.param_groups:
                group["initial_lr"] = group["lr"]

    @property
    def depends_on_length(self) -> bool:
        """Whether a learning rate follows from the length of the run, so that a longer run differs from its start."""
        return any(each.optim.schedule in FOLLOWS_LENGTH for each in self.trainables.values())

    def __getitem__(self, name: str) -> torch.optim.Optimizer:
        return self.by_name[name]

    @property
    def learning_rates(self) -> dict[str, float]:
        """The present learning rates: "lr" of the first optimiser, "lr_<name>" of others; the largest of its groups."""
        largest = {name: max(group["lr"] for group in each.param_groups) for name, each in self.by_name.items()}
        return {f"lr_{name}" if i else "lr": value for i, (name, value) in enumerate(largest.items())}

    def zero_grad(self) -> None:
        """Frees all gradients."""
        for optimiser in self.by_name.values():
            optimiser.zero_grad(set_to_none=True)

    def step(self, step: int, method_factor: Callable[[str], float] = lambda name: 1.0) -> None:
        """Sets the learning rates of a step, counted from 0, and updates all parameters.

        Args:
            step: completed steps.
            method_factor: further factor on the learning rate of the optimiser with this name.
        """
        for name, optimiser in self.by_name.items():
            schedule, further = self.trainables[name].optim.factor(step, self.n_steps), method_factor(name)
            for group in optimiser.param_groups:
                group["lr"] = group["initial_lr"] * schedule * further
            optimiser.step()

    def state_dict(self) -> dict[str, Any]:
        """The state of each optimiser."""
        return {name: optimiser.state_dict() for name, optimiser in self.by_name.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what `state_dict` returned, in the memory order that the weights have now."""
        for name, optimiser in self.by_name.items():
            optimiser.load_state_dict(state[name])
            _match_memory_order(optimiser)


def _match_memory_order(optimiser: torch.optim.Optimizer) -> None:
    """Stores the optimiser's state of each weight in that weight's memory order.

    A checkpoint keeps the order of the machine that wrote it, while fused optimisers read all tensors in storage order.
    """
    for weight, kept in optimiser.state.items():
        for name, value in kept.items():
            if torch.is_tensor(value) and value.shape == weight.shape:
                kept[name] = torch.empty_like(weight.detach()).copy_(value)
