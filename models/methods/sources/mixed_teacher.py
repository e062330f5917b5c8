"""Our own method for several sources: an averaged teacher and mixtures of looks, places and feature statistics."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from dataloaders.samples import JointBatch, SourceBatch
from dataloaders.transforms.appearance import AppearanceConfig, change_appearance
from dataloaders.transforms.cutmix import mix
from dataloaders.transforms.fourier import FourierConfig
from models.losses.cross_pseudo import Views, disagreement
from models.methods.averaged import Teacher
from models.methods.sources.base import (
    APPEARANCE,
    FIRST,
    LABELLED,
    SECOND,
    STYLES,
    SemiConfig,
    SemiMethod,
    fourier_mix,
    label_of,
)
from models.networks.deeplab import build_segmentor
from models.networks.mixstyle import MixStyle, MixStyleConfig
from util.schema import option


@dataclass(frozen=True)
class MixedTeacherConfig(SemiConfig):
    """The parts of the method, each of which can be switched off. Not published: our own choice."""

    unlabelled_weight: float = option(1.0, ge=0)  # of the terms on unlabelled images
    teacher: Literal["averaged", "student"] = option("averaged", "architecture")  # student: it teaches itself
    teacher_decay: float = option(0.99, ge=0, lt=1)  # of the averaged weights, per step; smaller in the beginning
    fourier: FourierConfig = field(default_factory=FourierConfig)  # amplitudes of a partner; off with mode=none
    appearance: AppearanceConfig = field(default_factory=AppearanceConfig)  # off with probability=0
    cutmix_from: Literal["labelled", "unlabelled", "none"] = "unlabelled"  # whose boxes are put into unlabelled images
    mixstyle: MixStyleConfig = field(default_factory=MixStyleConfig)  # off with passes=none
    confidence: Literal["kl", "threshold", "none"] = "kl"  # weight of a pixel, see `MixedTeacher`
    threshold: float = option(0.95, ge=0, le=1)  # of the largest probability, for confidence=threshold
    supervised_augmented: bool = True  # the supervised loss also sees strong views of the labelled images


class Target(NamedTuple):
    """What the student is to find at each pixel, and how much that counts."""

    label: Int[Tensor, "B H W"]
    confidence: Float[Tensor, "B H W"]


class MixedTeacher(SemiMethod):
    """A student learns, from strong views with pasted boxes, what its averaged teacher sees in plain images.

    Made of these parts:

    - the teacher is the average of the student's past weights (Tarvainen and Valpola, NeurIPS 2017) and predicts;
    - the student's view is strong (FixMatch, Sohn et al., NeurIPS 2020): low-frequency amplitudes of another slice
      (CACPS, AAAI 2022), then random gain, gamma, blur and noise;
    - CutMix pastes boxes of other unlabelled images with their pseudo labels (`cutmix_from=labelled`: of labelled
      images with their true labels, as bidirectional copy-paste, Bai et al., CVPR 2023);
    - each pixel's cross-entropy is weighted by exp(-KL) of the teacher's predictions for the Fourier-augmented and the
      plain image, whose mean gives the label (CACPS, section 3.3); or counts where the teacher's largest probability
      for the plain image exceeds a threshold (FixMatch);
    - MixStyle (Zhou et al., ICLR 2021) in the teacher's and the supervised passes;
    - the supervised Dice loss is the mean of those on labelled images as they are and on their strong views.

    With all of them off, it is plain self-training: one network learns its own present labels of the same images (Lee,
    "Pseudo-label", 2013).

    Note: the averaged teacher is in evaluation mode, see `Teacher`; a student that teaches itself in training mode.
    """

    Config: ClassVar[type] = MixedTeacherConfig
    config: MixedTeacherConfig
    n_networks = 1

    def __init__(self, config: MixedTeacherConfig) -> None:
        super().__init__(config)
        self.teacher: Teacher | None = None
        if config.teacher == "averaged":
            self.teacher = Teacher(build_segmentor(config.network), self.networks[0])
        self.mixers: dict[str, MixStyle] = {}
        styles = config.mixstyle
        student_mixes = styles.passes in ("both", "supervised") or (styles.passes == "teacher" and not self.teacher)
        if student_mixes:
            self.mixers["student"] = MixStyle(self.networks[0], styles.stages)
        if self.teacher is not None and styles.passes in ("both", "teacher"):
            self.mixers["teacher"] = MixStyle(self.teacher.network, styles.stages)

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """Its name in tables."""
        return "Mixed teacher"

    @property
    def predictors(self) -> Iterable[nn.Module]:
        """The averaged teacher; the student if there is none."""
        return self.networks if self.teacher is None else [self.teacher]

    def averaged(self) -> nn.Module | None:
        """Nothing if the teacher is an average already."""
        return self if self.teacher is None else None

    def call(self, network: nn.Module, image: Tensor, share: Tensor | None) -> Tensor:
        """Logits of one group of images, whose feature statistics are mixed with these shares of their own."""
        if share is None:
            return network(image)
        with self.mixers["teacher" if network is self.teacher else "student"].mixing(share):
            return network(image)

    def strong_view(self, batch: SourceBatch) -> Float[Tensor, "B C H W"]:
        """Images with another source's amplitudes and a random appearance."""
        image = fourier_mix(batch, self.config.fourier)
        with torch.autocast(image.device.type, enabled=False):
            return change_appearance(image.float(), batch.uniform[:, APPEARANCE], self.config.appearance)

    def supervised_loss(self, labelled: SourceBatch) -> Float[Tensor, ""]:
        """Dice loss on the images, or the mean of those on the images and on their strong views."""
        images = [labelled.image]
        if self.config.supervised_augmented:
            images.append(self.strong_view(labelled))
        found = self.run(self.networks[0], images, self._shares(labelled.uniform, len(images), "supervised"))
        return torch.stack([self.dice_loss(logits, label_of(labelled)) for logits in found]).mean()

    def unlabelled_loss(self, batch: JointBatch) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """Cross-entropy of the student's strong views and the targets, weighted by confidence."""
        unlabelled = _joined(batch[FIRST], batch[SECOND])
        target, image = self.target(unlabelled), self.strong_view(unlabelled)
        confidence = target.confidence.mean()
        if self.config.cutmix_from != "none":
            image, target = self._pasted(unlabelled, image, target, batch[LABELLED], len(batch[FIRST]))
        (logits,) = self.run(self.networks[0], [image])
        error = F.cross_entropy(logits, target.label, reduction="none")
        return (target.confidence * error).mean(), {"confidence": confidence}

    @torch.no_grad()
    def target(self, batch: SourceBatch) -> Target:
        """The teacher's labels of whole images, and their confidence."""
        images = [batch.image]
        if self.config.confidence == "kl" and self.config.fourier.mode != "none":
            images.append(fourier_mix(batch, self.config.fourier))
        teacher = self.networks[0] if self.teacher is None else self.teacher
        found = self.run(teacher, images, self._shares(batch.uniform, len(images), "teacher"))
        views = Views(found[0], found[-1])
        largest, label = (views.plain.softmax(1) + views.augmented.softmax(1)).max(1)
        if self.config.confidence == "kl":
            return Target(label, (-disagreement(views)).exp())
        is_sure = largest / 2 >= (self.config.threshold if self.config.confidence == "threshold" else 0)
        return Target(label, is_sure.to(largest.dtype))

    def _pasted(
        self, unlabelled: SourceBatch, image: Tensor, target: Target, labelled: SourceBatch, n_first: int
    ) -> tuple[Tensor, Target]:
        """Strong views and targets with boxes of labelled images, or of those of the other unlabelled part."""
        boxes = self.boxes(unlabelled)
        if self.config.cutmix_from == "labelled":
            order = torch.arange(len(image), device=image.device) % len(labelled)
            other, label = self.strong_view(labelled)[order], label_of(labelled)[order]
            donor = Target(label, torch.ones_like(target.confidence))
        else:
            other, donor = image.roll(n_first, 0), Target(*(each.roll(n_first, 0) for each in target))
        is_inside = boxes[:, 0] > 0
        pairs = zip(target, donor, strict=True)
        return mix(image, other, boxes), Target(*(torch.where(is_inside, new, old) for old, new in pairs))

    def _shares(
        self, uniform: Float[Tensor, "B N"], n_passes: int, kind: Literal["teacher", "supervised"]
    ) -> list[Tensor] | None:
        """Shares of an image's own feature statistics in each pass; None: these passes are not mixed."""
        styles = self.config.mixstyle
        if styles.passes not in ("both", kind) or styles.probability == 0:
            return None
        return [styles.shares(uniform[:, place]) for place in STYLES[:n_passes]]

    def after_step(self, step: int) -> None:
        """Counts the step and moves the teacher."""
        super().after_step(step)
        if self.teacher is not None:
            self.teacher.follow(self.networks[0], self.config.teacher_decay, step)


def _joined(*batches: SourceBatch) -> SourceBatch:
    """Unlabelled batches as one."""
    return SourceBatch(
        torch.cat([each.image for each in batches]),
        torch.cat([each.partner for each in batches]),
        torch.cat([each.uniform for each in batches]),
    )
