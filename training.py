"""Trains one method on one data set. This file is the whole loop, in the order in which things happen.

    python training.py with alpnet chaost2 setting2 eval_fold=0 path.data_dir=data path.log_dir=exps
    python training.py with tloss isic2017 noise.alpha=0.7 noise.beta=0.7
    torchrun --standalone --nproc-per-node=4 training.py with alpnet chaost2 setting2 eval_fold=0 batch_size=4
    srun -n8 python training.py with alpnet sabs setting1 eval_fold=0 batch_size=8

`batch_size` counts all processes, so that a training may go on on another number of them.

The same command again goes on from the last checkpoint, to the same weights as if it had never stopped; once it has
reached `n_steps` it does nothing. `python training.py print_config with ...` shows every key.
"""

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from config_ssl_upload import Settings, command, ex, read_settings
from data.check import require_valid
from data.check.images import require_valid_images
from dataloaders.build import Data, open_data
from dataloaders.fewshot.data import FewShotData
from dataloaders.images.labels import RefinedLabels
from dataloaders.ordering import LoaderOptions, rounds
from models import method_class
from models.evaluation import make_evaluation
from models.training.speed import fits_on, out_of_memory, share_of
from models.training.state import Learner, make_learner
from util.errors import ConfigError
from util.runtime import checkpoint
from util.runtime.compiling import Compiled, can_compile
from util.runtime.device import keep_freed_memory, set_precision
from util.runtime.distributed import Plan, ProcessGroup, StopSignal, barrier, first_does, plan
from util.runtime.schedules import step_decay

logger = logging.getLogger(__name__)

SMALLEST_PX = 64  # rows and columns of a scan's slices that still give a few features

REFERENCE_NAMES = {"train/query_ce": "loss", "train/align": "align_loss"}  # of what is logged, kept beside ours


@command
def train(_config: dict[str, Any], _run: Any) -> str:
    """Trains until `n_steps`; returns the path of the checkpoint."""
    settings = read_settings(_config)
    place = plan()
    device = place.device(settings.run.device)
    keep_freed_memory(device)
    with ProcessGroup(place, device), StopSignal() as stop:
        return str(_train(settings, _run, place, device, stop))


def _train(settings: Settings, log: Any, place: Plan, device: torch.device, stop: StopSignal) -> Path:
    run = settings.run
    path = settings.experiment_folder / "checkpoint.pt"
    method_type = method_class(run.method)
    if method_type.batch_type is None:
        raise ConfigError(f"method={run.method!r} has nothing to train; run validation.py with the same words.")
    data = open_data(settings.data, run.path.data_dir, method_type.trains_on, method_type.needs_superpixels)
    if run.check_data:
        first_does(lambda: _check(data), place, device)
    learner = make_learner(
        *(settings.values, run.seed, run.optim, run.ema, data.fit_normalisation(), device, data.preparation),
        channels_last=run.channels_last,
    )
    learner.labels, learner.refined = data.labels, RefinedLabels(path.parent / "refined_labels", path.parent.name)
    saved = checkpoint.load_newest(path, device)
    if saved is None:
        learner.method.before_training(learner.labels)
    else:
        settings.require_same(saved["settings"], path)
        learner.restore(saved)
    if learner.step >= run.n_steps:
        logger.info("%s has all %d steps; nothing to do.", path, learner.step)
        return path
    for name, (steps, values) in learner.scalars.items():  # a run that goes on tells the whole story
        for step, value in zip(steps, values, strict=True):
            _log(log, {name: value}, int(step))
    logger.info("training on %s from step %d; %s", data.describe(), learner.step, settings.experiment_folder)
    options = _loader_options(settings, data, place, device)
    method = learner.method.train()
    net: torch.nn.Module = Compiled(method, device) if options.compiles else method
    if place.world_size > 1:
        net = DistributedDataParallel(net, find_unused_parameters=len(learner.method.players) > 1)
    precision = set_precision(run.precision, device)
    evaluation = make_evaluation(method_type.family, data, device)
    bar = tqdm(total=run.n_steps, initial=learner.step, disable=None if place.is_first else True, desc="training")
    for batch in _batches(settings, data, learner, options):
        batch = batch.to(device, non_blocking=True)
        for player, optimiser in learner.optimisers.items():
            decay = step_decay(learner.step, run.lr_step_every, run.lr_step_gamma)
            learner.set_learning_rates(optimiser, run.optim.lr * decay)
            losses = _update(net, batch, player, optimiser, precision, device)
            learner.means.add(losses)
        learner.method.after_step(learner.step)
        learner.averaged.update(learner.method)
        learner.step += 1
        bar.update()

        is_leaving = stop.is_heeded(learner.step, place, device)
        is_saving = learner.step % run.checkpoint_every == 0 or learner.step == run.n_steps or is_leaving
        is_kept = run.save_snapshot_every > 0 and learner.step % run.save_snapshot_every == 0
        found: dict[str, float] = {}
        if is_saving or is_kept:
            learner.means.settle(learner.step)  # stops here, before anything is saved, if a loss was not finite
        if learner.step % run.print_interval == 0 or learner.step == run.n_steps:
            averages = learner.means.read(learner.step)
            bar.set_postfix({name: f"{value:.3f}" for name, value in averages.items()})
            found |= {f"train/{name}": value for name, value in averages.items()}
        if run.eval_every and learner.step % run.eval_every == 0 and place.is_first:
            scores = evaluation.curve(learner.method, learner.normalisation)
            learner.history.append({"step": float(learner.step)} | scores)
            found |= scores
        if run.round_steps and learner.step % run.round_steps == 0:
            found |= {f"round/{name}": value for name, value in learner.close_round(place.is_first, device).items()}
        learner.note(found)
        _log(log, found, learner.step)
        if place.is_first:
            if is_kept:
                checkpoint.save(path.parent / "snapshots" / f"{learner.step}.pth", learner.snapshot())
            if is_saving:
                checkpoint.save(path, learner.state(), keep_previous=True)
        if is_leaving:
            logger.warning("stopped by signal %s after step %d; the same command goes on.", stop.received, learner.step)
            if learner.step < run.n_steps:
                log.info["stopped_at_step"] = learner.step
            break
    bar.close()
    barrier()
    return path


