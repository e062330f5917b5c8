"""One ALPNet training step against the bare encoder's forward and backward pass on the same images.

    python -m benchmarks.training_step --modelname dlfcn_res101 --size 256 --episodes 1 --repeats 5

The step holds everything that a step of training.py does: drawing and warping the episode in the same process,
prototypes, both losses, backward, optimiser and averaged weights.
"""

from argparse import Namespace

import numpy as np
import torch

from benchmarks.timing import HEADER, Comparison, compare, describe, parse
from dataloaders.episodes import EpisodeDataset, PseudoClassDrawer, SliceStack
from dataloaders.normalise import Normalisation
from dataloaders.transforms import PRESETS
from models.learner import OptimConfig, make_learner


def synthetic_stack(size: int, n_slices: int = 32) -> SliceStack:
    """Noise slices cut into square pseudo-organs of 32 pixels."""
    cells = torch.arange(size) // 32
    ids = (cells[:, None] * (size // 32) + cells[None] + 1).int().expand(n_slices, -1, -1)
    image = torch.randn(n_slices, 1, size, size, generator=torch.Generator().manual_seed(0)) + ids[:, None] / 20
    scan, z = np.zeros(n_slices, int), np.arange(n_slices)
    present = (
        np.concatenate([np.unique(each) for each in ids.numpy()]),
        np.arange(n_slices + 1) * len(np.unique(ids[0])),
    )
    return SliceStack(image[:, 0], ids, np.zeros(n_slices), np.ones(n_slices), scan, z, scan, present)


def measure(options: Namespace) -> list[Comparison]:
    """The whole step, and the step without preparing its data, each against the bare encoder."""
    device = options.device
    settings = {"method": "alpnet", "modelname": options.modelname, "encoder_weights": "none"}
    learner = make_learner(settings, 0, OptimConfig(lr=0.0), 0.999, Normalisation(), device)
    method, optimiser = learner.method.train(), learner.optimisers["main"]
    encoder = method.get_submodule("encoder")
    stack = synthetic_stack(options.size)
    drawer = PseudoClassDrawer(stack, np.ones(len(stack.z), bool), seed=0)
    episodes = EpisodeDataset(stack, drawer, PRESETS["sabs_aug"], 0, options.episodes)
    fixed = episodes[0].to(device)
    images = torch.cat([fixed.support_image, fixed.query_image], 1).flatten(0, 1)
    number = iter(range(10**9))

    def update(batch) -> None:
        optimiser.zero_grad(set_to_none=True)
        method(batch)["loss"].backward()
        optimiser.step()
        learner.averaged.update(method)

    def bare() -> None:
        optimiser.zero_grad(set_to_none=True)
        encoder(images).square().mean().backward()

    label = f"{options.modelname}, {options.size} px, {options.episodes} episode(s)"
    yardstick = "encoder forward + backward"
    return [
        compare(
            f"training step with its data, {label}",
            lambda: update(episodes[next(number)].to(device)),
            yardstick, bare, device, options.repeats,
        ),
        compare(f"training step, {label}", lambda: update(fixed), yardstick, bare, device, options.repeats),
        compare(
            f"episode preparation, {label}",
            lambda: episodes[next(number)],
            yardstick, bare, device, options.repeats,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    given = parse(__doc__, modelname="dlfcn_res101", size=256, episodes=1, repeats=5)
    print(describe(given.device), HEADER, *measure(given), sep="\n")
