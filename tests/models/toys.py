"""Small methods that use the whole training contract, and their data: two networks, a teacher, several streams."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Dataset

from data.check.training import CHECKS
from dataloaders import catalog
from dataloaders.build import FAMILIES, Family
from dataloaders.description import DatasetSpec
from dataloaders.ordering import JointDataset, LoaderOptions, Part, step_loader
from dataloaders.protocol import DataConfig, TrainingData
from dataloaders.samples import DenseBatch, ImageCase, JointBatch, UnlabelledBatch
from dataloaders.scans.normalise import Normalisation
from models import METHODS
from models.evaluation import EVALUATIONS, Evaluation
from models.methods.base import Method, exclusive_masks
from models.networks.frozen import call_frozen
from models.training.optim import OptimConfig, Trainable
from util.results.layout import GENERIC

SIZE = 16
N_IMAGES = {"labelled": 5, "unlabelled_1": 12, "unlabelled_2": 12}
FIRST_UNLABELLED = 2  # the first step that sees unlabelled images


@dataclass(frozen=True)
class ToyConfig:
    """Hyper-parameters of all toys."""

    weight: float = 1.0  # of the terms on unlabelled images


def convolutions(*channels: int) -> nn.Sequential:
    layers = [nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(channels)]
    return nn.Sequential(*(each for layer in layers for each in (layer, nn.LeakyReLU(0.2))))[:-1]


class Toy(Method):
    """Segments images into two classes with the network that `predictor` returns."""

    Config = ToyConfig
    family = "toy"
    batch_type = JointBatch

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config

    def predictor(self) -> nn.Module:
        raise NotImplementedError

    @torch.no_grad()
    def probabilities(self, case: ImageCase, support: None = None) -> Tensor:
        found = self.predictor()(case.image).float().softmax(1)
        return torch.stack([found[:, value] for value in case.classes])

    def masks(self, probabilities: Tensor) -> Tensor:
        return exclusive_masks(probabilities)


class ToyAdversarial(Toy):
    """A segmentor, and a discriminator that tells its maps of labelled images from those of unlabelled ones."""

    has_unused_parameters = True  # the discriminator, as long as there are no unlabelled images
    discriminator_optim = OptimConfig(
        "adam", 2e-3, betas=(0.9, 0.99), weight_decay=0.0, schedule="polynomial", warmup_steps=4, warmup_factor=0.1
    )

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.segmentor, self.discriminator = convolutions(1, 4, 2), convolutions(1, 4, 1)

    def predictor(self) -> nn.Module:
        return self.segmentor

    def forward(self, batch: JointBatch) -> dict[str, Tensor]:
        labelled = batch["labelled"]
        logits = self.segmentor(labelled.image).float()
        terms = {"segmentation": F.cross_entropy(logits, labelled.label)}
        if "unlabelled_1" in batch.parts:
            maps = self.segmentor(batch["unlabelled_1"].image).float().softmax(1)[:, 1:]
            terms["adversarial"] = F.softplus(-call_frozen(self.discriminator, maps).float()).mean()
            source = self.discriminator(logits.softmax(1)[:, 1:].detach()).float()
            other = self.discriminator(maps.detach()).float()
            terms["discriminator"] = 0.5 * (F.softplus(-source).mean() + F.softplus(other).mean())
        return {"loss": sum_of(terms), **{name: term.detach() for name, term in terms.items()}}

    def optimisers(self, optim: OptimConfig) -> dict[str, Trainable]:
        return {
            "main": Trainable(list(self.segmentor.parameters()), optim),
            "discriminator": Trainable(list(self.discriminator.parameters()), self.discriminator_optim),
        }


class ToyTeacher(Toy):
    """A student that agrees with its averaged teacher on two streams of unlabelled images; the teacher predicts."""

    decay = 0.9

    def __init__(self, config: ToyConfig) -> None:
        super().__init__(config)
        self.student, self.teacher = convolutions(1, 4, 2), convolutions(1, 4, 2).requires_grad_(False)
        self.teacher.load_state_dict(self.student.state_dict())

    def predictor(self) -> nn.Module:
        return self.teacher

    def averaged(self) -> nn.Module | None:
        return None

    def forward(self, batch: JointBatch) -> dict[str, Tensor]:
        labelled = batch["labelled"]
        terms = {"segmentation": F.cross_entropy(self.student(labelled.image).float(), labelled.label)}
        for name in ("unlabelled_1", "unlabelled_2"):
            image = batch[name].image
            with torch.no_grad():
                target = self.teacher(image).float().softmax(1)
            terms[f"consistency_{name[-1]}"] = F.mse_loss(self.student(image).float().softmax(1), target)
        return {"loss": sum_of(terms), **{name: term.detach() for name, term in terms.items()}}

    def after_step(self, step: int) -> None:
        parameters = [list(network.parameters()) for network in (self.teacher, self.student)]
        get_ema_multi_avg_fn(self.decay)(parameters[0], [each.detach() for each in parameters[1]], step)  # type: ignore[arg-type]


class ToyStudentAverage(ToyTeacher):
    """The same, and the run averages the student."""

    def averaged(self) -> nn.Module:
        return self.student


TOYS = {
    "toy_adversarial": ToyAdversarial,
    "toy_teacher": ToyTeacher,
    "toy_student_average": ToyStudentAverage,
}


def sum_of(terms: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(terms.values())).sum()


class ToyImages(Dataset):
    """Item k is one part of the batch of step k: squares of different places, with noise of the part's own stream."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def __getitem__(self, step: int) -> DenseBatch | UnlabelledBatch:
        images, labels = [], []
        for number in self.part.numbers(step):
            place = self.part.item(number) % 8
            label = np.zeros((SIZE, SIZE), np.int64)
            label[place : place + 8, 4:12] = 1
            labels.append(torch.from_numpy(label))
            noise = self.part.generator("augmentation", number).normal(0, 0.3, label.shape)
            images.append(torch.from_numpy((label + noise).astype(np.float32)))
        image = torch.stack(images)[:, None]
        return DenseBatch(image, torch.stack(labels)) if self.part.name == "labelled" else UnlabelledBatch(image)


