"""What training and validation ask of an evaluation, whatever the family of methods."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from dataloaders.scans.normalise import Normalisation
from models.methods.base import Method
from util.results.tables import Printable


@dataclass(frozen=True)
class Scored:
    """A method to be scored, and what is known about its training."""

    name: str  # in tables
    method: Method
    weights: str = "last"  # last, ema or untrained
    normalisation: Normalisation | None = None  # that it was trained with; None: to be fitted
    step: int | None = None
    history: list[dict[str, float]] = field(default_factory=list)  # of the evaluations during training


@dataclass(frozen=True)
class ScoreOptions:
    """What to do beside the scores of overlap."""

    surface_scores: bool = True  # distances between outlines, which take most of the scoring time
    save_predictions: bool = True  # masks as files
    seed: int = 0  # of the training
    recipe: str = ""  # what trainings share whose scores may be averaged


@dataclass(frozen=True)
class Evaluated:
    """What an evaluation has found; its files lie in the run's folder."""

    title: str
    tables: Sequence[Printable]
    pictures: dict[str, Path]  # caption -> file
    logged: list[tuple[str, float]]  # name -> value, for the run's record
    headline: float  # mean Dice


class Evaluation(ABC):
    """Scores methods on one data set."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @abstractmethod
    def curve(self, method: Method, normalisation: Normalisation) -> dict[str, float]:
        """A few figures for the curves of a training: "val/..." and such; the method is left in training mode."""

    @abstractmethod
    def score(self, scored: Sequence[Scored], out: Path, options: ScoreOptions) -> Evaluated:
        """Everything that is known about methods, written below `out`."""


def mean_of(values: Sequence[float]) -> float:
    """Mean of the defined values; the undefined are counted in tables."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
