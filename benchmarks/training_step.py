"""One ALPNet training step against the forward and backward pass of the bare encoder on the same images.

    python -m benchmarks.training_step --modelname dlfcn_res101 --size 256 --episodes 1 --repeats 15
    python -m benchmarks.training_step --episodes 8 --precision bf16 --compile on     # and against plain single steps

The step is that of training.py: drawing and augmenting the episode in the same process, prototypes, both losses,
backward pass, optimiser and averaged weights.
"""

from argparse import Namespace
from collections.abc import Callable
from functools import partial
from itertools import count

import numpy as np
import torch

from benchmarks.timing import HEADER, Comparison, compare, describe, parse
from benchmarks.trainee import Trainee
from dataloaders import transforms
from dataloaders.fewshot.episodes import EpisodeDataset, PseudoClassDrawer, SliceStack
from models.networks.backbones import Encoder
from util.runtime.compiling import CompiledFunction, can_compile
from util.runtime.device import set_precision

PLAIN = {"precision": "float32", "channels_last": "off", "compile": "off"}


def synthetic_stack(size: int, n_slices: int = 32) -> SliceStack:
    """Noise slices cut into square pseudo-organs of 32 pixels."""
    cells = torch.arange(size) // 32
    ids = (cells[:, None] * (size // 32) + cells[None] + 1).int().expand(n_slices, -1, -1)
    image = torch.randn(n_slices, 1, size, size, generator=torch.Generator().manual_seed(0)) + ids[:, None] / 20
    place, z = np.zeros(n_slices, int), np.arange(n_slices)
    present = (
        np.concatenate([np.unique(each) for each in ids.numpy()]),
        np.arange(n_slices + 1) * len(np.unique(ids[0])),
    )
    one_scan = [image[:, 0].numpy()], [ids.numpy()]
    return SliceStack(*one_scan, np.zeros(n_slices), np.ones(n_slices), np.full(n_slices, "1"), z, place, present)


def episodes_of(options: Namespace, n_episodes: int) -> EpisodeDataset:
    """Batches of episodes, made on the device."""
    stack = synthetic_stack(options.size)
    apply = transforms.apply
    if options.device.type != "cpu":
        stack = stack.on(options.device)
        apply = CompiledFunction(apply) if can_compile(options.device, options.compile) else apply
    drawer = PseudoClassDrawer(stack, np.ones(len(stack.z), bool), seed=0)
    return EpisodeDataset(stack, drawer, transforms.PRESETS["sabs_aug"], 0, n_episodes, apply=apply)


def measure(options: Namespace) -> list[Comparison]:
    """The whole step, the step without its data and the data alone, each against the bare encoder.

    With more than one episode, another precision or compilation, also against plain steps.
    """
    trainee, number = Trainee(_settings(options), Encoder, options), count()
    episodes = episodes_of(options, options.episodes)
    fixed = episodes[0].to(options.device)
    bare = partial(trainee.bare, torch.cat([fixed.support_image, fixed.query_image], 1).flatten(0, 1))
    label = f"{options.modelname}, {options.size} px, {options.episodes} episode(s)"
    yardstick = "encoder forward + backward"

    def prepare() -> None:
        episodes[next(number)].to(options.device)

    def step() -> None:
        trainee.step(episodes[next(number)])

    found = [
        compare(f"training step with its data, {label}", step, yardstick, bare, options, is_network=True),
        compare(f"training step, {label}", lambda: trainee.step(fixed), yardstick, bare, options, is_network=True),
        compare(f"episode preparation, {label}", prepare, yardstick, bare, options),
    ]
    if options.episodes > 1 or any(vars(options)[name] not in ("auto", value) for name, value in PLAIN.items()):
        found.append(_against_plain(options, step, label))
    return found


def _against_plain(options: Namespace, step: Callable[[], None], label: str) -> Comparison:
    """One step of all episodes with the given options against as many plain steps of one episode."""
    autocast = set_precision("float32", options.device)
    plain = Trainee(_settings(options), Encoder, Namespace(**vars(options) | PLAIN | {"autocast": autocast}))
    single, number = episodes_of(Namespace(**vars(options) | PLAIN), 1), count()

    def fast() -> None:
        set_precision(options.precision, options.device)
        step()

    def slow() -> None:
        set_precision("float32", options.device)
        for _ in range(options.episodes):
            plain.step(single[next(number)])

    yardstick = f"{options.episodes} eager float32 step(s) of one episode"
    return compare(f"training step with its data, {label}", fast, yardstick, slow, options)


def _settings(options: Namespace) -> dict[str, str]:
    return {"method": "alpnet", "modelname": options.modelname, "encoder_weights": "none"}


if __name__ == "__main__":
    given = parse(__doc__, modelname="dlfcn_res101", size=256, episodes=1, repeats=15)
    print(describe(given), HEADER, *measure(given), sep="\n")
