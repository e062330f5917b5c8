"""Base class of methods with several networks: how they are built, count rounds, select pixels and predict."""

import logging
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from dataloaders.images.labels import LabelStore
from dataloaders.protocol import DataFacts
from dataloaders.samples import DenseBatch, ImageCase
from models.losses.selection import forget_rate
from models.methods.base import Method, exclusive_masks
from models.methods.rate_estimator import estimate_remember_rates
from models.networks.ensemble import as_one
from models.networks.passes import run_in_chunks
from models.networks.unet import UNetConfig, build_unet, fitting_unet
from util.errors import ConfigError
from util.schema import check_bounds, option

logger = logging.getLogger(__name__)

Logits = tuple[Float[Tensor, "B K H W"], ...]
Ids = Int[Tensor, "B H W"]  # of classes or superpixels
Rates = Float[Tensor, " K"]


@dataclass(frozen=True)
class SelectionConfig:
    """How many pixels are kept, and in which units they are selected."""

    # Share of correct labels per class, background first; None: measured against clean labels, or estimated without.
    remember: tuple[float, ...] | None = option(None, gt=0, le=1)
    estimate_after: int = option(10, ge=1)  # rounds before the estimate; until then no pixels are excluded
    warmup: int = option(5, ge=0)  # rounds over which the excluded share grows to 1 - remember
    level: Literal["pixel", "superpixel"] | None = None  # None: superpixel for spguided, else pixel

    def __post_init__(self) -> None:
        check_bounds(self, "selection.")


@dataclass(frozen=True)
class PeersConfig:
    """Hyper-parameters of co-teaching and of the tri-network."""

    unet: UNetConfig = option(UNetConfig, "architecture")  # each of the networks
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    predict_with: Literal["first", "mean"] = option("first", "practical")  # first: the reference
    images_per_pass: int = option(16, "practical", ge=1)  # images segmented together in prediction

    def __post_init__(self) -> None:
        check_bounds(self)


