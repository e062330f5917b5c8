"""The evaluation that belongs to data."""

import torch

from dataloaders.build import Data
from dataloaders.fewshot.data import FewShotData
from models.evaluation.base import Evaluation
from models.evaluation.dense import DenseEvaluation
from models.evaluation.fewshot import FewShotEvaluation


def evaluation_of(data: Data, device: torch.device) -> Evaluation:
    """How methods are scored on this data."""
    return FewShotEvaluation(data, device) if isinstance(data, FewShotData) else DenseEvaluation(data, device)
