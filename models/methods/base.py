"""The contract between the training loop, the evaluator and every method."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from jaxtyping import Bool
from torch import Tensor, nn

from dataloaders.images.labels import LabelStore

Family = Literal["fewshot", "dense"]


class Method(nn.Module, ABC):
    """A published training objective as one module: networks, peers, learnable losses, and how they predict.

    `parameters()`, `to()`, `state_dict()`, distributed wrapping and autocast then each apply to one object, once.
    Whatever it counts or remembers between steps is a buffer, so that a resumed training goes on exactly.
    """

    Config: ClassVar[type]  # frozen dataclass of hyper-parameters; its fields become configuration keys
    family: ClassVar[Family]  # the data it takes and how it is scored: a support set and scans, or images
    batch_type: ClassVar[type | None]  # the sample it trains on; None: nothing to train
    players: ClassVar[tuple[str, ...]] = ("main",)  # one optimiser each
    trains_on: ClassVar[Literal["given", "clean"]] = "given"  # clean: the upper bound of learning from noisy labels
    needs_superpixels: ClassVar[bool] = False  # dense batches then carry their ids

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """The method's name in tables and folders, from all configuration keys."""
        return str(settings["method"])

    @abstractmethod
    def forward(self, batch: Any, player: str = "main") -> dict[str, Tensor]:
        """One player's objective on a batch: {"loss": scalar with gradient, others: detached scalars to be logged}."""

    @abstractmethod
    def predict(self, case: Any, support: Any) -> Bool[Tensor, "K D H W"]:
        """One mask per asked class in the case's own grid; `support` is what `encode_support` returned."""

    def encode_support(self, support: Any) -> Any:
        """Whatever of a support set can be computed once for all cases; None for methods that need no support."""
        return None

    def parameter_groups(self, player: str) -> list[dict[str, Any]]:
        """What the player's optimiser moves, as torch.optim takes it; a group with its own "lr" keeps it constant."""
        return [{"params": list(self.parameters())}]

    def learning_rate_factor(self) -> float:
        """What the method's own rule multiplies the run's learning rate with."""
        return 1.0

    def before_training(self, labels: LabelStore | None) -> None:
        """Called once, before the first step of a training that is not resumed; labels: None for few-shot."""

    def after_step(self, step: int) -> None:
        """Called after each optimiser step: moving averages, ramps, learning-rate rules."""

    def after_round(self, labels: LabelStore | None) -> dict[str, float]:
        """Called after each round of steps (an "epoch"); may replace labels; returns what is to be logged."""
        return {}
