"""What training changes and a checkpoint contains, and the four things that happen to it: step, round, log, save."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dataloaders.description import DatasetSpec
from dataloaders.images.labels import LabelStore, RefinedLabels
from dataloaders.scans.normalise import Normalisation
from models import build_method
from models.methods.base import Method
from models.training.average import AverageConfig, MovingAverage
from models.training.optim import OptimConfig, Optimisers
from models.training.speed import out_of_memory_error, to_memory_format
from util.runtime import checkpoint
from util.runtime.distributed import barrier, max_over_ranks
from util.runtime.meters import RunningMeans
from util.runtime.seeding import random_state, restore_random_state, seed_everything

FORMAT = "frugalseg-1"  # of checkpoints and snapshots
# Metrics that are also logged under the names that SSL-ALPNet's code gives them.
METRIC_ALIASES = {"train/query_ce": "loss", "train/align": "align_loss"}


@dataclass
class TrainingState:
    """Everything that changes during training, and therefore everything that a checkpoint contains."""

    method: Method
    average: MovingAverage | None  # None: the method averages nothing
    optimisers: Optimisers
    normalisation: Normalisation
    settings: dict[str, Any] = field(default_factory=dict)
    preparation: dict[str, Any] | None = None  # of the training scans, as in their manifest; None: unknown
    spec: DatasetSpec | None = None  # of the data; None: unknown
    labels: LabelStore | None = None  # of dense methods, which may refine them
    refined: RefinedLabels | None = None  # where refined labels are stored
    data_sha256: str | None = None  # of what is trained on, see `trained_on`; on the first process
    history: list[dict[str, float]] = field(default_factory=list)  # result of each evaluation during training
    scalars: dict[str, list[list[float]]] = field(default_factory=dict)  # name -> steps, values: all logged metrics
    means: RunningMeans = field(default_factory=RunningMeans)  # losses since they were last logged
    step: int = 0  # completed steps

    @property
    def device(self) -> torch.device:
        """Where the method is trained."""
        return next(self.method.parameters()).device

    def train_step(self, net: nn.Module, batch: Any, precision: torch.autocast) -> dict[str, Tensor]:
        """Forward, backward, all optimisers, averaged weights. Nothing here waits for the device.

        Args:
            net: the method, possibly compiled and wrapped for several processes.
            batch: on the device.
            precision: of the forward pass.

        Returns:
            The losses of this step.

        Raises:
            UserError: the device is out of memory.
        """
        try:
            self.optimisers.zero_grad()  # first: the forward pass needs the memory
            with precision:
                losses = net(batch)
            losses["loss"].backward()
            self.optimisers.step(self.step, self.method.learning_rate_factor)
        except torch.OutOfMemoryError as error:
            raise out_of_memory_error(len(batch), self.device) from error
        self.means.add(losses)
        self.method.after_step(self.step)
        averaged = self.method.averaged()
        if self.average is not None and averaged is not None:
            self.average.update(averaged)
        self.step += 1
        return losses

    def close_round(self, is_first: bool) -> dict[str, float]:
        """Lets the method review a round and possibly refine the labels, on the first process for all.

        The method's buffers reach the other processes with the next step.

        Returns:
            The method's metrics; empty on the other processes.
        """
        before = 0 if self.labels is None else self.labels.n_replaced
        metrics = self.method.after_round(self.labels) if is_first else {}
        if self.labels is not None and self.refined is not None:
            number = max_over_ranks(self.labels.n_replaced, self.device)
            if number > before:
                if is_first:
                    self.refined.save(self.labels)
                barrier()
                if not is_first:
                    self.refined.restore(self.labels, number)
        return {f"round/{name}": value for name, value in metrics.items()}

    def log(self, metrics: Mapping[str, float], run: Any) -> None:
        """Logs metrics of the current step to the Sacred run, and keeps them for the record of a resumed run."""
        for name, value in metrics.items():
            steps, values = self.scalars.setdefault(name, [[], []])
            steps.append(self.step)
            values.append(float(value))
            _log_scalar(run, name, value, self.step)

    def replay_log(self, run: Any) -> None:
        """Logs everything logged before, so that the record of a resumed run is complete."""
        for name, (steps, values) in self.scalars.items():
            for step, value in zip(steps, values, strict=True):
                _log_scalar(run, name, value, int(step))

    def save(self, path: Path) -> None:
        """Writes the checkpoint and keeps the previous one."""
        checkpoint.save(path, self.state_dict(), keep_previous=True)

    def save_snapshot(self, folder: Path) -> None:
        """Writes what prediction needs to `<folder>/<step>.pth`."""
        checkpoint.save(folder / f"{self.step}.pth", self.snapshot())

    def state_dict(self) -> dict[str, Any]:
        """Content of a checkpoint."""
        return self.snapshot() | {
            "optimisers": self.optimisers.state_dict(),
            "averaged_count": 0 if self.average is None else self.average.count,
            "random_state": random_state(self.device),
            "scalars": self.scalars,
            "means": self.means.state_dict(),
            "n_replaced_labels": 0 if self.labels is None else self.labels.n_replaced,
            **({} if self.data_sha256 is None else {"data_sha256": self.data_sha256}),
        }

    def snapshot(self) -> dict[str, Any]:
        """What prediction needs. `ema` are the method's weights with the averaged ones in place; absent without."""
        weights = self.method.state_dict()
        content = {
            "format": FORMAT,
            "step": self.step,
            "settings": self.settings,
            "dataset": None if self.spec is None else self.spec.to_dict(),
            "normalisation": self.normalisation.to_dict(),
            "preparation": self.preparation,
            "method": weights,
            "history": self.history,
        }
        if self.average is None:
            return content
        prefix = self._averaged_prefix()
        averaged = {f"{prefix}{name}": value for name, value in self.average.module.state_dict().items()}
        return content | {"ema": weights | averaged}

    def _averaged_prefix(self) -> str:
        averaged = self.method.averaged()
        name = next(name for name, module in self.method.named_modules() if module is averaged)
        return f"{name}." if name else ""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores a checkpoint."""
        self.method.load_state_dict(state["method"])
        if self.average is not None:
            prefix = self._averaged_prefix()
            averaged = self.average.module.state_dict()
            self.average.module.load_state_dict({name: state["ema"][f"{prefix}{name}"] for name in averaged})
            self.average.count = int(state["averaged_count"])
        self.optimisers.load_state_dict(state["optimisers"])
        restore_random_state(state["random_state"], self.device)
        self.normalisation = Normalisation.from_dict(state["normalisation"])
        self.history, self.scalars = state["history"], state["scalars"]
        self.means.load_state_dict(state["means"])
        if self.labels is not None and self.refined is not None:
            self.refined.restore(self.labels, state["n_replaced_labels"])
        self.step = state["step"]


def _log_scalar(run: Any, name: str, value: float, step: int) -> None:
    for each in (name, METRIC_ALIASES.get(name)):
        if each is not None:
            run.log_scalar(each, value, step)


def build_state(
    settings: dict[str, Any],
    seed: int,
    optim: OptimConfig,
    ema: AverageConfig,
    normalisation: Normalisation,
    device: torch.device,
    preparation: dict[str, Any] | None = None,
    channels_last: Literal["auto", "on", "off"] = "auto",
    spec: DatasetSpec | None = None,
) -> TrainingState:
    """The method with initial weights from the seed, its average and its optimisers.

    Args:
        settings: all configuration keys, flat; `n_steps`, the length of the run, is needed by some schedules.
        seed: of the initial weights.
        optim: the run's optimiser settings, see `Method.optimisers`.
        ema: of the averaged weights.
        normalisation: of the data; saved with the weights.
        device: where to train.
        preparation: how the scans were prepared; saved with the weights.
        channels_last: memory order of the weights, see `models.training.speed.to_memory_format`.
        spec: description of the data set; saved with the weights, so that prediction needs no other file.
    """
    seed_everything(seed)
    method = to_memory_format(build_method(settings).to(device), device, channels_last)
    averaged = method.averaged()
    average = None if averaged is None else MovingAverage(averaged, ema)
    optimisers = Optimisers(method.optimisers(optim), settings.get("n_steps", 0))
    return TrainingState(method, average, optimisers, normalisation, settings, preparation, spec)
