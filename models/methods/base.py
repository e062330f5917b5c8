"""The contract between the training loop, the evaluator and every method."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from dataloaders.images.labels import LabelStore
from dataloaders.protocol import DataFacts
from models.networks.similarity import Likeness
from models.training.optim import OptimConfig, Trainable
from util.errors import ConfigError


class Method(nn.Module, ABC):
    """A published training objective as one module: networks, peers, learnable losses, and how they predict.

    `parameters()`, `to()`, `state_dict()`, distributed wrapping and autocast then each apply to one object, once.
    All state kept between steps is stored in buffers, so that a resumed run continues exactly.
    """

    Config: ClassVar[type]  # frozen dataclass of hyper-parameters; its fields become configuration keys
    family: ClassVar[str]  # key of dataloaders.build.FAMILIES: the data it takes and how it is scored
    batch_type: ClassVar[type | None]  # the sample it trains on; None: nothing to train
    trains_on: ClassVar[Literal["given", "clean"]] = "given"  # clean: the upper bound of learning from noisy labels
    # what batches contain besides: "superpixels", "unlabelled" slices, or slices with "propagated" label maps
    needs: ClassVar[frozenset[str]] = frozenset()
    compares_scans: ClassVar[bool] = False  # True: takes whole support scans, and not the parts of a few-shot case
    knows_classes: ClassVar[bool] = False  # True: a few-shot method whose network segments without annotated scans
    has_unused_parameters: ClassVar[bool] = False  # True: in some steps some parameters get no gradient (slower DDP)

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """The method's name in tables and folders, from all configuration keys."""
        return str(settings["method"])

    @classmethod
    def derived(cls, facts: DataFacts | None) -> dict[str, Any]:
        """Defaults of hyper-parameters that follow from the data; facts: None where any data will do."""
        return {}

    @abstractmethod
    def forward(self, batch: Any) -> dict[str, Tensor]:
        """The objective of one step.

        One backward pass serves all optimisers. Terms that must not move some of the weights therefore use detached
        maps, or `models.networks.frozen.call_frozen`.

        Returns:
            loss: scalar with gradient, summed over all parts; all other entries: detached scalars, which are logged.
        """

    @abstractmethod
    def probabilities(self, case: Any, support: Any = None) -> Float[Tensor, "K D H W"]:
        """Probability of each requested class at every voxel of the case, in the case's own grid.

        Args:
            case: what to segment; `case.classes` are the K requested classes, without the background.
            support: what `encode_support` returned.

        Returns:
            Values in [0, 1]; classes may overlap.
        """

    def masks(self, probabilities: Float[Tensor, "K D H W"]) -> Bool[Tensor, "K D H W"]:
        """The method's rule from probabilities to masks; by default each class on its own, above 1/2."""
        return probabilities > 0.5

    def predict(self, case: Any, support: Any = None) -> Bool[Tensor, "K D H W"]:
        """One mask per requested class, in the case's own grid; arguments as of `probabilities`."""
        return self.masks(self.probabilities(case, support))

    def class_probabilities(
        self, image: Float[Tensor, "B C H W"], temperature: float = 1.0
    ) -> Float[Tensor, "B K H W"]:
        """Probability of every class of each image, with the background: softmax(logits / temperature).

        Raises:
            ConfigError: the method compares with a support set, or has no logits.
        """
        raise ConfigError(f"{type(self).__name__} has no class probabilities; choose a method of images with logits.")

    def inference_network(self) -> nn.Module:
        """The network that prediction rests on, from images (B, C, H, W) to one tensor, for export.

        Dense methods and those of several sources: logits whose softmax are the class probabilities. Methods of
        several tasks: logits of all their classes, for the sigmoid. Few-shot methods: the features of the encoder.

        Raises:
            ConfigError: the method has none.
        """
        raise ConfigError(f"{type(self).__name__} has no network of its own to be exported as ONNX.")

    def encode_support(self, support: Any) -> Any:
        """Precomputes what all cases share of a support set; None for methods without support."""
        return None

    def encode_case(self, case: Any) -> Any:
        """The case with what `probabilities` and `likeness` both need of it; by default nothing is added."""
        return case

    def likeness(self, case: Any, support: Any) -> Likeness | None:
        """Whether a case looks like the support set; None: the method cannot tell. Arguments as of `probabilities`."""
        return None

    def optimisers(self, optim: OptimConfig) -> dict[str, Trainable]:
        """Which parameters are trained, and how: name -> parameters with their optimiser, schedule and warm-up.

        Args:
            optim: the run's settings. By default one optimiser with these updates all trainable parameters.
        """
        return {"main": Trainable([each for each in self.parameters() if each.requires_grad], optim)}

    def learning_rate_factor(self, name: str) -> float:
        """The method's own factor on the learning rate of the optimiser with this name."""
        return 1.0

    def averaged(self) -> nn.Module | None:
        """The module whose weights the run averages (`ema`): the method itself or one of its parts; None: nothing."""
        return self

    def require_no_rounds(self, labels: LabelStore | None) -> None:
        """Called before a run without rounds (`round_steps=0`), of which `after_round` is never called.

        Raises:
            ConfigError: the method needs rounds to train on these labels.
        """

    def before_training(self, labels: LabelStore | None) -> None:
        """Called once, before the first step of a run that is not resumed; labels: None for few-shot."""

    def after_step(self, step: int) -> None:
        """Called after each optimiser step, with its number from 0: teachers, ramps, learning-rate rules."""

    def after_round(self, labels: LabelStore | None) -> dict[str, float]:
        """Called after each round of steps (an "epoch"), on the first process only; returns values to log.

        May replace labels and change buffers, but not parameters: other processes receive only buffers.
        """
        return {}


def requested_classes(found: Float[Tensor, "D N H W"], classes: Sequence[int], key: str) -> Float[Tensor, "K D H W"]:
    """The requested ones of the probabilities of all N classes, the background included.

    Args:
        found: of D images.
        classes: values of the K requested classes.
        key: of the configuration, which says how many classes the network has.

    Raises:
        ConfigError: a requested class that the network does not have.
    """
    n_classes = found.shape[1]
    if max(classes) >= n_classes:
        raise ConfigError(
            f"{key}={n_classes}: class {max(classes)} was requested; expected a network trained with "
            f"{key}={max(classes) + 1}."
        )
    return torch.stack([found[:, value] for value in classes])


class Untrained(Method):
    """A method with nothing to train, which only predicts."""

    batch_type = None

    def forward(self, batch: object) -> dict[str, Tensor]:
        """Not available.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(f"{type(self).__name__} has nothing to train; run `frugalseg validate` with it.")


def exclusive_masks(probabilities: Float[Tensor, "K D H W"]) -> Bool[Tensor, "K D H W"]:
    """Masks of the most probable class; the background, with what remains to 1, wins where it is at least as probable.

    For classes that exclude each other.
    """
    value, place = probabilities.max(0)  # (D, H, W)
    place = torch.where(value > 1 - probabilities.sum(0), place, -1)
    return torch.stack([place == number for number in range(len(probabilities))])
