"""Averages the probabilities of several networks of one method, and of flipped images."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from dataloaders.images.task import ImageTask
from dataloaders.samples import EvalCase, ImageCase
from models import canonical_name
from models.methods.base import Method
from models.prediction.segmenter import Segmentation, Segmenter, inference
from util.errors import CheckpointError

FLIPS = ((), (-1,), (-2,), (-2, -1))  # axes of images that are turned round


class AveragedSegmenter(Segmenter):
    """Segments images by the mean of the probabilities that several methods find in an image and in flipped ones.

    Args:
        methods: on `device`; masks follow from the mean by the rule of the first.
        device: where to compute.
        flips: whether to average over the image and its three flips, horizontal, vertical and both.
    """

    def __init__(self, methods: Sequence[Method], device: torch.device, flips: bool = False) -> None:
        super().__init__(methods[0], device)
        self.members = [Segmenter(method, device) for method in methods]
        self.flips = FLIPS if flips else FLIPS[:1]

    def segment(self, case: EvalCase | ImageCase) -> Segmentation:
        """Segments a case into its classes."""
        found = [
            member.segment(replace(case, image=case.image.flip(axes))).probabilities.flip(axes)
            for member, axes in product(self.members, self.flips)
        ]
        with inference(self.method):
            mean = torch.stack(found).mean(0)
            return Segmentation(mean, self.method.masks(mean))


def require_agreement(first: Path, path: Path, settings: Sequence[dict[str, Any]], tasks: Sequence[ImageTask]) -> None:
    """Checks that the probabilities of two networks can be averaged.

    Args:
        first: checkpoint of the first network.
        path: of the second.
        settings: of both.
        tasks: of both.

    Raises:
        CheckpointError: another method or other classes, or images that are prepared in another way.
    """
    one, other = (_agreed(*each) for each in zip(settings, tasks, strict=True))
    differing = [key for key in one if one[key] != other[key]]
    if differing:
        key = differing[0]
        raise CheckpointError(
            f"{path}: {key} {other[key]}, but {one[key]} in {first}. Checkpoints are averaged only if they are of one "
            "method, with the same classes and preparation of images: folds, seeds or snapshots. Leave one of them out."
        )


def _agreed(settings: dict[str, Any], task: ImageTask) -> dict[str, Any]:
    return {
        "method": canonical_name(settings["method"]),
        "classes": task.supplied_values,
        "size_px": task.side_px,
        "channels": task.spec.channels,
        "grid": task.spec.grid,
        "intensity": task.spec.intensity,
    }
