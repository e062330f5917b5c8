"""Our own method for partially annotated data sets: an averaged teacher labels the tasks that are not annotated."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dataloaders.samples import JointBatch, PartialBatch
from models.losses.cross_pseudo import ramp_up
from models.methods.averaged import Teacher
from models.methods.partial.base import LABELLED, STRONG, PartialConfig, PartialMethod
from models.methods.partial.routing import divided, joined, rows_by_task, shifted
from models.networks.upernet import TaskLogits
from util.errors import ConfigError
from util.schema import option


@dataclass(frozen=True)
class PartialTeacherConfig(PartialConfig):
    """Hyper-parameters of the averaged teacher. Not published: our own choice."""

    attention: bool = option(False, "architecture")  # between the maps of the tasks, as in PSSNet
    task_dropout: float = option(0.0, ge=0, lt=1)  # probability that an image's map of a task is 0, in training
    teacher_decay: float = option(0.99, ge=0, lt=1)  # of the averaged weights, per step; smaller in the beginning
    pseudo_weight: float = option(0.1, ge=0)  # of the loss on the teacher's masks
    ramp_up_steps: int = option(0, ge=0)  # steps over which that weight rises; 0: full from the beginning
    threshold: float = option(0.5, ge=0, le=1)  # probability above which a pixel belongs to a class
    # pixels count where the class or its absence is at least as probable; 0.5: all
    confidence: float = option(0.5, ge=0.5, le=1)


class PartialTeacher(PartialMethod):
    """The network learns, from strong views, the masks that its averaged teacher finds in weak ones; no stages.

    The masks are of the classes that an image's data set is not annotated for. The teacher predicts.

    Source: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017; weak and strong views as in
    Sohn et al., "FixMatch", NeurIPS 2020; network and losses as in PSSNet (Pattern Recognition 2024).

    Note: the heads of all tasks compute all strong views, since only the device knows which of a task's classes are
    not annotated.
    """

    Config: ClassVar[type] = PartialTeacherConfig
    config: PartialTeacherConfig
    needs = frozenset({"strong"})
    step_number: Tensor
    weight: Tensor

    def __init__(self, config: PartialTeacherConfig) -> None:
        super().__init__(config)
        self.teacher = Teacher(self.build_network("none"), self.network)
        self.register_buffer("step_number", torch.tensor(0))
        self.register_buffer("weight", torch.tensor(0.0), persistent=False)
        self._set_step(0)

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """Its name in tables."""
        return "Averaged teacher"

    @property
    def predictor(self) -> nn.Module:
        """The teacher."""
        return self.teacher

    def averaged(self) -> nn.Module | None:
        """Nothing: the teacher is an average already."""
        return None

    def forward(self, batch: JointBatch) -> dict[str, Tensor]:
        """The objective of a step.

        Returns:
            loss; dice_<task>, the loss of the main head of each task on its own images; pseudo, the loss on the
            teacher's masks before its weight; confidence, the share of pixels and classes that count in it.

        Raises:
            ConfigError: not as many strong views as annotated images.
        """
        labelled, strong = self.part(batch, LABELLED), self.part(batch, STRONG)
        if len(strong) != len(labelled) or strong.weak is None:
            raise ConfigError(
                f"{type(self).__name__}: {len(labelled)} annotated images and {len(strong)} strong views; expected as "
                "many of each data set, with their weak views."
            )
        n_tasks, n_images = len(self.sizes), len(labelled)
        own = rows_by_task(labelled.tasks, n_tasks)
        every = ((slice(0, n_images),),) * n_tasks
        target, confidence = self.target(strong, ~labelled.is_known)
        image = torch.cat([labelled.image, strong.image])
        found, later = divided(self.network(image, joined(own, shifted(every, n_images))), own)
        losses = self.supervised(found, labelled, own)
        loss = self.supervised(later, target, every)["loss"]
        losses["loss"] = losses["loss"] + self.weight * loss
        return losses | {"pseudo": loss.detach(), "confidence": confidence}

    @torch.no_grad()
    def target(self, strong: PartialBatch, is_unknown: Tensor) -> tuple[PartialBatch, Tensor]:
        """The teacher's masks of weak views, with the pixels that count; and the share of these.

        Args:
            strong: the strong views.
            is_unknown: (B, K) bool, the classes that each image's data set is not annotated for.
        """
        found: TaskLogits = self.teacher(strong.weak)
        probabilities = torch.cat(found.main, 1).sigmoid()
        is_sure = torch.maximum(probabilities, 1 - probabilities) >= self.config.confidence
        target = replace(
            strong, label=probabilities > self.config.threshold, is_known=is_unknown, valid=strong.valid & is_sure
        )
        return target, is_sure.float().mean()

    def after_step(self, step: int) -> None:
        """Counts the step, on which the weight depends, and moves the teacher."""
        self.step_number.fill_(step + 1)
        self._set_step(step + 1)
        self.teacher.follow(self.network, self.config.teacher_decay, step)

    def _set_step(self, number: int) -> None:
        self.weight.fill_(self.config.pseudo_weight * ramp_up(number, self.config.ramp_up_steps))

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Also restores what follows from the number of steps."""
        result = super().load_state_dict(state_dict, strict, assign)
        self._set_step(int(self.step_number))
        return result
