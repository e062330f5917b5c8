"""Small methods for several sources, and batches of squares of several looks."""

import dataclasses
from typing import Any

import torch

from dataloaders.samples import N_UNIFORM, JointBatch, SourceBatch
from models import METHODS, build_method
from models.methods.sources.base import SemiMethod
from models.training.optim import OptimConfig, Optimisers

NAMES = [name for name, method in METHODS.items() if method.family == "sources"]
SEMI = [name for name in NAMES if issubclass(METHODS[name], SemiMethod)]
SIZE = 16
SMALL: dict[str, Any] = {
    "network": {
        "kind": "unet",
        "n_classes": 3,
        "unet": {"halvings": [2, 2], "base_features": 4, "max_features": 8},
    },
    "encoder_weights": "none",
}

# Settings that leave out all parts of the mixed teacher.
PLAIN: dict[str, Any] = {
    "teacher": "student",
    "fourier": {"mode": "none"},
    "appearance": {"probability": 0.0},
    "cutmix_from": "none",
    "mixstyle": {"passes": "none"},
    "confidence": "none",
    "supervised_augmented": False,
}


def make(name: str, *, seed: int = 0, **settings: Any) -> Any:
    torch.manual_seed(seed)
    return build_method({"method": name} | SMALL | settings).train()


def source_batch(n_images: int, generator: torch.Generator, is_labelled: bool) -> SourceBatch:
    """Two squares, of classes 1 and 2, in images and partners of random brightness, contrast and noise."""

    def draw(*size: int) -> torch.Tensor:
        return torch.rand(n_images, *size, generator=generator)

    label = torch.zeros(n_images, SIZE, SIZE, dtype=torch.long)
    for one in label:
        row, column = torch.randint(0, 8, (2,), generator=generator).tolist()
        one[row : row + 6, column : column + 8] = 1
        one[row : row + 6, column : column + 4] = 2
    shown = label[:, None] / 2
    image, partner = (
        0.2 * draw(1, 1, 1) + (0.3 + 0.5 * draw(1, 1, 1)) * shown + 0.1 * draw(1, SIZE, SIZE) for _ in range(2)
    )
    return SourceBatch(image, partner, draw(N_UNIFORM), label if is_labelled else None)


def joint_batch(n_labelled: int = 4, n_unlabelled: int = 4, seed: int = 0) -> JointBatch:
    generator = torch.Generator().manual_seed(seed)
    return JointBatch(
        {
            "labelled": source_batch(n_labelled, generator, is_labelled=True),
            "unlabelled_1": source_batch(n_unlabelled, generator, is_labelled=False),
            "unlabelled_2": source_batch(n_unlabelled, generator, is_labelled=False),
        }
    )


def part_of(batch: JointBatch, rank: int, n_ranks: int) -> JointBatch:
    """The images of one process: consecutive ones of each part."""

    def cut(one: SourceBatch) -> SourceBatch:
        size = len(one) // n_ranks
        rows = slice(rank * size, (rank + 1) * size)
        values = {each.name: getattr(one, each.name) for each in dataclasses.fields(one)}
        return SourceBatch(**{name: None if value is None else value[rows] for name, value in values.items()})

    return JointBatch({name: cut(one) for name, one in batch.parts.items()})


def train(method: Any, n_steps: int, first: int = 0, net: Any = None) -> list[dict[str, float]]:
    """Steps as the training loop takes them, on another batch each; returns what each logs."""
    optimisers = Optimisers(method.optimisers(OptimConfig("adamw", 1e-3, schedule="constant")), 100)
    logged = []
    for step in range(first, first + n_steps):
        optimisers.zero_grad()
        losses = (net or method)(joint_batch(seed=step))
        losses["loss"].backward()
        optimisers.step(step, method.learning_rate_factor)
        method.after_step(step)
        logged.append({name: round(value.item(), 6) for name, value in losses.items()})
    return logged
