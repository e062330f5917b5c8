"""The batches of a training step: labelled and unlabelled slices, each with a partner of some source."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from dataloaders.ordering import Part
from dataloaders.samples import N_UNIFORM, SourceBatch
from dataloaders.sources.config import SourcesDataConfig
from dataloaders.sources.store import SliceStore
from dataloaders.transforms import slices
from dataloaders.transforms.histogram import match


@dataclass(frozen=True)
class Look:
    """Whose amplitudes and histograms slices take on.

    Attributes:
        domain: (N,) number of each slice's domain.
        references: positions of the slices to whose histograms all are matched; empty: none.
        partners: number of a slice's domain -> positions of its possible partners; empty: every slice is one.
    """

    domain: np.ndarray
    references: np.ndarray
    partners: tuple[np.ndarray, ...] = ()

    @classmethod
    def of(cls, store: SliceStore, domains: Sequence[str], config: SourcesDataConfig) -> "Look":
        """The look of a configuration; references are the slices of the first domain.

        Args:
            store: of all slices.
            domains: of each of its scans.
            config: says whether histograms are matched, and who may be a partner.
        """
        lengths = np.diff([*store.start.values(), len(store)])
        domain = np.repeat(np.unique(domains, return_inverse=True)[1], lengths)
        references = np.flatnonzero(domain == 0) if config.hist_match != "none" else np.zeros(0, int)
        numbers = range(domain.max() + 1) if config.partner == "other_domain" else ()
        return cls(domain, references, tuple(np.flatnonzero(domain != number) for number in numbers))

    def draw_partner(self, position: int, rng: np.random.Generator) -> int:
        """The position of a partner, uniform over all slices that may be one."""
        if not self.partners:
            return int(rng.integers(len(self.domain)))
        others = self.partners[self.domain[position]]
        return int(rng.choice(others)) if len(others) else position

    def draw_reference(self, rng: np.random.Generator) -> int:
        """The position of a reference slice."""
        return int(self.references[int(rng.integers(len(self.references)))])


class SourceDataset(Dataset[SourceBatch]):
    """Item k is one part of the batch of step k on this process.

    Args:
        store: of all slices.
        part: which slices, in which order.
        is_labelled: whether batches carry labels.
        look: partners and references.
        config: augmentation and crop.
    """

    def __init__(self, store: SliceStore, part: Part, is_labelled: bool, look: Look, config: SourcesDataConfig) -> None:
        self.store, self.part, self.is_labelled, self.look, self.config = store, part, is_labelled, look, config

    def __getitem__(self, step: int) -> SourceBatch:
        numbers = self.part.numbers(step)
        chosen = [self.part.item(number) for number in numbers]
        positions = np.array(chosen)
        generators = [self.part.generator("augmentation", number) for number in numbers]
        partners = np.array([self.look.draw_partner(p, g) for p, g in zip(chosen, generators, strict=True)])
        uniform = torch.from_numpy(np.stack([g.random(N_UNIFORM, np.float32) for g in generators]))
        image = self._matched(positions, generators)
        drawn = slices.draw(
            generators, self.config.augmentation, self.store.side_px, self.config.input_px, not self.is_labelled
        ).to(image.device)
        moved = slices.apply(torch.stack([image, self.store.images(partners)], 1), drawn)
        label = slices.apply_to_label(self.store.labels(positions), drawn).long() if self.is_labelled else None
        return SourceBatch(moved[:, :1], moved[:, 1:], uniform.to(image.device, non_blocking=True), label)

    def _matched(self, positions: np.ndarray, generators: list[np.random.Generator]) -> Float[Tensor, "B H W"]:
        """Slices, matched to a random reference each where this is configured."""
        image = self.store.images(positions)
        if not len(self.look.references):
            return image
        references = np.array([self.look.draw_reference(generator) for generator in generators])
        matched = match(image, self.store.tables(positions), self.store.tables(references))
        return torch.where(image > 0, matched, 0.0)
