"""Runs a method over a task and scores it; knows no method and no data set by name."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool

from dataloaders.build import FewShotTask, ScoredCase
from models.methods.base import Method
from util.metrics import Scores, overlap_counts, overlap_scores, score_volume


@dataclass(frozen=True)
class CaseResult:
    """A segmented and scored scan."""

    scored: ScoredCase
    masks: Bool[np.ndarray, "K D H W"]
    scores: dict[int, Scores]  # by label value


def evaluate(
    method: Method, task: FewShotTask, device: torch.device, tolerance_mm: float | None = None
) -> Iterator[CaseResult]:
    """Yields the result of one scan after the other; the support is encoded once.

    Args:
        method: on `device`; it is put into evaluation mode and back.
        task: support and scans.
        device: where to compute.
        tolerance_mm: of the normalised surface Dice; None: no surface scores, which take most of the time.
    """
    was_training = method.training
    method.eval()
    with torch.inference_mode():
        support = method.encode_support(task.support.to(device))
        for scored in task.cases:
            masks = method.predict(scored.case.to(device), support).cpu().numpy()
            yield CaseResult(scored, masks, _score(scored, masks, tolerance_mm))
    method.train(was_training)


def _score(scored: ScoredCase, masks: np.ndarray, tolerance_mm: float | None) -> dict[int, Scores]:
    scores = {}
    for value, mask, counts in zip(scored.case.classes, masks, scored.counts, strict=True):
        truth = scored.truth[counts]
        volumes = mask[counts], truth == value
        if tolerance_mm is None:
            overlap = overlap_scores(overlap_counts(*volumes, ignore=truth == 255))
            scores[value] = Scores(**overlap._asdict(), hd95_mm=float("nan"), nsd=float("nan"))
        else:
            scores[value] = score_volume(*volumes, scored.stored.spacing_mm, truth == 255, tolerance_mm)
    return scores
