"""Small methods for partially annotated data sets, and batches of the three sets of `tests.partial_sets`."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from dataloaders.samples import JointBatch, PartialBatch, Task, map_tensors
from models import build_method
from models.training.optim import OptimConfig, Optimisers
from tests.partial_sets import BLOBS, CASTS, DISCS, LINES, SIDE, draw

NAMES = ("partial_generator", "partial_adversarial", "partial_teacher")
SETS = (LINES, BLOBS, DISCS)
TASKS: tuple[Task, ...] = tuple(spec.tasks[0] for spec in SETS)
CLASSES = tuple(name for task in TASKS for name in task.classes)  # line; bright, dark; disc, cup
CHANNELS = (slice(0, 1), slice(1, 3), slice(3, 5))
# Without chance and without statistics of a batch.
SMALL: dict[str, Any] = {
    "network": {"encoder": "test_convnext", "channels": 8, "dropout": 0.0, "drop_path": 0.0},
    "encoder_weights": "none",
    "heads": [{"name": task.name, "classes": list(task.classes), "relation": task.relation} for task in TASKS],
    "sources": [spec.name for spec in SETS],
    "discriminator": {"channels": 4},
    "task_dropout": 0.0,
}


# Settings that leave out all that the second stage adds.
OFF: dict[str, Any] = {"attention": False, "adversarial_weight": 0.0, "pseudo_weight": 0.0}
SIZES = tuple(len(task.classes) for task in TASKS)


def make(name: str, *, seed: Any = 0, **settings: Any) -> Any:
    torch.manual_seed(seed)
    return build_method({"method": name} | SMALL | settings).train()


def part(sets: tuple[int, ...], n_each: int, seed: int, kind: str) -> PartialBatch:
    """Images of some of the three sets; kind: labelled, pseudo (all but the set's own task) or strong (nothing)."""
    pairs = [
        (number, draw(seed + 100 * number + k, CASTS[SETS[number].name])) for number in sets for k in range(n_each)
    ]
    image = torch.stack(
        [torch.from_numpy(each.astype(np.float32) / 128 - 1).permute(2, 0, 1) for _, (each, _) in pairs]
    )
    label = torch.stack([torch.stack([torch.from_numpy(masks[name]) for name in CLASSES]) for _, (_, masks) in pairs])
    source = [number for number, _ in pairs]
    own = torch.tensor([[k in range(*CHANNELS[s].indices(5)) for k in range(5)] for s in source])
    valid = torch.ones(len(pairs), 1, SIDE, SIDE, dtype=torch.bool)
    valid[:, :, :3] = False
    known = {"labelled": own, "pseudo": ~own, "strong": own & False}[kind]
    tasks = tuple(tuple(t for t in range(3) if kind != "strong" and (t == s) == (kind == "labelled")) for s in source)
    label = label if kind != "strong" else label & False
    return PartialBatch(
        image, label & known[..., None, None], known, valid, torch.tensor(source), tasks,
        None if kind == "labelled" else image + 0.01,
    )  # fmt: skip


def joint_batch(n_each: int = 2, seed: int = 0, sets: tuple[int, ...] = (0, 1, 2)) -> JointBatch:
    return JointBatch(
        {name: part(sets, n_each, seed + 7 * k, name) for k, name in enumerate(("labelled", "pseudo", "strong"))}
    )


def part_of(batch: JointBatch, rank: int, n_ranks: int, n_sets: int = 3) -> JointBatch:
    """The images of one process: consecutive ones of each data set in each part."""

    def cut(one: PartialBatch) -> PartialBatch:
        each, size = len(one) // n_sets, len(one) // n_sets // n_ranks
        kept = [k * each + rank * size + place for k in range(n_sets) for place in range(size)]
        return replace(map_tensors(one, lambda tensor: tensor[kept]), tasks=tuple(one.tasks[k] for k in kept))

    return JointBatch({name: cut(one) for name, one in batch.parts.items()})


def dice_by_hand(
    method: Any, batch: PartialBatch, logits: torch.Tensor, channels: slice, images: slice
) -> torch.Tensor:
    """Mean over classes, then images, of the Dice loss, on pixels that count."""
    p, t = logits.sigmoid(), batch.label[images, channels].float()
    inside = batch.valid[images].float()
    p, t, s = p * inside, t * inside, method.config.smooth
    loss = 1 - (2 * (p * t).sum((2, 3)) + s) / (p.square().sum((2, 3)) + t.square().sum((2, 3)) + s)
    return loss.mean(1).mean()


def train(method: Any, n_steps: int, first: int = 0) -> list[dict[str, float]]:
    """Steps as the training loop takes them, on another batch each; returns what each logs."""
    optimisers = Optimisers(method.optimisers(OptimConfig("adamw", 1e-3, schedule="constant")), 100)
    logged = []
    for step in range(first, first + n_steps):
        optimisers.zero_grad()
        losses = method(joint_batch(1, seed=step))
        losses["loss"].backward()
        optimisers.step(step, method.learning_rate_factor)
        method.after_step(step)
        logged.append({name: round(value.item(), 6) for name, value in losses.items()})
    return logged