def _update(
    net: torch.nn.Module,
    batch: Any,
    player: str,
    optimiser: torch.optim.Optimizer,
    precision: torch.autocast,
    device: torch.device,
) -> dict[str, torch.Tensor]:
    """One player's step: forward, backward, optimiser. Nothing here waits for the device."""
    try:
        optimiser.zero_grad(set_to_none=True)  # first: the forward pass needs the memory
        with precision:
            losses = net(batch, player=player)
        losses["loss"].backward()
        optimiser.step()
    except torch.OutOfMemoryError as error:
        raise out_of_memory(len(batch), device) from error
    return losses


def _log(log: Any, found: Mapping[str, float], step: int) -> None:
    for name, value in found.items():
        for known in filter(None, (name, REFERENCE_NAMES.get(name))):
            log.log_scalar(known, value, step)


def _loader_options(settings: Settings, data: Data, place: Plan, device: torch.device) -> LoaderOptions:
    run = settings.run
    resident = device if fits_on(device, data.nbytes, run.data_on) else None
    workers = min(run.num_workers, os.cpu_count() or 1)
    return LoaderOptions(workers, place, device.type == "cuda", resident, can_compile(device, run.compile))


def _batches(settings: Settings, data: Data, learner: Learner, options: LoaderOptions) -> Iterator[Any]:
    """The batches of the remaining steps; each round has a loader of its own, which reads the labels as they are."""
    run = settings.run
    share = share_of(run.batch_size, options.plan.world_size)
    for steps in rounds(learner.step, run.n_steps, run.round_steps):
        yield from data.loader(learner.normalisation, run.seed, share, steps, options)


def _check(data: Data) -> None:
    """Stops before hours are spent on damaged or ill-fitting data."""
    folder = data.folder.folder
    if isinstance(data, FewShotData):
        fewshot = data.config
        scale = fewshot.superpix_scale if fewshot.train_on == "superpixels" else None
        require_valid(folder, fewshot.spec, scale, fewshot.eval_fold, SMALLEST_PX, fewshot.support_idx)
    else:
        dense = data.config
        noise = None if data.trains_on_clean or not dense.noise.alpha else dense.noise
        superpixel = dense.superpixel if data.needs_superpixels else None
        require_valid_images(folder, dense.spec, dense.chosen, noise, superpixel)


if __name__ == "__main__":
    ex.default_command = "train"
    finished = ex.run_commandline()
    if finished is not None and "stopped_at_step" in finished.info:
        sys.exit(os.EX_TEMPFAIL)  # 75, on which a job script returns to the queue
