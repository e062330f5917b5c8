"""Learning from several sources, few of whose images are labelled, for a domain never seen.

A step has a labelled batch and, for all methods but the baseline, two unlabelled ones, which CutMix joins to one.
"""

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from dataloaders.protocol import DataFacts
from dataloaders.samples import N_UNIFORM, ImageCase, JointBatch, SourceBatch
from dataloaders.transforms.cutmix import CutMixConfig, draw_masks, mix
from dataloaders.transforms.fourier import FourierConfig, mix_amplitudes
from models.losses.cross_pseudo import (
    CrossConfig,
    Views,
    batch_dice_loss,
    cross_loss,
    ramp_up,
    teacher_map,
)
from models.methods.base import Method, exclusive_masks
from models.networks.deeplab import SegmentorConfig, build_segmentor
from models.networks.passes import run_in_chunks
from util.errors import ConfigError
from util.schema import option

LABELLED, FIRST, SECOND = "labelled", "unlabelled_1", "unlabelled_2"  # the parts of a batch


@dataclass(frozen=True)
class SourcesConfig:
    """Hyper-parameters that all methods of this family share.

    Source: CACPS (AAAI 2022), section 4.2 and released code.
    """

    network: SegmentorConfig = option(SegmentorConfig, "architecture")
    fourier: FourierConfig = field(default_factory=FourierConfig)
    cutmix: CutMixConfig = field(default_factory=CutMixConfig)
    cross_weight: float = 3.0  # of the terms on unlabelled images
    ramp_up_steps: int = 0  # steps over which that weight rises; 0: full from the beginning
    supervised_steps: int = 0  # steps at the beginning that see labelled images only
    norm_group: int = 0  # images whose statistics batch norm shares in training; 0: those of a pass
    images_per_pass: int = option(16, "practical")  # images segmented together in prediction
    legacy_threshold: bool = option(
        False, "practical"
    )  # masks where a class exceeds 1/2, as released; else the largest

    def __post_init__(self) -> None:
        least = {"cross_weight": 0, "ramp_up_steps": 0, "supervised_steps": 0, "norm_group": 0, "images_per_pass": 1}
        for name, smallest in least.items():
            if getattr(self, name) < smallest:
                raise ConfigError(f"{name}={getattr(self, name)}: expected {smallest} or more.")
        if 1 + 4 * self.cutmix.n_boxes > N_UNIFORM:
            raise ConfigError(f"cutmix.n_boxes={self.cutmix.n_boxes}: expected at most {(N_UNIFORM - 1) // 4}.")


