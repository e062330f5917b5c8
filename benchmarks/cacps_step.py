"""A training step of the methods for several sources against the bare passes of their networks.

    python -m benchmarks.cacps_step --size 288 --batch 32 --precision bf16 --compile on     # on a GPU
    python -m benchmarks.cacps_step --size 192 --batch 2 --repeats 15

The batch, which is made beforehand, has as many labelled images as each of the two unlabelled parts. The bare passes
are those of the step, over as many images: without gradient where a network teaches, forward and backward where it
learns.
"""

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.timing import HEADER, Comparison, compare, describe, parse
from benchmarks.trainee import Trainee
from dataloaders.samples import N_UNIFORM, JointBatch, SourceBatch
from models.networks.deeplab import DeepLab

METHODS: dict[str, dict[str, Any]] = {
    "labelled only": {"method": "labelled_only"},
    "CACPS": {"method": "cacps"},
    "CACPS, joint passes": {"method": "cacps", "separate_passes": False},
    "mixed teacher": {"method": "mixed_teacher"},
}
CLASSES = 4


def batch_of(options: Namespace) -> JointBatch:
    """Noise images with a square in each."""
    size, n_images = options.size, options.batch
    label = torch.zeros(n_images, size, size, dtype=torch.long)
    label[:, size // 4 : size // 2, size // 4 : size // 2] = 1

    def part(is_labelled: bool) -> SourceBatch:
        image, partner = torch.rand(2, n_images, 1, size, size)
        return SourceBatch(image, partner, torch.rand(n_images, N_UNIFORM), label if is_labelled else None)

    parts = {"labelled": part(True), "unlabelled_1": part(False), "unlabelled_2": part(False)}
    return JointBatch(parts).to(options.device)


def passes_of(trainee: Trainee, batch: JointBatch) -> list[tuple[int, int, bool]]:
    """The passes of a step: number of the network, images, whether with gradient."""
    found: list[tuple[int, int, bool]] = []
    networks = [module for module in trainee.state.method.modules() if isinstance(module, DeepLab)]

    def note(number: int, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append((number, len(inputs[0]), torch.is_grad_enabled()))

    hooks = [network.register_forward_pre_hook(partial(note, number)) for number, network in enumerate(networks)]
    with trainee.options.autocast:
        trainee.state.method(batch)
    for hook in hooks:
        hook.remove()
    return found


def bare_passes(trainee: Trainee, batch: JointBatch) -> Callable[[], None]:
    """The same passes over images alone, with the simplest possible loss."""
    passes, options = passes_of(trainee, batch), trainee.options
    largest = max(n_images for _, n_images, _ in passes)
    images = torch.rand(largest, 1, options.size, options.size, device=options.device)

    def run() -> None:
        trainee.state.optimisers.zero_grad()
        for number, n_images, has_gradient in passes:
            with options.autocast, torch.set_grad_enabled(has_gradient):
                output = trainee.networks[number](images[:n_images])
            if has_gradient:
                output.float().square().mean().backward()

    return run


def measure(options: Namespace) -> list[Comparison]:
    """Each method's step with optimiser and averages, but without its data."""
    network = {"kind": "deeplab", "encoder": options.encoder, "n_classes": CLASSES}
    batch, found = batch_of(options), []
    for name, settings in METHODS.items():
        trainee = Trainee(settings | {"network": network, "encoder_weights": "none"}, DeepLab, options)
        bare = bare_passes(trainee, batch)
        what = f"{name} step, {options.encoder}, {options.batch} x {options.size} px"
        step = partial(trainee.step, batch)
        found.append(compare(what, step, "bare passes of its networks", bare, options, is_network=True))
    return found


if __name__ == "__main__":
    given = parse(__doc__, encoder="resnet50s", size=192, batch=2, repeats=15)
    print(describe(given), HEADER, *measure(given), sep="\n")
