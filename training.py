"""Trains one method on one fold. This file is the whole loop, in the order in which things happen.

    python training.py with alpnet chaost2 setting2 eval_fold=0 path.data_dir=data path.log_dir=exps
    torchrun --standalone --nproc-per-node=4 training.py with alpnet chaost2 setting2 eval_fold=0
    srun -n8 python training.py with alpnet sabs setting1 eval_fold=0

The same command again goes on from the last checkpoint, to the same weights as if it had never stopped; once it has
reached `n_steps` it does nothing. `python training.py print_config with ...` shows every key.
"""

import logging
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from config_ssl_upload import Settings, command, ex, read_settings
from data.check import require_valid
from dataloaders.build import build_loader, build_task, open_data
from dataloaders.normalise import Normalisation
from dataloaders.store import PreparedFolder
from models import method_class
from models.evaluate import evaluate
from models.learner import Learner, make_learner
from util import checkpoint
from util.distributed import Plan, ProcessGroup, StopSignal, any_rank, barrier, choose_device, plan
from util.errors import ConfigError
from util.meters import RunningMeans
from util.schedules import step_decay

logger = logging.getLogger(__name__)

SMALLEST_PX = 64  # rows and columns that still give a few features

# The reference's names of what is logged, kept beside ours.
REFERENCE_NAMES = {"query_ce": "loss", "align": "align_loss"}


@command
def train(_config: dict[str, Any], _run: Any) -> str:
    """Trains until `n_steps`; returns the path of the checkpoint."""
    settings = read_settings(_config)
    place = plan()
    device = choose_device(settings.run.device, place.local_rank)
    with ProcessGroup(place, device), StopSignal() as stop:
        return str(_train(settings, _run, place, device, stop))


def _train(settings: Settings, log: Any, place: Plan, device: torch.device, stop: StopSignal) -> Path:
    run = settings.run
    if method_class(run.method).batch_type is None:
        raise ConfigError(f"method={run.method!r} has nothing to train; run validation.py with the same words.")
    path = settings.experiment_folder / "checkpoint.pt"
    folder, fold = open_data(settings.data, run.path.data_dir)
    if run.check_data and place.is_first:
        _check(settings, folder)
    normalisation = Normalisation.fit(folder.spec, folder.statistics(fold.train))
    preparation = folder.manifest.parameters.get("normalise")
    learner = make_learner(settings.values, run.seed, run.optim, run.ema_decay, normalisation, device, preparation)
    saved = checkpoint.load_newest(path, device)
    if saved is not None:
        learner.restore(saved)
    if learner.step >= run.n_steps:
        logger.info("%s has all %d steps; nothing to do.", path, learner.step)
        return path
    logger.info("training on scans %s from step %d; %s", list(fold.train), learner.step, settings.experiment_folder)

    workers = min(run.num_workers, os.cpu_count() or 1)
    loader = build_loader(
        settings.data, folder, fold, learner.normalisation, run.seed, run.batch_size,
        range(learner.step, run.n_steps), workers, place, pin_memory=device.type == "cuda",
    )  # fmt: skip
    net = learner.method.train()
    if place.world_size > 1:
        net = DistributedDataParallel(net, find_unused_parameters=len(learner.method.players) > 1)
    means = RunningMeans()
    bar = tqdm(total=run.n_steps, initial=learner.step, disable=None if place.is_first else True, desc="training")
    for batch in loader:
        batch = batch.to(device, non_blocking=True)
        for player, optimiser in learner.optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = run.optim.lr * step_decay(learner.step, run.lr_step_every, run.lr_step_gamma)
            losses = net(batch, player=player)
            optimiser.zero_grad(set_to_none=True)
            losses["loss"].backward()
            optimiser.step()
            means.add(losses)
        learner.method.after_step(learner.step)
        learner.averaged.update_parameters(learner.method)
        learner.step += 1
        bar.update()

        is_leaving = any_rank(stop.received is not None, device)
        is_saving = learner.step % run.checkpoint_every == 0 or learner.step == run.n_steps or is_leaving
        is_kept = run.save_snapshot_every > 0 and learner.step % run.save_snapshot_every == 0
        if learner.step % run.print_interval == 0 or is_saving or is_kept:
            averages = means.read(learner.step)  # stops here, before anything is saved, if a loss was not finite
            bar.set_postfix({name: f"{value:.3f}" for name, value in averages.items()})
            for name, value in averages.items():
                log.log_scalar(f"train/{name}", value, learner.step)
                if name in REFERENCE_NAMES:
                    log.log_scalar(REFERENCE_NAMES[name], value, learner.step)
        if run.eval_every and learner.step % run.eval_every == 0:
            _log_evaluation(settings, learner, device, log)
        if place.is_first:
            if is_kept:
                checkpoint.save(path.parent / "snapshots" / f"{learner.step}.pth", learner.snapshot())
            if is_saving:
                checkpoint.save(path, learner.state(), keep_previous=True)
        if is_leaving:
            logger.warning("stopped by signal %s after step %d; the same command goes on.", stop.received, learner.step)
            break
    bar.close()
    barrier()
    return path


def _check(settings: Settings, folder: PreparedFolder) -> None:
    """Stops before hours are spent on damaged or ill-fitting data."""
    data = settings.data
    scale = data.superpix_scale if data.train_on == "superpixels" else None
    require_valid(folder.folder, data.spec, scale, data.eval_fold, SMALLEST_PX, data.support_idx)


def _log_evaluation(settings: Settings, learner: Learner, device: torch.device, log: Any) -> None:
    folder, fold = open_data(settings.data, settings.run.path.data_dir)
    task = build_task(settings.data, folder, fold, learner.normalisation, "reference")
    results = list(evaluate(learner.method, task, device))
    for value in task.support.classes:
        dice = [result.scores[value].dice for result in results if not math.isnan(result.scores[value].dice)]
        if dice:
            log.log_scalar(f"val/dice/{folder.spec.class_names[value].lower()}", sum(dice) / len(dice), learner.step)


if __name__ == "__main__":
    ex.default_command = "train"
    ex.run_commandline()
