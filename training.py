"""Trains one method on one data set. The file reads top-down, in the order in which things happen.

    python training.py with alpnet chaost2 setting2 eval_fold=0 path.data_dir=data path.log_dir=exps
    python training.py with tloss isic2017 noise.alpha=0.7 noise.beta=0.7
    torchrun --standalone --nproc-per-node=4 training.py with alpnet chaost2 setting2 eval_fold=0 batch_size=4
    srun -n8 python training.py with alpnet sabs setting1 eval_fold=0 batch_size=8

`batch_size` is the total of all processes, so that a run can be resumed with another number of them.

The same command resumes from the last checkpoint, with the same weights as without a stop; a run that has reached
`n_steps` is left as it is. `python training.py print_config with ...` shows every key.
"""

import logging
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from config_ssl_upload import Settings, command, ex, read_settings
from data.check.training import require_fit
from dataloaders.build import open_data
from dataloaders.images.labels import RefinedLabels
from dataloaders.ordering import LoaderOptions, rounds
from dataloaders.protocol import TrainingData
from models import method_class
from models.evaluation import make_evaluation
from models.evaluation.recording import write_training_page
from models.training.resume import load_resumable, log_shorter_runs, restore
from models.training.speed import batch_size_per_process, should_keep_on_device
from models.training.state import TrainingState, build_state
from models.training.trained_on import record_cases, record_data
from util.errors import ConfigError
from util.progress import ProgressBar
from util.results.progress import Progress
from util.runtime.compiling import Compiled, can_compile
from util.runtime.device import keep_freed_memory, set_precision
from util.runtime.distributed import Plan, ProcessGroup, StopSignal, barrier, plan, run_on_first_rank
from util.runtime.run_store import refusals_leave_no_record

logger = logging.getLogger(__name__)


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
    with refusals_leave_no_record(log, path.parent):
        data = _open(settings, place, device)
        state = _fresh_or_resumed(settings, data, path, place, device)
    if state.step >= run.n_steps:
        logger.info("%s has all %d steps; nothing to do.", path, state.step)
        return path

    state.replay_log(log)
    logger.info("training on %s from step %d; %s", data.describe(), state.step, settings.experiment_folder)
    options = _loader_options(settings, data, place, device)
    net = _wrapped(state, options, device)
    precision = set_precision(run.precision, device)
    evaluation = make_evaluation(state.method.family, data, device)
    name = f"{settings.method_name} on {data.spec.name}"
    progress = Progress(path.parent, name, state.step, run.n_steps, place.is_first and run.pictures)
    bar = ProgressBar(total=run.n_steps, initial=state.step, desc="training", is_shown=place.is_first)
    for batch in _batches(settings, data, state, options):
        state.train_step(net, batch.to(device, non_blocking=True), precision)
        bar.update()

        is_last = state.step == run.n_steps
        is_stopping = stop.should_stop(state.step, place, device)
        is_saving = state.step % run.checkpoint_every == 0 or is_last or is_stopping
        is_snapshot = run.save_snapshot_every > 0 and state.step % run.save_snapshot_every == 0
        if is_saving or is_snapshot:
            state.means.reduce(state.step)  # raises if a loss is not finite, before anything is saved

        metrics: dict[str, float] = {}
        if state.step % run.print_interval == 0 or is_last:
            means = state.means.read(state.step)
            bar.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
            metrics |= {f"train/{name}": value for name, value in (means | state.optimisers.learning_rates).items()}
        if run.eval_every and state.step % run.eval_every == 0 and place.is_first:
            scores = evaluation.curve(state.method, state.normalisation)
            state.history.append({"step": float(state.step)} | scores)
            metrics |= scores
        if run.round_steps and state.step % run.round_steps == 0:
            metrics |= state.close_round(place.is_first)
        state.log(metrics, log)
        progress.draw_if_due(state.step, state.scalars)

        if is_snapshot and place.is_first:
            state.save_snapshot(path.parent / "snapshots")
        if is_saving and place.is_first:
            state.save(path)
        if is_stopping:
            logger.warning("stopped by signal %s after step %d; the same command resumes.", stop.received, state.step)
            if not is_last:
                log.info["stopped_at_step"] = state.step
            break
    bar.close()
    if place.is_first:
        log._emit_heartbeat()  # so that all that was logged is in the run's metrics
    if progress.is_drawn:
        progress.draw(state.step, state.scalars)
        write_training_page(path.parent, f"{name}, step {state.step}", state.history, settings.values, settings.changed)
    barrier()
    return path


