"""Averages the probabilities of several networks of one method, and of flipped images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from dataloaders.samples import EvalCase, ImageCase, SupportSet
from models.methods.base import Method
from models.prediction.segmenter import Segmentation, Segmenter, inference
from util.errors import CheckpointError

FLIPS = ((), (-1,), (-2,), (-2, -1))  # axes of images that are turned round


@dataclass(frozen=True)
class Intensities:
    """How the images that a network sees were normalised: (x - mean) / sd of each of the C channels."""

    mean: tuple[float, ...] = (0.0,)
    sd: tuple[float, ...] = (1.0,)

    def to(self, other: "Intensities", image: Float[Tensor, "*n C H W"]) -> Float[Tensor, "*n C H W"]:
        """An image that was normalised by this mean and deviation, as if it had been by those of another network."""
        if other == self:
            return image
        mean, sd, new_mean, new_sd = (
            image.new_tensor(each).view(-1, 1, 1) for each in (self.mean, self.sd, other.mean, other.sd)
        )
        return (image * sd + mean - new_mean) / new_sd


@runtime_checkable
class Averageable(Protocol):
    """A predictor whose probabilities can be averaged with those of others."""

    segmenter: Segmenter

    @property
    def intensities(self) -> Intensities:
        """How the images that its network sees are normalised; it may differ between those that are averaged."""
        ...

    def agreement(self) -> dict[str, Any]:
        """What must be equal in networks that are averaged: name -> value."""
        ...


P = TypeVar("P", bound=Averageable)


@dataclass(frozen=True)
class _Pass:
    """A further network, or the first once more, that sees images turned round along some axes."""

    segmenter: Segmenter
    first: Intensities  # of the images that are given
    own: Intensities
    axes: tuple[int, ...]

    def set_support(self, support: SupportSet) -> None:
        """Encodes the annotated slices and scans, turned round as well."""
        scans = tuple(
            replace(scan, image=self._seen(scan.image), label=scan.label.flip(self.axes)) for scan in support.scans
        )
        mask = support.mask.flip(self.axes)
        self.segmenter.set_support(replace(support, image=self._seen(support.image), mask=mask, scans=scans))

    def probabilities(self, case: EvalCase | ImageCase) -> Float[Tensor, "K D H W"]:
        """Of each class, turned back."""
        known = {} if isinstance(case, ImageCase) else {"encoded": None}  # the first network encoded it, as given
        return self.segmenter.probabilities(replace(case, image=self._seen(case.image), **known)).flip(self.axes)

    def _seen(self, image: Tensor) -> Tensor:
        return self.first.to(self.own, image).flip(self.axes)


class AveragedSegmenter(Segmenter):
    """Segments by the mean of the probabilities that several methods find in a case and in its mirror images.

    Each method compares with the support set by itself; the support set is mirrored with the case. Masks follow from
    the mean by the rule of the first method.

    Args:
        methods: on `device`.
        device: where to compute.
        flips: whether to average over each image and its three flips, horizontal, vertical and both.
        intensities: of each method; cases are given as the first expects them. Empty: all expect the same.
    """

    def __init__(
        self,
        methods: Sequence[Method],
        device: torch.device,
        flips: bool = False,
        intensities: Sequence[Intensities] = (),
    ) -> None:
        super().__init__(methods[0], device)
        known = intensities or [Intensities()] * len(methods)
        passes = product(zip(methods, known, strict=True), FLIPS if flips else FLIPS[:1])
        self.further = [
            _Pass(Segmenter(method, device), known[0], own, axes) for (method, own), axes in list(passes)[1:]
        ]

    def set_support(self, support: SupportSet) -> None:
        """Encodes the annotated slices with which all following cases are compared."""
        super().set_support(support)
        for each in self.further:
            each.set_support(support)

    def segment(self, case: EvalCase | ImageCase) -> Segmentation:
        """Segments a case into its classes."""
        total = self.probabilities(case)
        with inference(self.method):
            for each in self.further:
                total = total + each.probabilities(case)
            mean = total / (1 + len(self.further))
            return Segmentation(mean, self.method.masks(mean))


def averaged(read: Callable[[Path], P], paths: Sequence[Path], flips: bool = False) -> P:
    """A predictor that averages the probabilities of several networks: folds, seeds or snapshots of one method.

        predictor = averaged(DensePredictor.from_checkpoint, [Path("fold0.pt"), Path("fold1.pt")], flips=True)

    Args:
        read: makes a predictor of a checkpoint.
        paths: of the checkpoints; the predictor of the first is changed and returned. A support set is set afterwards.
        flips: whether to average also over flipped images, for networks to which left and right are alike.

    Raises:
        CheckpointError: the networks are of different methods, or differ in classes or in the preparation of images.
    """
    first, *others = made = [read(path) for path in paths]
    wanted = first.agreement()
    for path, other in zip(paths[1:], others, strict=True):
        _require(paths[0], wanted, path, other.agreement())
    if others or flips:
        segmenter = first.segmenter
        methods, intensities = [each.segmenter.method for each in made], [each.intensities for each in made]
        first.segmenter = AveragedSegmenter(methods, segmenter.device, flips, intensities)
    return first


def _require(first: Path, wanted: dict[str, Any], path: Path, found: dict[str, Any]) -> None:
    differing = [key for key in wanted if wanted[key] != found[key]]
    if differing:
        key = differing[0]
        raise CheckpointError(
            f"{path}: {key} {found[key]}, but {wanted[key]} in {first}. Checkpoints are averaged only if they are of "
            "one method, with the same classes and preparation of images: folds, seeds or snapshots. Leave one of them "
            "out."
        )
