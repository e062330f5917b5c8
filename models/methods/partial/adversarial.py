"""PSSNet: attention between tasks, fixed pseudo-labels, and discriminators of annotated and other data sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from dataloaders.samples import JointBatch, PartialBatch
from models.losses.adversarial import discriminator_loss, segmentor_loss
from models.losses.partial_labels import known_tasks
from models.methods.partial.base import LABELLED, PSEUDO, PartialConfig, PartialMethod
from models.methods.partial.routing import divided, joined, rows_by_task, shifted
from models.networks.discriminator import PatchDiscriminator
from models.networks.frozen import call_frozen
from models.networks.rows import Rows, select_rows
from models.networks.upernet import TaskLogits, UPerConfig
from models.training.optim import OptimConfig, Trainable
from util.errors import ConfigError
from util.schema import check_bounds, option


@dataclass(frozen=True)
class PseudoWeight:
    """The weight of the pseudo-labels of one task in one data set."""

    source: str  # name of the data set
    task: str
    weight: float = option(0.0, ge=0)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """The discriminators and their optimiser, Adam, whose schedule and warm-up are those of `optim`.

    Source: PSSNet (Pattern Recognition 2024), released code.
    """

    channels: int = option(64, ge=1, le=4096)  # of the first layer; doubled at each of the next three
    lr: float = option(2e-4, ge=0)  # learning rate before schedule and warm-up
    betas: tuple[float, float] = option((0.9, 0.99), ge=0, lt=1)  # decay per step of both moments
    weight_decay: float = option(0.0, ge=0)  # per unit of learning rate

    def __post_init__(self) -> None:
        check_bounds(self, "discriminator.")


@dataclass(frozen=True)
class PartialAdversarialConfig(PartialConfig):
    """Hyper-parameters of the second stage.

    Source: PSSNet (Pattern Recognition 2024), released code, whose only dropout is that of whole maps.
    """

    network: UPerConfig = option(lambda: UPerConfig(dropout=0.0), "architecture")
    attention: bool = option(True, "architecture")  # between the maps of the tasks
    task_dropout: float = option(0.1, ge=0, lt=1)  # probability that an image's map of a task is 0, in training
    adversarial_weight: float = option(0.1, "architecture", ge=0)  # of main heads; 0: there are no discriminators
    adversarial_auxiliary_weight: float = option(0.02, "architecture", ge=0)  # of auxiliary heads; 0: none for them
    # of the pseudo-labels of each task in each data set; 0: they are not used, whatever `pseudo_weights` says
    pseudo_weight: float = option(0.05, ge=0)
    pseudo_weights: tuple[PseudoWeight, ...] = ()  # other weights (PSSNet: RETA lesion 0.1, REFUGE lesion 0)
    discriminator: DiscriminatorConfig = option(DiscriminatorConfig, "architecture")

    def __post_init__(self) -> None:
        super().__post_init__()
        names = [task.name for task in self.heads]
        for each in self.pseudo_weights:
            if (self.heads and each.task not in names) or (self.sources and each.source not in self.sources):
                raise ConfigError(
                    f"pseudo_weights: {each.source} {each.task}: expected a data set ({', '.join(self.sources)}) and a "
                    f"task ({', '.join(names)}) of the run."
                )


class Terms(NamedTuple):
    """Sums over the tasks, before their weights."""

    segmentor: Float[Tensor, ""]
    discriminator: Float[Tensor, ""]


class PartialAdversarial(PartialMethod):
    """Adds to the Dice loss of annotated tasks, for all others, pseudo-labels and an adversarial loss.

    - Strong views of the images have the labels that a trained network (`partial_generator`) gave to them.
    - One discriminator per task tells its maps of data sets that are annotated for it from those of others, which the
      network makes alike.
    - The maps of the tasks attend to each other.

    Each can be switched off: `pseudo_weight=0`, `adversarial_weight=0`, `attention=false`.

    Source: PSSNet (Pattern Recognition 2024), second stage, released code.
    """

    Config: ClassVar[type] = PartialAdversarialConfig
    config: PartialAdversarialConfig
    needs = frozenset({"pseudo"})
    pseudo_table: Tensor

    def __init__(self, config: PartialAdversarialConfig) -> None:
        super().__init__(config)
        if not config.sources:
            raise ConfigError("sources=[]: expected the names of the data sets; they follow from `datasets`.")
        names, sources = [task.name for task in config.heads], list(config.sources)
        table = torch.full((len(sources), len(names)), config.pseudo_weight)
        for each in config.pseudo_weights:
            table[sources.index(each.source), names.index(each.task)] = each.weight
        self.register_buffer("pseudo_table", table, persistent=False)
        self.discriminators, self.auxiliary_discriminators = nn.ModuleList(), nn.ModuleList()
        if config.adversarial_weight:
            self.discriminators.extend(self._discriminators())
            if config.adversarial_auxiliary_weight and config.auxiliary_weight:
                self.auxiliary_discriminators.extend(self._discriminators())

    def _discriminators(self) -> list[nn.Module]:
        return [PatchDiscriminator(size, self.config.discriminator.channels) for size in self.sizes]

    @classmethod
    def title(cls, settings: Mapping[str, Any]) -> str:
        """What is compared: the published steps from pseudo-labels to the whole method, or what is left out of it."""
        uses = {
            "pseudo-labels": settings["pseudo_weight"] > 0,
            "adversarial": settings["adversarial_weight"] > 0,
            "attention": settings["attention"],
        }
        missing = [name for name, is_used in uses.items() if not is_used]
        steps = {(): "PSSNet", ("attention",): "Stage 2 adversarial", ("adversarial", "attention"): "Stage 2 pseudo"}
        return steps.get(tuple(missing), f"PSSNet without {', '.join(missing)}")

    def optimisers(self, optim: OptimConfig) -> dict[str, Trainable]:
        """The network's, and one for all discriminators with the network's schedule."""
        given, own = super().optimisers(optim), self.config.discriminator
        weights = [*self.discriminators.parameters(), *self.auxiliary_discriminators.parameters()]
        if not weights:
            return given
        adam = replace(optim, name="adam", lr=own.lr, betas=own.betas, weight_decay=own.weight_decay)
        return given | {"discriminator": Trainable(weights, adam)}

    def forward(self, batch: JointBatch) -> dict[str, Tensor]:
        """The objective of a step.

        Returns:
            loss; dice_<task>, the loss of the main head of each task on its own images; pseudo, the weighted loss on
            pseudo-labels; adversarial and discriminator, the sums of those of the main heads before their weights.
        """
        labelled = self.part(batch, LABELLED)
        own = first = rows = rows_by_task(labelled.tasks, len(self.sizes))
        if self.discriminators:
            first = rows = ((slice(0, len(labelled)),),) * len(self.sizes)
        images, pseudo, second = [labelled.image], None, None
        if self.config.pseudo_weight:
            pseudo = self.part(batch, PSEUDO)
            second = rows_by_task(pseudo.tasks, len(self.sizes))
            images.append(pseudo.image)
            rows = joined(first, shifted(second, len(labelled)))
        found, later = divided(self.network(torch.cat(images), rows), first)
        own_logits = found.map(lambda task, maps: select_rows(maps, own[task])) if self.discriminators else found
        losses = self.supervised(own_logits, labelled, own)
        if pseudo is not None and second is not None:
            loss = self.pseudo_loss(later, pseudo, second)
            losses |= {"loss": losses["loss"] + loss, "pseudo": loss.detach()}
        if self.discriminators:
            self._add_adversarial(losses, found, labelled)
        return losses

    def pseudo_loss(self, logits: TaskLogits, batch: PartialBatch, rows: Sequence[Rows]) -> Float[Tensor, ""]:
        """The sum over data sets and tasks of their weight and the mean loss over the images of the data set.

        Args:
            logits: of these images only.
            batch: with the pseudo-labels.
            rows: of each task, the images that have some.
        """
        is_of = batch.source[:, None] == torch.arange(len(self.pseudo_table), device=batch.source.device)
        share = (self.pseudo_table / is_of.sum(0).clamp(min=1)[:, None])[batch.source.long()]  # (B, T)
        total = self._weighted(logits.main, batch, rows, share)
        if logits.auxiliary:
            total = total + self.config.auxiliary_weight * self._weighted(logits.auxiliary, batch, rows, share)
        return total

    def _weighted(
        self, maps: Sequence[Tensor], batch: PartialBatch, rows: Sequence[Rows], share: Float[Tensor, "B T"]
    ) -> Float[Tensor, ""]:
        terms = []
        for task, (errors, is_known) in enumerate(self.errors(maps, batch, rows)):
            per_image = errors.sum(1) / is_known.sum(1).clamp(min=1)  # errors of unknown classes are 0
            terms.append((select_rows(share[:, task], rows[task]) * per_image).sum())
        return torch.stack(terms).sum()

    def _add_adversarial(self, losses: dict[str, Tensor], logits: TaskLogits, batch: PartialBatch) -> None:
        main = self.adversarial(logits.main, batch, self.discriminators)
        loss = self.config.adversarial_weight * main.segmentor + main.discriminator
        if self.auxiliary_discriminators:
            other = self.adversarial(logits.auxiliary, batch, self.auxiliary_discriminators)
            loss = loss + self.config.adversarial_auxiliary_weight * other.segmentor + other.discriminator
        losses["loss"] = losses["loss"] + loss
        losses |= {"adversarial": main.segmentor.detach(), "discriminator": main.discriminator.detach()}

    def adversarial(
        self, maps: Sequence[Tensor], batch: PartialBatch, discriminators: Sequence[nn.Module] | nn.ModuleList
    ) -> Terms:
        """What the network and the discriminators minimise; the gradient of each is for its own weights only.

        Args:
            maps: logits (B, classes of the task, H, W) of each task, of all images.
            batch: the annotated images.
            discriminators: one per task.
        """
        is_known, n_sources = known_tasks(batch.is_known, self.sizes), len(self.config.sources)
        terms = []
        for task, (logits, discriminator) in enumerate(zip(maps, discriminators, strict=True)):
            probabilities, known = logits.sigmoid(), is_known[:, task, None]
            seen, told = call_frozen(discriminator, probabilities), discriminator(probabilities.detach())
            of_network = segmentor_loss(seen, known, batch.source, n_sources)
            terms.append(torch.cat([of_network, discriminator_loss(told, known, batch.source, n_sources)]))
        return Terms(*torch.stack(terms).sum(0).unbind())
