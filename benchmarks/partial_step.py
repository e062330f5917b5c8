"""A training step of the methods for partially annotated data sets against the bare passes of their network.

    python -m benchmarks.partial_step --size 512 --batch 4 --precision bf16      # on a GPU
    python -m benchmarks.partial_step --encoder resnet10t --size 64 --batch 4
    python -m benchmarks.partial_step --tasks 6 --encoder resnet10t --size 64    # time and memory of 1, 2, ... 6 tasks

The batch, which is made beforehand, has as many images of each of three data sets, each annotated for one task. The
bare passes are those of the step, over as many images and heads: without gradient where a network teaches, forward and
backward where it learns; of a method with discriminators, those of the segmentation network alone. With `--tasks`, the
yardstick is the first stage with a single task and data set of as many images.
"""

from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import HEADER, Comparison, compare, describe, parse
from benchmarks.trainee import Trainee
from dataloaders.samples import JointBatch, PartialBatch
from models.networks.upernet import MultiHeadUPerNet

METHODS: dict[str, dict[str, Any]] = {
    "stage 1": {"method": "partial_generator"},
    "stage 2, pseudo-labels": {"method": "partial_adversarial", "attention": False, "adversarial_weight": 0.0},
    "stage 2, adversarial": {"method": "partial_adversarial", "attention": False},
    "stage 2, PSSNet": {"method": "partial_adversarial"},
    "averaged teacher": {"method": "partial_teacher"},
}
SIZES = (1, 4, 2)  # classes of the tasks, in turn


def settings_of(n_tasks: int, n_sets: int, options: Namespace) -> dict[str, Any]:
    """A network with random weights for some tasks and data sets."""
    names = [f"task {number}" for number in range(n_tasks)]
    heads = [{"name": name, "classes": [f"{name} {k}" for k in range(SIZES[i % 3])]} for i, name in enumerate(names)]
    network = {"encoder": options.encoder, "channels": options.channels}
    sources = [f"set {number}" for number in range(n_sets)]
    return {"network": network, "encoder_weights": "none", "heads": heads, "sources": sources}


def batch_of(n_tasks: int, n_sets: int, options: Namespace) -> JointBatch:
    """Noise images with a square in each; data set s is annotated for the task s, and s + n_sets, ..."""
    size, n_images = options.size, options.batch * n_sets
    owner = torch.tensor([task for task in range(n_tasks) for _ in range(SIZES[task % 3])])
    source = torch.arange(n_sets).repeat_interleave(options.batch)
    own = owner % n_sets == source[:, None]  # (B, K)
    label = torch.zeros(n_images, len(owner), size, size, dtype=torch.bool)
    label[..., size // 4 : size // 2, size // 4 : size // 2] = True
    valid = torch.ones(n_images, 1, size, size, dtype=torch.bool)

    def part(is_known: Tensor) -> PartialBatch:
        image, weak = torch.randn(2, n_images, 3, size, size)
        tasks = tuple(tuple(owner[row].unique().tolist()) for row in is_known)
        return PartialBatch(image, label, is_known, valid, source, tasks, weak)

    parts = {"labelled": part(own), "pseudo": part(~own), "strong": part(own & False)}
    return JointBatch(parts).to(options.device)


def passes_of(trainee: Trainee, batch: JointBatch) -> list[tuple[int, tuple[Any, ...], bool]]:
    """The passes of a step: number of the network, its inputs, whether with gradient."""
    found: list[tuple[int, tuple[Any, ...], bool]] = []
    networks = [module for module in trainee.state.method.modules() if isinstance(module, MultiHeadUPerNet)]

    def note(number: int, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        found.append((number, inputs, torch.is_grad_enabled()))

    hooks = [network.register_forward_pre_hook(partial(note, number)) for number, network in enumerate(networks)]
    with trainee.options.autocast:
        trainee.state.method(batch)
    for hook in hooks:
        hook.remove()
    return found


def bare_passes(trainee: Trainee, batch: JointBatch) -> Callable[[], None]:
    """The same passes alone, with the simplest possible loss."""
    passes, options = passes_of(trainee, batch), trainee.options

    def run() -> None:
        trainee.state.optimisers.zero_grad()
        for number, inputs, has_gradient in passes:
            with options.autocast, torch.set_grad_enabled(has_gradient):
                found = trainee.networks[number](*inputs)
            if has_gradient:
                maps = (*found.main, *found.auxiliary)
                torch.stack([each.square().mean() for each in maps if len(each)]).sum().backward()

    return run


def measure(options: Namespace) -> list[Comparison]:
    """Each method's step with optimisers and averages, but without its data."""
    batch, shape, found = batch_of(3, 3, options), settings_of(3, 3, options), []
    for name, settings in METHODS.items():
        trainee = Trainee(settings | shape, MultiHeadUPerNet, options)
        what = f"{name}, {options.encoder}, 3 x {options.batch} x {options.size} px"
        step, bare = partial(trainee.step, batch), bare_passes(trainee, batch)
        found.append(compare(what, step, "bare passes of its network", bare, options, is_network=True))
    return found


def measure_tasks(options: Namespace) -> Sequence[Comparison]:
    """The first stage with 1, 2, ... tasks in one data set, so that all heads compute all images, against one task."""
    found, steps = [], []
    for n_tasks in range(1, options.tasks + 1):
        settings = METHODS["stage 1"] | settings_of(n_tasks, 1, options)
        steps.append(partial(Trainee(settings, MultiHeadUPerNet, options).step, batch_of(n_tasks, 1, options)))
        what = f"stage 1, {n_tasks} task(s), {options.encoder}, {options.batch} x {options.size} px"
        found.append(compare(what, steps[-1], "one task", steps[0], options))
    return found


if __name__ == "__main__":
    given = parse(__doc__, encoder="resnet10t", channels=128, size=64, batch=4, repeats=15, tasks=0)
    rows = measure_tasks(given) if given.tasks else measure(given)
    print(describe(given), HEADER, *rows, sep="\n")