class Peers(Method):
    """Several independently initialised networks that select pixels for each other; one optimiser updates all.

    Note: in the reference a round 0 only measures; here training begins with round 1.
    """

    Config: ClassVar[type] = PeersConfig
    family = "dense"
    batch_type = DenseBatch
    n_networks: ClassVar[int] = 2
    name_in_tables: ClassVar[str]
    remember_rates: Float[Tensor, " K"]
    round_number: Int[Tensor, ""]

    def __init__(self, config: PeersConfig) -> None:
        super().__init__()
        self.config = config
        self.n_classes = config.unet.n_classes
        _check_selection(config.selection, self.n_classes, "superpixels" in self.needs)
        self.networks = nn.ModuleList(build_unet(config.unet) for _ in range(self.n_networks))
        # In double precision, so that a share of a number of pixels is rounded as written.
        self.register_buffer("remember_rates", torch.ones(self.n_classes, dtype=torch.float64))
        self.register_buffer("round_number", torch.tensor(1))

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """Its name in the paper."""
        return cls.name_in_tables

    @classmethod
    def derived(cls, facts: DataFacts | None) -> dict[str, Any]:
        """A network that fits the images."""
        return {} if facts is None else {"unet": fitting_unet(facts.channels, facts.n_classes, facts.shape)}

    @abstractmethod
    def objective(self, logits: Logits, label: Ids, superpixel: Ids | None, forget: Rates) -> dict[str, Tensor]:
        """The objective from the networks' logits: {"loss": scalar, others: detached scalars}."""

    def forward(self, batch: DenseBatch) -> dict[str, Tensor]:
        """The objective on a batch.

        Returns:
            loss; ce, the first network's plain cross-entropy; kept_background and kept_foreground, the shares of
            pixels kept; and, if the networks share a joint loss, gap: its mean over the excluded pixels minus that
            over the kept ones.
        """
        logits = tuple(network(batch.image) for network in self.networks)
        with torch.autocast(batch.image.device.type, enabled=False):
            single = tuple(each.float() for each in logits)
            return self.objective(single, batch.label, batch.superpixel, self.forget_rates())

    def forget_rates(self) -> Float[Tensor, " K"]:
        """Share of each class's pixels to exclude in the current round."""
        return forget_rate(self.round_number, self.remember_rates, self.config.selection.warmup)

    def before_training(self, labels: LabelStore | None) -> None:
        """Takes the remember rates from the configuration, or measures them; logs which.

        Without clean labels they are estimated after `selection.estimate_after` rounds.

        Raises:
            ConfigError: there are neither rates nor labels.
        """
        given = self.config.selection.remember
        if given is not None:
            self._set_remember_rates(torch.tensor(given, dtype=torch.float64), "given by selection.remember")
        elif labels is None:
            raise ConfigError(
                "selection.remember=None: there are no training labels from which the share of correct labels could be "
                "measured or estimated. Give it per class, background first, such as selection.remember=[0.98,0.93]; "
                "for simulated noise see models.losses.selection.approximate_rates(alpha, beta, foreground_share)."
            )
        elif (rates := labels.clean_rates()) is not None:
            self._set_remember_rates(rates, "measured against the clean labels")
        else:
            logger.info(
                "remember rates: unknown, there are no clean labels. They are estimated after round %d; until then no "
                "pixels are excluded.",
                self.config.selection.estimate_after,
            )

    def require_no_rounds(self, labels: LabelStore | None) -> None:
        """Refuses a run in which the remember rates would be estimated after a round that never ends.

        Raises:
            ConfigError: the rates are neither given nor can be measured.
        """
        if self.awaits_rates(labels):
            raise ConfigError(
                f"round_steps=0: without rounds the remember rates are never estimated (selection.estimate_after="
                f"{self.config.selection.estimate_after} rounds), and no pixels excluded. Set round_steps to the steps "
                "of one pass over the training images, or give the rates, such as selection.remember=[0.98,0.93]."
            )

    def _set_remember_rates(self, rates: Rates, source: str) -> None:
        self.remember_rates.copy_(rates)
        values = ", ".join(f"{rate:.4f}" for rate in self.remember_rates.tolist())
        logger.info("remember rates per class (background first): %s; %s", values, source)

    def awaits_rates(self, labels: LabelStore | None) -> bool:
        """Whether the remember rates are to be estimated at the end of this round or of a later one."""
        selection = self.config.selection
        is_unknown = selection.remember is None and labels is not None and labels.clean is None
        return is_unknown and int(self.round_number) <= selection.estimate_after

    def after_round(self, labels: LabelStore | None) -> dict[str, float]:
        """Starts the next round; returns the excluded share per class of the one that ends."""
        logged = {f"forget_{value}": rate for value, rate in enumerate(self.forget_rates().tolist())}
        number = int(self.round_number)
        if labels is not None and self.awaits_rates(labels) and number == self.config.selection.estimate_after:
            logged |= self._estimate_rates(labels)
        self.round_number.add_(1)
        return logged

    def _estimate_rates(self, labels: LabelStore) -> dict[str, float]:
        was_training = self.training
        self.eval()
        rates = estimate_remember_rates(
            lambda image: self.mean_probability(image, self.networks),
            *(labels, self.n_classes, self.remember_rates.device),
        )
        self.train(was_training)
        self._set_remember_rates(rates, f"estimated after round {self.config.selection.estimate_after}")
        return {f"remember_{value}": rate for value, rate in enumerate(rates.tolist())}

    def probabilities(self, case: ImageCase, support: None = None) -> Float[Tensor, "K D H W"]:
        """Softmax probabilities of the requested classes."""
        found = self.class_probabilities(case.image)
        return torch.stack([found[:, value] for value in case.classes])

    def masks(self, probabilities: Float[Tensor, "K D H W"]) -> Bool[Tensor, "K D H W"]:
        """The most probable class at every pixel."""
        return exclusive_masks(probabilities)

    def class_probabilities(
        self, image: Float[Tensor, "B C H W"], temperature: float = 1.0
    ) -> Float[Tensor, "B K H W"]:
        """Probability of every class, with the background: softmax(logits / temperature), see `predict_with`."""
        return self.mean_probability(image, self._predictors(), temperature)

    def inference_network(self) -> nn.Module:
        """The network that predicts, or the mean of all: logits of every class, with the background."""
        return as_one(self._predictors())

    def _predictors(self) -> Iterable[nn.Module]:
        return self.networks[:1] if self.config.predict_with == "first" else self.networks

    @torch.no_grad()
    def mean_probability(
        self, image: Float[Tensor, "B C H W"], networks: Iterable[nn.Module], temperature: float = 1.0
    ) -> Float[Tensor, "B K H W"]:
        """Mean class probabilities of several networks."""
        chosen = list(networks)

        def mean_of(part: Float[Tensor, "B C H W"]) -> Float[Tensor, "B K H W"]:
            return torch.stack([(net(part).float() / temperature).softmax(1) for net in chosen]).mean(0)

        return torch.cat(list(run_in_chunks(mean_of, self.config.images_per_pass, image)))


def kept_shares(is_kept: Bool[Tensor, "B H W"], label: Int[Tensor, "B H W"]) -> dict[str, Tensor]:
    """Share of the background and of the foreground that is kept; 0 if there is none."""
    places = {"kept_background": label == 0, "kept_foreground": label > 0}
    return {name: (is_kept & place).sum() / place.sum().clamp(min=1) for name, place in places.items()}


def log_probability(logits: Float[Tensor, "B K H W"]) -> Float[Tensor, "B K H W"]:
    """Logarithm of the softmax, in single precision whatever the precision of the logits."""
    return F.log_softmax(logits.float(), 1)


def _check_selection(selection: SelectionConfig, n_classes: int, has_superpixels: bool) -> None:
    if selection.remember is not None and len(selection.remember) != n_classes:
        raise ConfigError(
            f"selection.remember={list(selection.remember)}: expected {n_classes} shares, the background's first."
        )
    if selection.level == "superpixel" and not has_superpixels:
        raise ConfigError("selection.level='superpixel': this method selects by pixel; use method='spguided'.")
