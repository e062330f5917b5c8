"""The interface between an evaluation and its callers, training and validation; the same for every family."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from dataloaders.scans.normalise import Normalisation
from dataloaders.sources.frames import SliceRule
from models.methods.base import Method
from models.prediction.pseudo_labels import PseudoLabelConfig
from util.errors import ConfigError, FailedItemsError
from util.results.layout import Layout
from util.results.scores import N_FAILED
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
    slices: SliceRule | None = None  # how slices were normalised in training; None: unknown, or not slice by slice
    checkpoint: Path | None = None  # None: not trained


@dataclass(frozen=True)
class ScoreOptions:
    """What to compute besides overlap scores, and what identifies the run."""

    surface_scores: bool = True  # surface distances, which take most of the scoring time
    save_predictions: bool = True  # masks as files
    pictures: bool = True  # overlays and views
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
    n_cases: int = 0  # that were to be scored
    failed: Mapping[str, str] = field(default_factory=dict)  # case that could not be scored -> reason
    failed_sets: Sequence[str] = ()  # further data sets without any score, with the cause

    def to_json(self, folder: Path) -> dict[str, Any]:
        """As printed by `--json`; `folder` is that of the run."""
        return {
            "folder": folder,
            "title": self.title,
            "mean_dice": self.headline,
            "cases": self.n_cases,
            "tables": [table.to_json() for table in self.tables],
            "failed": self.failed,
            "missing": [*self.failed_sets, *self.failures],
        }


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
        """Computes all scores of the candidates; writes scores.csv, pictures and masks to `out`.

        A case that fails does not stop the others.

        Raises:
            FailedItemsError: every case failed.
        """

    def export_probabilities(self, method: Method, folder: Path, temperature: float) -> int:
        """Writes foreground probabilities of the training images to `folder`; returns the number of images.

        Raises:
            ConfigError: not possible for this family, or with several structures.
        """
        raise ConfigError("probabilities: for one structure of a set of images; choose such a data set and method.")

    def export_pseudo_labels(
        self, method: Method, folder: Path, run: str, recipe: str, config: PseudoLabelConfig
    ) -> None:
        """Writes labels of training cases, see `frugalseg pseudo-labels`: of classes without annotation, or of scans.

        Args:
            method: trained, on the device.
            folder: of the labels.
            run: name of the experiment, which the folder records.
            recipe: hash of its settings, which its repetitions share; likewise.
            config: how probabilities become labels.

        Raises:
            ConfigError: not possible for this family.
        """
        raise ConfigError(
            "pseudo-labels: for methods of several data sets that are annotated for some classes each, and for methods "
            "that take whole scans; choose such data and method."
        )

    def rank_suspects(self, method: Method, out: Path) -> Path:
        """Ranks the given masks of the training images by disagreement; returns the path of suspects.csv in `out`.

        Raises:
            ConfigError: not possible for this family.
        """
        raise ConfigError("suspects: ranks masks of images, not of scans; choose such a data set and method.")


def with_failed(records: Sequence[dict[str, Any]], failed: Mapping[str, str], n_cases: int) -> list[dict[str, Any]]:
    """The scores of a run, each with the number of cases that could not be scored, if there are any.

    Args:
        records: rows of scores.csv.
        failed: case -> reason.
        n_cases: that were to be scored.

    Raises:
        FailedItemsError: every case failed.
    """
    if not records:
        lines = "\n  ".join(failed.values())
        raise FailedItemsError(
            f"none of the {n_cases} cases could be scored, so there are no scores and tables:\n  {lines}\nCorrect the "
            "cause and run the validation again.",
            failed,
        )
    return [record | {N_FAILED: len(failed)} for record in records] if failed else list(records)


def mean_defined(values: Sequence[float]) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")