class SourcesMethod(Method):
    """Networks that are trained on labelled images by Dice loss; subclasses add terms on unlabelled ones."""

    Config: ClassVar[type] = SourcesConfig
    family = "sources"
    batch_type = JointBatch
    n_networks: ClassVar[int] = 2
    step_number: Tensor

    def __init__(self, config: SourcesConfig) -> None:
        super().__init__()
        self.config = config
        self.networks = nn.ModuleList(build_segmentor(config.network) for _ in range(self.n_networks))
        self.register_buffer("step_number", torch.tensor(0))
        self._step = 0  # the same on the host, so that no step waits for the device

    @classmethod
    def derived(cls, facts: DataFacts | None) -> dict[str, Any]:
        """A network for the channels and classes of the data."""
        return {} if facts is None else {"network": {"in_channels": facts.channels, "n_classes": facts.n_classes}}

    @property
    def predictors(self) -> Iterable[nn.Module]:
        """The networks whose probabilities are averaged in prediction."""
        return self.networks

    @abstractmethod
    def unlabelled_terms(self, first: SourceBatch, second: SourceBatch) -> dict[str, Tensor]:
        """The terms on unlabelled images, before their weight; {} if there are none."""

    def forward(self, batch: JointBatch) -> dict[str, Tensor]:
        """The objective of a step.

        Returns:
            loss; supervised, the sum of the networks' Dice losses; the terms on unlabelled images.
        """
        labelled = batch[LABELLED]
        terms = [batch_dice_loss(self.run(net, labelled.image), labelled.label).sum() for net in self.networks]
        supervised = torch.stack(terms).sum()
        loss, logged = supervised, {"supervised": supervised.detach()}
        if FIRST in batch.parts and self._step >= self.config.supervised_steps:
            weight = self.config.cross_weight * ramp_up(
                self._step - self.config.supervised_steps, self.config.ramp_up_steps
            )
            found = self.unlabelled_terms(batch[FIRST], batch[SECOND])
            loss = loss + weight * torch.stack(list(found.values())).sum()
            logged |= {name: term.detach() for name, term in found.items()}
        return {"loss": loss, **logged}

    def run(self, network: nn.Module, image: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
        """Logits in float32, of groups of `norm_group` images in training."""
        size = self.config.norm_group
        groups = image.split(size) if size and network.training else (image,)
        return torch.cat([network(each) for each in groups]).float()

    def augment(self, batch: SourceBatch) -> Float[Tensor, "B C H W"]:
        """The images with amplitudes of their partners."""
        share = self.config.fourier.shares(batch.uniform[:, 0])
        with torch.autocast(batch.image.device.type, enabled=False):
            return mix_amplitudes(batch.image.float(), batch.partner.float(), share, self.config.fourier)

    def boxes(self, batch: SourceBatch) -> Float[Tensor, "B 1 H W"]:
        """A CutMix mask for each image."""
        n_boxes, shape = self.config.cutmix.n_boxes, batch.image.shape[-2:]
        uniform = batch.uniform[:, 1 : 1 + 4 * n_boxes].unflatten(1, (n_boxes, 4))
        return draw_masks(uniform, (shape[0], shape[1]), self.config.cutmix)

    def after_step(self, step: int) -> None:
        """Counts the steps, on which ramp and supervised steps depend."""
        self.step_number.fill_(step + 1)
        self._step = step + 1

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Also restores the number of steps on the host."""
        result = super().load_state_dict(state_dict, strict, assign)
        self._step = int(self.step_number)
        return result

    @torch.no_grad()
    def class_probabilities(
        self, image: Float[Tensor, "B C H W"], temperature: float = 1.0
    ) -> Float[Tensor, "B K H W"]:
        """Mean over the networks of softmax(logits / temperature), with the background."""
        size = self.config.images_per_pass
        found = [torch.cat(list(run_in_chunks(network, size, image))).float() for network in self.predictors]
        return torch.stack([(each / temperature).softmax(1) for each in found]).mean(0)

    def probabilities(self, case: ImageCase, support: None = None) -> Float[Tensor, "K D H W"]:
        """Mean softmax probabilities of the requested classes."""
        found = self.class_probabilities(case.image)
        return torch.stack([found[:, value] for value in case.classes])

    def masks(self, probabilities: Float[Tensor, "K D H W"]) -> Bool[Tensor, "K D H W"]:
        """The most probable class; with `legacy_threshold` each class above 1/2, as released."""
        return super().masks(probabilities) if self.config.legacy_threshold else exclusive_masks(probabilities)


class LabelledOnly(SourcesMethod):
    """The yardstick: two networks, whose predictions are averaged, on labelled images alone."""

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """Its name in tables."""
        return "Labelled only"

    def unlabelled_terms(self, first: SourceBatch, second: SourceBatch) -> dict[str, Tensor]:
        """None."""
        return {"unlabelled": first.image.new_zeros(())}


@dataclass(frozen=True)
class CACPSConfig(SourcesConfig):
    """Hyper-parameters of CACPS."""

    cross: CrossConfig = field(default_factory=CrossConfig)


class CACPS(SourcesMethod):
    """Confidence-aware cross pseudo supervision: two networks teach each other where Fourier mixing changes nothing.

    Source: Yao, Hu and Li, "Enhancing pseudo label quality for semi-supervised domain-generalized medical image
    segmentation", AAAI 2022.
    """

    Config: ClassVar[type] = CACPSConfig
    config: CACPSConfig

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """Its name in the paper."""
        return "CACPS"

    def unlabelled_terms(self, first: SourceBatch, second: SourceBatch) -> dict[str, Tensor]:
        """The loss of both directions, on CutMix of the two batches."""
        form, boxes = self.config.cross, self.boxes(first)
        augmented = [self.augment(each) if form.use_augmented else each.image for each in (first, second)]
        plain_mix, augmented_mix = mix(first.image, second.image, boxes), mix(*augmented, boxes)
        labels, views = [], []
        for network in self.networks:
            labels.append(self._label(network, (first.image, second.image), augmented, boxes))
            plain = self.run(network, plain_mix)
            views.append(Views(plain, self.run(network, augmented_mix) if form.use_augmented else plain))
        return {"cross": cross_loss(views[0], views[1], (labels[0], labels[1]), form)}

    @torch.no_grad()
    def _label(
        self, network: nn.Module, plain: tuple[Tensor, Tensor], augmented: list[Tensor], boxes: Tensor
    ) -> Tensor:
        """(B, H, W) pseudo labels of the mixed images, from predictions on the whole ones."""
        maps = []
        for image, copy in zip(plain, augmented, strict=True):
            logits = self.run(network, image)
            other = self.run(network, copy) if self.config.cross.use_augmented else logits
            maps.append(teacher_map(Views(logits, other), self.config.cross))
        return mix(maps[0], maps[1], boxes).argmax(1)


class CPS(CACPS):
    """Cross pseudo supervision, without confidence and Fourier mixing.

    Source: Chen et al., "Semi-supervised semantic segmentation with cross pseudo supervision", CVPR 2021, with CutMix.
    """

    def __init__(self, config: CACPSConfig) -> None:
        plain = CrossConfig(weighting="none", use_augmented=False)
        super().__init__(CACPSConfig(**{**vars(config), "cross": plain}))

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """Its name in the paper."""
        return "CPS"


@dataclass(frozen=True)
class MeanTeacherConfig(SourcesConfig):
    """Hyper-parameters of the mean teacher."""

    teacher_decay: float = 0.99  # of the averaged weights, per step
    target: Literal["probabilities", "labels"] = "probabilities"  # mean squared error, or cross-entropy

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.teacher_decay < 1:
            raise ConfigError(f"teacher_decay={self.teacher_decay}: expected a number in [0, 1).")


class MeanTeacher(SourcesMethod):
    """A network that agrees with the average of its own past weights, which predicts.

    Source: Tarvainen and Valpola, "Mean teachers are better role models", NeurIPS 2017, with CutMix as in French et
    al., BMVC 2020.
    """

    Config: ClassVar[type] = MeanTeacherConfig
    config: MeanTeacherConfig
    n_networks = 1

    def __init__(self, config: MeanTeacherConfig) -> None:
        super().__init__(config)
        self.teacher = build_segmentor(config.network).requires_grad_(False)
        self.teacher.load_state_dict(self.networks[0].state_dict())

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """Its name in the paper."""
        return "Mean teacher"

    @property
    def predictors(self) -> Iterable[nn.Module]:
        """The teacher."""
        return [self.teacher]

    def averaged(self) -> nn.Module | None:
        """The student; the teacher is an average already."""
        return self.networks[0]

    def unlabelled_terms(self, first: SourceBatch, second: SourceBatch) -> dict[str, Tensor]:
        """The difference between student and teacher on CutMix of the two batches."""
        boxes = self.boxes(first)
        with torch.no_grad():
            maps = [self.run(self.teacher, each.image).softmax(1) for each in (first, second)]
        target = mix(maps[0], maps[1], boxes)
        logits = self.run(self.networks[0], mix(first.image, second.image, boxes))
        if self.config.target == "labels":
            return {"consistency": F.cross_entropy(logits, target.argmax(1))}
        return {"consistency": (logits.softmax(1) - target).square().sum(1).mean()}

    def after_step(self, step: int) -> None:
        """Moves the teacher towards the student; faster in the beginning."""
        super().after_step(step)
        decay = min(self.config.teacher_decay, (1 + step) / (10 + step))
        parameters = [list(network.parameters()) for network in (self.teacher, self.networks[0])]
        get_ema_multi_avg_fn(decay)(parameters[0], [each.detach() for each in parameters[1]], step)  # type: ignore[arg-type]
