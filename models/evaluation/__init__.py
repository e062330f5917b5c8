"""Evaluation of each family of methods: a few scores during training, all of them in validation."""

from typing import Any

import torch

from models.evaluation.base import Candidate, Evaluation, EvaluationResult, ScoreOptions
from models.evaluation.dense import DenseEvaluation
from models.evaluation.fewshot import FewShotEvaluation
from models.evaluation.partial import PartialEvaluation
from models.evaluation.sources import SourcesEvaluation
from util.errors import ConfigError

__all__ = [
    "EVALUATIONS",
    "LAYOUTS",
    "Candidate",
    "Evaluation",
    "EvaluationResult",
    "ScoreOptions",
    "make_evaluation",
]

EVALUATIONS: dict[str, type[Evaluation]] = {
    "fewshot": FewShotEvaluation,
    "dense": DenseEvaluation,
    "sources": SourcesEvaluation,
    "partial": PartialEvaluation,
}
LAYOUTS = {family: evaluation.layout for family, evaluation in EVALUATIONS.items()}  # of the tables


def make_evaluation(family: str, data: Any, device: torch.device) -> Evaluation:
    """Makes the evaluation of a family of methods.

    Args:
        family: of the method, see `Method.family`.
        data: of the same family.
        device: where to compute.

    Raises:
        ConfigError: no such family.
    """
    if family not in EVALUATIONS:
        raise ConfigError(
            f"family {family!r}: no evaluation found; expected one of {', '.join(EVALUATIONS)}. Add the new family to "
            "EVALUATIONS in models/evaluation."
        )
    return EVALUATIONS[family](data, device)
