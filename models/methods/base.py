"""The contract between the training loop, the evaluator and every method."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jaxtyping import Bool
from torch import Tensor, nn

from dataloaders.samples import EvalCase, SupportSet


class Method(nn.Module, ABC):
    """A published training objective as one module: networks, peers, learnable losses, and how they predict.

    `parameters()`, `to()`, `state_dict()`, distributed wrapping and autocast then each apply to one object, once.
    """

    Config: ClassVar[type]  # frozen dataclass of hyper-parameters; its fields become configuration keys
    batch_type: ClassVar[type | None]  # the sample it trains on; None: nothing to train
    players: ClassVar[tuple[str, ...]] = ("main",)  # one optimiser each

    @abstractmethod
    def forward(self, batch: Any, player: str = "main") -> dict[str, Tensor]:
        """One player's objective on a batch: {"loss": scalar with gradient, others: detached scalars to be logged}."""

    @abstractmethod
    def predict(self, case: EvalCase, support: Any) -> Bool[Tensor, "K D H W"]:
        """One mask per asked class in the case's own grid; `support` is what `encode_support` returned."""

    def encode_support(self, support: SupportSet) -> Any:
        """Whatever of a support set can be computed once for all cases; None for methods that need no support."""
        return None

    def player_parameters(self, player: str) -> list[nn.Parameter]:
        """The parameters that the player's optimiser moves."""
        return list(self.parameters())

    def after_step(self, step: int) -> None:
        """Called after each optimiser step: moving averages, forget rates, ramps."""
