"""A frame of a tested scan, segmented and scored."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, UInt8

from dataloaders.io.geometry import paste_back
from dataloaders.samples import Volume
from dataloaders.sources.frames import ScoredFrame, SliceRule
from models.evaluation.base import mean_defined
from models.evaluation.legacy import joint_dice, vector_distance
from models.prediction.segmenter import Segmenter
from models.prediction.sources import segment_slices
from util.errors import DataError
from util.results.metrics import Scores, score_volume

UNKNOWN = 255  # in ground truths
LEGACY = {"legacy_dice": joint_dice, "legacy_distance": vector_distance}  # of each slice

GridName = Literal["original", "prepared"]


@dataclass(frozen=True)
class FrameResult:
    """A segmented and scored frame.

    Attributes:
        case: id of the frame, as files are named.
        frame: what was segmented.
        label: class values on the prepared grid.
        scores: class value -> scores.
        confidence: class value -> how firm the outline of the mask is; NaN: nothing was found.
        legacy: metric -> score of each of the N slices that count.
    """

    case: str
    frame: ScoredFrame
    label: UInt8[np.ndarray, "D H W"]
    scores: dict[int, Scores]
    confidence: dict[int, float]
    legacy: dict[str, Float[np.ndarray, " N"]]

    @property
    def dice(self) -> float:
        """Mean over the structures."""
        return mean_defined([scores.dice for scores in self.scores.values()])


def evaluate_frame(
    segmenter: Segmenter,
    case: str,
    frame: ScoredFrame,
    rule: SliceRule,
    grid: GridName,
    tolerance_mm: float | None,
) -> FrameResult:
    """Segments and scores a frame.

    Args:
        segmenter: of the method.
        case: id of the frame.
        frame: what to segment.
        rule: by which its slices were cropped.
        grid: on which volumes are scored; "original" only where frames know theirs and its ground truth.
        tolerance_mm: see `score_volume`.
    """
    label, segmented = segment_slices(segmenter, frame.case)
    truth = frame.truth[:, *rule.window(frame.truth.shape[1:])][frame.counts]
    found = segmented.masks.cpu().numpy()[:, frame.counts] & (truth != UNKNOWN)
    wanted = np.stack([truth == value for value in frame.case.classes])
    legacy = {metric: function(found, wanted) for metric, function in LEGACY.items()}
    whole = rule.in_full(label, frame.truth.shape[1:])
    confidence = dict(zip(frame.case.classes, segmented.confidence.tolist(), strict=True))
    return FrameResult(case, frame, whole, _scores(frame, whole, grid, tolerance_mm), confidence, legacy)


def _scores(
    frame: ScoredFrame, label: UInt8[np.ndarray, "D H W"], grid: GridName, tolerance_mm: float | None
) -> dict[int, Scores]:
    """Class value -> scores of the counted slices; surface scores are NaN without a tolerance.

    On the original grid, slices that do not count are emptied before the way back; their ground truth is empty, too.
    """
    if grid == "prepared" or frame.original is None or frame.original_truth is None:
        found, truth, spacing_mm = label[frame.counts], frame.truth[frame.counts], frame.prepared.spacing_mm
    else:
        found = on_original_grid(frame, label * frame.counts[:, None, None])
        truth, spacing_mm = frame.original_truth, frame.original.spacing_mm
    return {
        value: score_volume(found == value, truth == value, spacing_mm, truth == UNKNOWN, tolerance_mm)
        for value in frame.case.classes
    }


def on_original_grid(frame: ScoredFrame, label: UInt8[np.ndarray, "D H W"]) -> UInt8[np.ndarray, "_ _ _"]:
    """A label map of the prepared frame on the grid that the frame had before.

    Raises:
        DataError: that grid is not known, or the stored ground truth has another one.
    """
    grid = frame.original
    if grid is None:
        raise DataError(f"scan {frame.scan}: its grid before preparation is not known. Prepare it again.")
    if frame.original_truth is not None and frame.original_truth.shape != grid.shape:
        raise DataError(
            f"scan {frame.scan}: the ground truth before preparation has the shape {frame.original_truth.shape}, the "
            f"scan {grid.shape} (D, H, W). Prepare it again."
        )
    return paste_back(Volume(label, frame.prepared.affine), grid.shape, grid.affine).array


def case_ids(frames: Sequence[ScoredFrame]) -> list[str]:
    """Ids of a scan's frames, numbered where two have the same phase."""
    ids = [frame.id for frame in frames]
    return ids if len(set(ids)) == len(ids) else [f"{each}_{number}" for number, each in enumerate(ids)]
