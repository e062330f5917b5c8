"""How each family of methods is scored: a few figures during training, everything afterwards."""

from models.evaluation.base import Evaluated, Evaluation, Scored, ScoreOptions
from models.evaluation.build import evaluation_of

__all__ = ["Evaluated", "Evaluation", "ScoreOptions", "Scored", "evaluation_of"]