def _open(settings: Settings, place: Plan, device: torch.device) -> TrainingData:
    run = settings.run
    method_type = method_class(run.method)
    if method_type.batch_type is None:
        raise ConfigError(f"method={run.method!r} has nothing to train; run `frugalseg validate` with the same words.")
    data = open_data(method_type.family, settings.data, run.path.data_dir, method_type.trains_on, method_type.needs)
    if run.check_data:  # stops before hours are spent on damaged or unsuitable data
        run_on_first_rank(lambda: require_fit(method_type.family, data), place, device)
    return data


def _fresh_or_resumed(
    settings: Settings, data: TrainingData, path: Path, place: Plan, device: torch.device
) -> TrainingState:
    run = settings.run
    state = build_state(
        *(settings.values, run.seed, run.optim, run.ema, data.fit_normalisation(), device, data.preparation),
        channels_last=run.channels_last,
        spec=data.spec,
    )
    state.labels, state.refined = data.labels, RefinedLabels(path.parent / "refined_labels", path.parent.name)
    if not run.round_steps:
        state.method.require_no_rounds(state.labels)
    saved, can_prolong = load_resumable(path, device), not state.optimisers.depends_on_length
    former = settings.require_same(saved["settings"], path, can_prolong) if saved else path.parent

    def compare_data() -> None:
        state.data_sha256 = record_data(data.contents(), path, saved, run.n_steps, run.accept_changed_data)
        if state.data_sha256 is not None:
            record_cases(data.trained_cases(), data.spec.name, path, saved is None)

    run_on_first_rank(compare_data, place, device)
    if saved is None:
        log_shorter_runs(path.parent, settings.differing, can_prolong)
        state.method.before_training(state.labels)
        return state
    prolonged, state.refined = state.refined, RefinedLabels(state.refined.folder, former.name)
    restore(state, saved, path)
    state.refined = prolonged
    if former != path.parent and data.labels is not None and data.labels.n_replaced:
        run_on_first_rank(lambda: prolonged.save(data.labels), place, device)
    return state


def _loader_options(settings: Settings, data: TrainingData, place: Plan, device: torch.device) -> LoaderOptions:
    run = settings.run
    resident = device if should_keep_on_device(device, data.nbytes, run.data_on) else None
    workers = min(run.num_workers, os.cpu_count() or 1)
    return LoaderOptions(workers, place, device.type == "cuda", resident, can_compile(device, run.compile))


def _wrapped(state: TrainingState, options: LoaderOptions, device: torch.device) -> nn.Module:
    """The method in training mode, compiled if requested, and with gradients averaged over all processes."""
    method = state.method.train()
    net = Compiled(method, device) if options.compiles else method
    if options.plan.world_size > 1:
        return DistributedDataParallel(net, find_unused_parameters=method.has_unused_parameters)
    return net


def _batches(settings: Settings, data: TrainingData, state: TrainingState, options: LoaderOptions) -> Iterator[Any]:
    """The batches of the remaining steps. Each round has a new loader, which reads the labels as they are then."""
    run = settings.run
    batch_size = batch_size_per_process(run.batch_size, options.plan.world_size)
    for steps in rounds(state.step, run.n_steps, run.round_steps):
        yield from data.loader(state.normalisation, run.seed, batch_size, steps, options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line, or `arguments`: a command and its words; returns 75 if a signal stopped the training."""
    with StopSignal(until_exit=True):
        finished = ex.run_words("train", arguments)
    is_stopped = finished is not None and "stopped_at_step" in finished.info
    return os.EX_TEMPFAIL if is_stopped else 0  # 75, on which a job script returns to the queue


if __name__ == "__main__":
    sys.exit(main())
