"""Smoke test of this machine: a few training steps of every method in every precision, on generated phantoms.

    python -m benchmarks.smoke --out smoke.json                         # one GPU, or the CPU
    srun -N1 -n8 -c7 --gpus-per-task=1 --gpu-bind=closest python -m benchmarks.smoke --out smoke.json
    torchrun --standalone --nproc-per-node=4 -m benchmarks.smoke --out smoke.json

The report contains the output of `python -m util.runtime.device` and for each method: losses, difference of the first
one from the same step on the CPU, seconds, memory, whether a run resumed from a checkpoint continues equally, and
whether all processes agree. Attach it to an issue. On a GPU the networks have their published size, and everything is
repeated compiled (except with `--compile off`); on a CPU they are small.
"""

import argparse
import logging
import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from data.phantom import make_image, make_patient
from dataloaders.samples import (
    ANNOTATED,
    N_UNIFORM,
    PROPAGATED,
    DenseBatch,
    Episode,
    JointBatch,
    PartialBatch,
    SourceBatch,
)
from dataloaders.scans.normalise import Normalisation
from models import METHODS
from models.training.average import AverageConfig
from models.training.optim import OptimConfig
from models.training.state import TrainingState, build_state
from util.cli import run_main
from util.errors import ConfigError
from util.files import write_json
from util.runtime import checkpoint, device
from util.runtime.compiling import Compiled, can_compile
from util.runtime.distributed import ProcessGroup, mean_over_ranks, plan
from util.runtime.machine import GIB
from util.schema import merge

logger = logging.getLogger(__name__)

STEPS = 2
STEPS_COMPILED = 4  # enough to record and replay a CUDA graph
TOLERANCE: dict[device.Precision, float] = {
    "float32": 0.01,
    "bf16": 0.1,
}  # relative difference of a loss from the CPU's in float32 and from that of a resumed run
SMALL_UNET = {"base_features": 4, "max_features": 16, "halvings": [3, 3]}
SMALL: dict[str, Any] = {
    "modelname": "resnet18",
    "proto_grid_size": 4,
    "unet": SMALL_UNET,
    "network": {"kind": "unet", "n_classes": 2, "unet": SMALL_UNET},
}
PUBLISHED: dict[str, Any] = {"modelname": "dlfcn_res101", "unet": {"halvings": [5, 5]}, "network": {"n_classes": 2}}
# A small weight of unlabelled images: the loss falls within a few steps.
FIXED: dict[str, Any] = {
    "encoder_weights": "none",
    "selection": {"remember": [0.9, 0.9]},
    "unlabelled_weight": 0.01,
}
# Of partially annotated data sets; without dropout, whose chance hides that the loss falls.
PARTIAL: dict[str, Any] = {
    "network": {"dropout": 0.0, "drop_path": 0.0},
    "task_dropout": 0.0,
    "ramp_up_steps": 1000,  # of the weight of masks that change from step to step
    "heads": [{"name": name, "classes": [name]} for name in ("lesion", "border")],
    "sources": ["lesions", "borders"],
}
# Of label maps, whose weight does not change here from step to step.
LABEL_MAPS: dict[str, Any] = {"encoder_weights": "none", "n_classes": 2, "ramp_up_steps": 0}
PARTIAL_SMALL: dict[str, Any] = {
    "network": {"encoder": "test_convnext", "channels": 8},
    "discriminator": {"channels": 4},
}


@dataclass(frozen=True)
class Mode:
    """How a method is run."""

    precision: device.Precision
    compiles: bool = False


def phantom_episode(size_px: int, rank: int) -> Episode:
    """The liver on two neighbouring slices of a phantom; a different patient for every process."""
    image, label = make_patient("chaost2", rank % 20, seed=rank, size_px=size_px)
    liver = label.array == 1
    z = int(liver.sum((1, 2)).argmax())
    slices = torch.from_numpy(np.stack([image.array[z], image.array[z - 1]]).astype(np.float32))
    slices = ((slices - slices.mean()) / slices.std())[:, None, None, None]  # (2, B=1, S=1, 1, H, W)
    masks = torch.from_numpy(np.stack([liver[z], liver[z - 1]]))[:, None, None]
    return Episode(slices[0], masks[0], slices[1], masks[1])


def phantom_images(size_px: int, rank: int, n_images: int = 2) -> DenseBatch:
    """Skin lesions with their masks, and squares for superpixels."""
    pictures = [make_image("isic2017", n_images * rank % 1000 + i, size_px=size_px) for i in range(n_images)]
    image = torch.from_numpy(np.stack([p.image[:size_px, :size_px] for p in pictures])).permute(0, 3, 1, 2)
    label = torch.from_numpy(np.stack([next(iter(p.masks.values()))[:size_px, :size_px] for p in pictures]))
    cells = torch.arange(size_px) * 8 // size_px
    ids = (cells[:, None] * 8 + cells).expand(n_images, -1, -1).contiguous()
    return DenseBatch(image.float() / 127.5 - 1, label.long(), ids)


