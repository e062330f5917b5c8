"""The mean teacher."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from dataloaders.samples import JointBatch
from dataloaders.transforms.cutmix import mix
from models.methods.averaged import Teacher
from models.methods.sources.base import FIRST, SECOND, SemiConfig, SemiMethod
from models.networks.deeplab import build_segmentor
from util.schema import option


@dataclass(frozen=True)
class MeanTeacherConfig(SemiConfig):
    """Hyper-parameters of the mean teacher."""

    teacher_decay: float = option(0.99, ge=0, lt=1)  # of the averaged weights, per step; smaller in the beginning
    target: Literal["probabilities", "labels"] = "probabilities"  # mean squared error, or cross-entropy


class MeanTeacher(SemiMethod):
    """A network that agrees with the average of its own past weights, which predicts.

    Source: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, with CutMix as in French et
    al., "Semi-supervised semantic segmentation needs strong, varied perturbations", BMVC 2020.

    Note: the teacher is in evaluation mode, see `Teacher`.
    """

    Config: ClassVar[type] = MeanTeacherConfig
    config: MeanTeacherConfig
    n_networks = 1

    def __init__(self, config: MeanTeacherConfig) -> None:
        super().__init__(config)
        self.teacher = Teacher(build_segmentor(config.network), self.networks[0])

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """Its name in the paper."""
        return "Mean teacher"

    @property
    def predictors(self) -> Iterable[nn.Module]:
        """The teacher."""
        return [self.teacher]

    def averaged(self) -> nn.Module | None:
        """Nothing: the teacher is an average already."""
        return None

    def unlabelled_loss(self, batch: JointBatch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The difference between student and teacher on CutMix of the two parts."""
        first, second, boxes = batch[FIRST].image, batch[SECOND].image, self.boxes(batch[FIRST])
        with torch.no_grad():
            maps = [each.softmax(1) for each in self.run(self.teacher, [first, second])]
            target = mix(maps[0], maps[1], boxes)
        (logits,) = self.run(self.networks[0], [mix(first, second, boxes)])
        if self.config.target == "labels":
            return F.cross_entropy(logits, target.argmax(1)), {}
        return (logits.softmax(1) - target).square().sum(1).mean(), {}

    def after_step(self, step: int) -> None:
        """Counts the step and moves the teacher."""
        super().after_step(step)
        self.teacher.follow(self.networks[0], self.config.teacher_decay, step)