class LateJointDataset(JointDataset):
    """Leaves out the unlabelled parts of the first steps."""

    def __getitem__(self, step: int) -> JointBatch:
        batch = super().__getitem__(step)
        return batch if step >= FIRST_UNLABELLED else JointBatch({"labelled": batch["labelled"]})


@dataclass(frozen=True)
class ToyDataConfig(DataConfig):
    """The keys of the toys' data."""

    dataset: str = "JSRT"

    @property
    def spec(self) -> DatasetSpec:
        return catalog.dataset(self.dataset, "images")

    def derived(self, values: Mapping[str, Any]) -> dict[str, Any]:
        return {}

    def summary(self, trains_on: str) -> str:
        return "squares"


@dataclass(frozen=True)
class ToyData(TrainingData):
    """Labelled images, and twice as many unlabelled ones in each of two streams."""

    config: ToyDataConfig
    is_late: bool
    labels = None
    preparation = None
    nbytes = 0

    def fit_normalisation(self) -> Normalisation:
        return Normalisation()

    def joint_dataset(self, seed: int, batch_size: int, options: LoaderOptions) -> JointDataset:
        parts = {
            name: Part(np.arange(n), batch_size if name == "labelled" else 2 * batch_size, seed, options.plan, name)
            for name, n in N_IMAGES.items()
        }
        kind = LateJointDataset if self.is_late else JointDataset
        return kind({name: ToyImages(part) for name, part in parts.items()})

    def loader(
        self, normalisation: Normalisation, seed: int, batch_size: int, steps: range, options: LoaderOptions
    ) -> DataLoader:
        return step_loader(self.joint_dataset(seed, batch_size, options), steps, options)

    def contents(self) -> dict[str, str]:
        return {}

    def trained_cases(self) -> dict[str, str]:
        return {}

    def tested_cases(self) -> dict[str, str]:
        return {}

    def describe(self) -> str:
        return "toys"


class ToyEvaluation(Evaluation):
    """Scores nothing."""

    layout = GENERIC

    def curve(self, method: Method, normalisation: Normalisation) -> dict[str, float]:
        return {}

    def score(self, candidates: Any, out: Any, options: Any) -> Any:
        raise NotImplementedError


def install(name: str, patch: Any) -> None:
    """Makes a toy and its family known; `patch` has `setitem`, as pytest's monkeypatch."""
    is_late = TOYS[name].has_unused_parameters
    patch.setitem(METHODS, name, TOYS[name])
    patch.setitem(FAMILIES, "toy", Family(ToyDataConfig, lambda config, *_: ToyData(config, is_late)))
    patch.setitem(EVALUATIONS, "toy", ToyEvaluation)
    patch.setitem(CHECKS, "toy", lambda data: None)


class ForGood:
    """As monkeypatch, in a process of its own."""

    setitem = staticmethod(dict.__setitem__)


def build_toy(name: str) -> Toy:
    return TOYS[name](ToyConfig())


def batches(name: str, n_steps: int, batch_size: int = 2, seed: int = 0) -> Iterator[JointBatch]:
    """The batches of a toy's first steps."""
    data = ToyData(ToyDataConfig(), TOYS[name].has_unused_parameters)
    dataset = data.joint_dataset(seed, batch_size, LoaderOptions())
    return (dataset[step] for step in range(n_steps))