def phantom_sources(size_px: int, rank: int, n_images: int = 2) -> JointBatch:
    """Lesions in grey, labelled and unlabelled, with brighter partners."""
    generator, parts = torch.Generator().manual_seed(rank), {}
    for number, name in enumerate(("labelled", "unlabelled_1", "unlabelled_2")):
        dense = phantom_images(size_px, 3 * rank + number, n_images)
        image = dense.image.mean(1, keepdim=True) / 2 + 0.5
        uniform = torch.rand(n_images, N_UNIFORM, generator=generator)
        parts[name] = SourceBatch(image, image.flip(0) * 1.2, uniform, dense.label if name == "labelled" else None)
    return JointBatch(parts)


def phantom_partial(size_px: int, rank: int, n_images: int = 2) -> JointBatch:
    """Lesions annotated in one half of the images, their outer quarter in the other; and other views of these."""
    dense = phantom_images(size_px, rank, 2 * n_images)
    lesion, border = dense.label > 0, torch.zeros_like(dense.label, dtype=torch.bool)
    border[:, : size_px // 2, : size_px // 2] = lesion[:, : size_px // 2, : size_px // 2]
    source = torch.arange(2).repeat_interleave(n_images)
    own, valid = torch.stack([source == 0, source == 1], 1), torch.ones_like(lesion)[:, None]

    def part(is_known: torch.Tensor, image: torch.Tensor) -> PartialBatch:
        tasks = tuple(tuple(task for task in range(2) if known[task]) for known in is_known.tolist())
        return PartialBatch(image, torch.stack([lesion, border], 1), is_known, valid, source, tasks, dense.image)

    views = {"labelled": own, "pseudo": ~own, "strong": own & False}
    return JointBatch({name: part(known, dense.image * (1 + 0.1 * k)) for k, (name, known) in enumerate(views.items())})


def phantom_label_maps(size_px: int, rank: int, n_images: int = 2) -> JointBatch:
    """Lesions in grey, annotated and with label maps that leave a part unknown."""
    parts = {}
    for number, name in enumerate((ANNOTATED, PROPAGATED)):
        dense = phantom_images(size_px, 2 * rank + number, n_images)
        if name == PROPAGATED:
            dense.label[:, : size_px // 8] = 255
        parts[name] = DenseBatch(dense.image, dense.label)
    return JointBatch(parts)


def kind_of(name: str) -> str:
    """The family of a method; of few-shot ones, those that know their classes are a kind of their own."""
    return "self_trained" if METHODS[name].knows_classes else METHODS[name].family


def settings_of(name: str, is_small: bool) -> dict[str, Any]:
    """The configuration of a method, without keys of other methods."""
    keys = METHODS[name].Config.__dataclass_fields__
    values = FIXED | (SMALL if is_small else PUBLISHED)
    if kind_of(name) == "self_trained":
        return {"method": name} | LABEL_MAPS
    if METHODS[name].family == "partial":
        values = merge(FIXED, PARTIAL, PARTIAL_SMALL if is_small else {})
    return {"method": name} | {key: value for key, value in values.items() if key in keys}


def steps(
    state: TrainingState, batch: Any, autocast: torch.autocast, is_shared: bool, compiled: Compiled | None = None
) -> Iterator[float]:
    """Trains endlessly; yields the loss of each step, averaged over all processes."""
    net: nn.Module = compiled or state.method
    net.train()
    if is_shared:
        net = DistributedDataParallel(net, find_unused_parameters=state.method.has_unused_parameters)
    while True:
        loss = state.train_step(net, batch, autocast)["loss"]
        yield float(mean_over_ranks(loss.detach()))


def make(name: str, is_small: bool, target: torch.device) -> TrainingState:
    """A method with the same initial weights on every device."""
    settings, optim = settings_of(name, is_small), OptimConfig(lr=1e-3)
    state = build_state(settings, 0, optim, AverageConfig(), Normalisation(), target)
    state.method.before_training(None)
    return state


def loss_on_cpu(name: str, batch: Any, target: torch.device, is_small: bool) -> float:
    """The first loss of a method in float32 on the CPU, averaged over all processes."""
    cpu = torch.device("cpu")
    autocast = device.set_precision("float32", cpu)
    first = next(steps(make(name, is_small, cpu), batch, autocast, is_shared=False))
    return float(mean_over_ranks(torch.tensor(first, device=target)))


def try_method(
    name: str, batch: Any, mode: Mode, target: torch.device, is_small: bool, is_shared: bool, expected: float
) -> dict[str, Any]:
    """Trains, saves a checkpoint, continues, and repeats the continuation from the checkpoint."""
    autocast = device.set_precision(mode.precision, target)
    batch = batch.to(target)
    if target.type == "cuda":
        torch.cuda.reset_peak_memory_stats(target)
    state = make(name, is_small, target)
    compiled = Compiled(state.method, target) if mode.compiles else None
    running, losses, seconds = steps(state, batch, autocast, is_shared, compiled), [], []
    for _ in range(STEPS_COMPILED if mode.compiles else STEPS):
        start = time.perf_counter()
        losses.append(next(running))
        seconds.append(round(time.perf_counter() - start, 4))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.pt"
        checkpoint.save(path, state.state_dict())
        restarted = make(name, is_small, target)
        restarted.load_state_dict(checkpoint.load(path, target))
    unbroken, again = next(running), next(steps(restarted, batch, autocast, is_shared))
    return {
        "losses": [*losses, unbroken],
        "compiled": compiled is not None and not compiled.has_failed,
        "seconds": seconds,
        "cpu_difference": abs(losses[0] - expected) / abs(expected),
        "restart_difference": abs(again - unbroken) / abs(unbroken),
        "rank_difference": _rank_difference(state),
        "peak_memory_gib": torch.cuda.max_memory_allocated(target) / GIB if target.type == "cuda" else None,
    }


def _rank_difference(state: TrainingState) -> float:
    """Largest difference of this process's weights from the mean over all processes; 0 for one process."""
    weights = torch.cat([weight.detach().flatten() for weight in state.method.parameters()])  # of any memory order
    return float((weights - mean_over_ranks(weights)).abs().max())


def problems(found: Mapping[str, Any], mode: Mode) -> list[str]:
    """Problems of a result, one sentence each."""
    tolerance = TOLERANCE[mode.precision]
    wrong = [] if all(map(math.isfinite, found["losses"])) else ["a loss is not finite"]
    for key, what in (("cpu_difference", "the CPU"), ("restart_difference", "the uninterrupted run")):
        if not found[key] <= tolerance:
            wrong.append(f"loss differs from {what} by {100 * found[key]:.2g} %, more than {100 * tolerance:g} %")
    if found["rank_difference"] > 1e-5:
        wrong.append("the weights of the processes differ")
    if found["compiled"] != mode.compiles:
        wrong.append("could not be compiled")
    return wrong


def modes(target: torch.device, compile_choice: Literal["off", "auto", "on"]) -> list[Mode]:
    """Each precision of the device; the fastest one also compiled."""
    precisions: list[device.Precision] = ["float32", "bf16"] if device.bf16_support(target)[0] else ["float32"]
    found = [Mode(precision) for precision in precisions]
    return [*found, Mode(precisions[-1], compiles=True)] if can_compile(target, compile_choice) else found


def run_all(target: torch.device, options: argparse.Namespace, rank: int, is_shared: bool) -> list[dict[str, Any]]:
    """A line per method and mode; an error affects only its own line."""
    is_small = options.size_px < 256
    batches = {
        "fewshot": phantom_episode,
        "self_trained": phantom_label_maps,
        "dense": phantom_images,
        "sources": phantom_sources,
        "partial": phantom_partial,
    }
    batches = {kind: make_batch(options.size_px, rank) for kind, make_batch in batches.items()}
    lines: list[dict[str, Any]] = []
    expected: dict[str, float] = {}  # the losses on the CPU take longest, and are the same in every mode
    for mode in modes(target, options.compile):
        for name in options.methods:
            line: dict[str, Any] = {"method": name, "precision": mode.precision, "compiles": mode.compiles}
            try:
                batch = batches[kind_of(name)]
                if name not in expected:
                    expected[name] = loss_on_cpu(name, batch, target, is_small)
                line |= try_method(name, batch, mode, target, is_small, is_shared, expected[name])
                line["problems"] = problems(line, mode)
            except (RuntimeError, ValueError) as error:
                if is_shared:
                    raise  # else the other processes wait for this one
                line["problems"] = [f"{type(error).__name__}: {error}"]
            lines.append(line)
            told = "; ".join(line["problems"]) or f"fine, {line['losses']}"
            logger.info("%-12s %-8s %s %s", name, mode.precision, "compiled" if mode.compiles else "uncompiled", told)
    return lines


def main() -> int:
    """Writes the report; returns the number of lines with problems."""
    trained = [name for name, method in METHODS.items() if method.batch_type is not None]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.smoke", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="the report, JSON")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (NVIDIA and AMD alike)")
    parser.add_argument("--size-px", type=int, default=0, help="rows and columns (default: 256 on a GPU, 64 on a CPU)")
    parser.add_argument("--methods", nargs="+", default=trained, choices=trained, metavar="NAME", help="default: all")
    parser.add_argument("--compile", choices=("off", "auto", "on"), default="auto", help="auto: on a GPU (default)")
    options = parser.parse_args()
    place = plan()
    target = place.device(options.device)
    options.size_px = options.size_px or (256 if target.type == "cuda" else 64)
    if options.size_px % 32:
        raise ConfigError(f"--size-px {options.size_px}: expected a multiple of 32.")
    with ProcessGroup(place, target):
        lines = run_all(target, options, place.rank, place.world_size > 1)
    if place.is_first:
        asked = {"size_px": options.size_px, "device": str(target), "processes": place.world_size}
        write_json(
            options.out, {"asked": asked | {"launcher": place.launcher}, "device": device.report(), "methods": lines}
        )
        logger.info("%s: attach it to an issue.", options.out)
    return sum(bool(line["problems"]) for line in lines)


if __name__ == "__main__":
    run_main(main)
