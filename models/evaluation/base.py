"""The interface between an evaluation and its callers, training and validation; the same for every family."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from dataloaders.scans.normalise import Normalisation
from models.methods.base import Method
from util.errors import ConfigError
from util.results.layout import Layout
from util.results.tables import Table


@dataclass(frozen=True)
class Candidate:
    """A method to evaluate, and what is known about its training."""

    name: str  # in tables
    method: Method
    weights: str = "last"  # last, ema, untrained or none
    normalisation: Normalisation | None = None  # that it was trained with; None: fitted to the training data
    step: int | None = None  # of the checkpoint; None: unknown
    history: list[dict[str, float]] = field(default_factory=list)  # of the evaluations during training


@dataclass(frozen=True)
class ScoreOptions:
    """What to compute besides overlap scores, and what identifies the run."""

    surface_scores: bool = True  # surface distances, which take most of the scoring time
    save_predictions: bool = True  # masks as files
    seed: int = 0  # of the training run
    config_hash: str = ""  # hash that is equal for runs whose scores may be averaged
    hd95: Literal["larger", "pooled"] = "larger"  # convention of HD95 in tables; scores.csv has both


@dataclass(frozen=True)
class EvaluationResult:
    """What an evaluation has measured; its files are stored in the run folder."""

    title: str
    tables: Sequence[Table]
    pictures: dict[str, Path]  # caption -> file; without those that could not be drawn
    logged: list[tuple[str, float]]  # name -> value, for the Sacred run
    headline: float  # mean Dice
    failures: Sequence[str] = ()  # masks that could not be written, with the cause


class Evaluation(ABC):
    """Scores methods of one family on one data set.

    Attributes:
        layout: of the family's tables.
    """

    layout: ClassVar[Layout]

    def __init__(self, data: Any, device: torch.device) -> None:
        self.data, self.device = data, device

    @abstractmethod
    def curve(self, method: Method, normalisation: Normalisation) -> dict[str, float]:
        """Computes a few scores for the training curves, such as "val/dice"; the method's mode is restored."""

    @abstractmethod
    def score(self, candidates: Sequence[Candidate], out: Path, options: ScoreOptions) -> EvaluationResult:
        """Computes all scores of the candidates; writes scores.csv, pictures and masks to `out`."""

    def export_probabilities(self, method: Method, folder: Path, temperature: float) -> int:
        """Writes foreground probabilities of the training images to `folder`; returns the number of images.

        Raises:
            ConfigError: not possible for this family, or with several structures.
        """
        raise ConfigError("probabilities: for one structure of a set of images; choose such a data set and method.")

    def rank_suspects(self, method: Method, out: Path) -> Path:
        """Ranks the given masks of the training images by disagreement; returns the path of suspects.csv in `out`.

        Raises:
            ConfigError: not possible for this family.
        """
        raise ConfigError("suspects: ranks masks of images, not of scans; choose such a data set and method.")


def join_results(results: Mapping[str, EvaluationResult]) -> EvaluationResult:
    """The result on the run's own data set, and after it what belongs to the further ones, under their names.

    Args:
        results: data set -> result, the run's own first.
    """
    first = next(iter(results.values()))
    named = list(results.items())[1:]
    further = {f"{name}: {caption}": path for name, each in named for caption, path in each.pictures.items()}
    return replace(
        first,
        tables=[table for result in results.values() for table in result.tables],
        pictures=first.pictures | further,
        logged=[*first.logged, *((f"{name}/{key}", value) for name, each in named for key, value in each.logged)],
        failures=tuple(failure for result in results.values() for failure in result.failures),
    )


def mean_defined(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
