"""What all methods for partially annotated data sets share: the network, the losses of tasks, prediction."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dataloaders.protocol import DataFacts
from dataloaders.samples import ImageCase, JointBatch, PartialBatch, Task
from models.losses.partial_labels import binary_cross_entropy, binary_dice, task_means
from models.methods.base import Method
from models.networks.passes import run_in_chunks
from models.networks.rows import EVERY, Rows, select_rows
from models.networks.upernet import JoinedLogits, MultiHeadUPerNet, TaskLogits, UPerConfig
from models.training.optim import OptimConfig, Trainable, groups_by_decay
from util.errors import ConfigError
from util.schema import check_bounds, option

LABELLED, PSEUDO, STRONG = "labelled", "pseudo", "strong"  # the parts of a batch


@dataclass(frozen=True)
class PartialConfig:
    """Hyper-parameters that all methods of this family share.

    Source: PSSNet (Pattern Recognition 2024), released code.
    """

    network: UPerConfig = option(UPerConfig, "architecture")
    encoder_weights: str = "imagenet"  # imagenet (downloaded by timm), none (random), or a file
    heads: tuple[Task, ...] = option((), "architecture")  # tasks in the order of the outputs; follow from the data sets
    sources: tuple[str, ...] = option((), "architecture")  # names of the data sets by number; follow from the data sets
    auxiliary_weight: float = option(0.4, "architecture", ge=0)  # of the auxiliary heads' loss; 0: there are none
    smooth: float = option(1e-5, gt=0)  # of the Dice loss; with 1 classes that are absent from a view teach more
    # denominator of the Dice loss: sums of squares as released, or plain sums, which find small structures much sooner
    dice: Literal["squared", "plain"] = "squared"
    # pixels without a label: do not count, or are background as released
    ignore: Literal["mask", "background"] = "mask"
    bce_weight: float = option(0.0, ge=0)  # of binary cross-entropy, added to the Dice loss of each class
    images_per_pass: int = option(4, "practical", ge=1)  # images segmented together in prediction

    def __post_init__(self) -> None:
        check_bounds(self)


class PartialMethod(Method):
    """A shared encoder with one head per task; Dice loss of each task on the images that are annotated for it.

    A task that an image is not annotated for takes part in nothing. All tasks are predicted for every image. Masks are
    where a class exceeds 1/2, whatever the relation of the classes of a task, as in the released evaluation.
    """

    Config: ClassVar[type] = PartialConfig
    config: PartialConfig
    family = "partial"
    batch_type = JointBatch

    def __init__(self, config: PartialConfig) -> None:
        super().__init__()
        if not config.heads:
            raise ConfigError("heads=[]: expected the tasks to be learned, at least one; they follow from `datasets`.")
        self.config = config
        self.sizes = tuple(len(task.classes) for task in config.heads)
        ends = tuple(accumulate(self.sizes))
        # of each task
        self.channels = tuple(slice(end - size, end) for end, size in zip(ends, self.sizes, strict=True))
        self.network = self.build_network(config.encoder_weights)

    def build_network(self, encoder_weights: str) -> MultiHeadUPerNet:
        """A network of this configuration."""
        return MultiHeadUPerNet(
            self.config.network,
            {task.name: len(task.classes) for task in self.config.heads},
            encoder_weights,
            attention=getattr(self.config, "attention", False),
            auxiliary=self.config.auxiliary_weight > 0,
            task_dropout=getattr(self.config, "task_dropout", 0.0),
        )

    @classmethod
    def derived(cls, facts: DataFacts | None) -> dict[str, Any]:
        """A network that fits the images, its tasks, and the names of the data sets."""
        if facts is None:
            return {}
        heads = [asdict(task) | {"classes": list(task.classes)} for task in facts.tasks]
        return {"network": {"in_channels": facts.channels}, "heads": heads, "sources": list(facts.sources)}

    @property
    def predictor(self) -> nn.Module:
        """The network that predicts."""
        return self.network

    def inference_network(self) -> nn.Module:
        """The network that predicts: logits of the classes of all tasks, in their order."""
        return JoinedLogits(self.predictor)

    def averaged(self) -> nn.Module | None:
        """The network that predicts."""
        return self.network

    def optimisers(self, optim: OptimConfig) -> dict[str, Trainable]:
        """The network's weights; norms and tables of relative positions without weight decay."""
        return {"main": Trainable(groups_by_decay(self.network), optim)}

    def supervised(self, logits: TaskLogits, batch: PartialBatch, rows: Sequence[Rows]) -> dict[str, Tensor]:
        """The losses of each task on its own images, by name for the log: dice_<task>, and their weighted sum as loss.

        Args:
            logits: of these images only.
            batch: of which they are a part.
            rows: of each task, its images.
        """
        main = self.task_losses(logits.main, batch, rows)
        total = main.sum()
        if logits.auxiliary:
            total = total + self.config.auxiliary_weight * self.task_losses(logits.auxiliary, batch, rows).sum()
        names = (f"dice_{task.name}" for task in self.config.heads)
        return {"loss": total} | dict(zip(names, main.detach().unbind(), strict=True))

    def task_losses(
        self, maps: Sequence[Tensor], batch: PartialBatch, rows: Sequence[Rows] | None = None
    ) -> Float[Tensor, " T"]:
        """Dice loss of each task, plus weighted cross-entropy; mean over its known classes, then its annotated images.

        Args:
            maps: logits (N, classes of the task, H, W) of each task.
            batch: what they are compared with.
            rows: of each task, its N images; None: all.

        Returns:
            0 for a task that no image is annotated for. An image without a valid pixel adds 0 and counts, so that its
            batch may be divided among processes.
        """
        losses = []
        for errors, is_known in self.errors(maps, batch, rows):
            losses.append(task_means(errors, is_known, [errors.shape[1]])[0])
        return torch.stack(losses)

    def errors(
        self, maps: Sequence[Tensor], batch: PartialBatch, rows: Sequence[Rows] | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """For each task, the loss (N, classes) of each image and class, and whether it is known; see `task_losses`."""
        config = self.config
        for logits, channels, images in zip(maps, self.channels, rows or [EVERY] * len(maps), strict=True):
            is_known, label, valid = (select_rows(each, images) for each in (batch.is_known, batch.label, batch.valid))
            is_known, label = is_known[:, channels], label[:, channels]
            valid = valid if valid.shape[1] == 1 else valid[:, channels]
            if config.ignore == "background":
                label, valid = label & valid, None
            squared = config.dice == "squared"
            found = binary_dice(logits, label, is_known, valid, config.smooth, squared=squared)
            if config.bce_weight:
                found = found + config.bce_weight * binary_cross_entropy(logits, label, is_known, valid)
            yield found, is_known

    def part(self, batch: JointBatch, name: str) -> PartialBatch:
        """A part of the batch.

        Raises:
            ConfigError: it has none.
        """
        if name not in batch.parts:
            raise ConfigError(f"{type(self).__name__}: the batch has no part {name!r}, only {', '.join(batch.parts)}.")
        return batch[name]

    @torch.no_grad()
    def probabilities(self, case: ImageCase, support: None = None) -> Float[Tensor, "K D H W"]:
        """Sigmoid of each requested class, at the size of the case's images (D, C, H, W).

        Args:
            case: its classes are numbered from 1, in the order of the tasks' classes.
            support: without effect.

        Raises:
            ConfigError: a requested class that the network does not have.
        """
        n_classes = sum(self.sizes)
        if not 1 <= min(case.classes) <= max(case.classes) <= n_classes:
            raise ConfigError(
                f"classes {', '.join(map(str, case.classes))} were requested; the network has classes 1 to {n_classes}."
            )
        chosen = [value - 1 for value in case.classes]

        def segment(image: Tensor) -> Tensor:
            logits = torch.cat(self.predictor(image).main, 1)
            return torch.stack([logits[:, channel] for channel in chosen]).sigmoid()

        return torch.cat(list(run_in_chunks(segment, self.config.images_per_pass, case.image)), 1)
