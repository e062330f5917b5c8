"""The step from a prepared case to probabilities and masks: the same for validation, export and prediction."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from dataloaders.io.geometry import Grid, interpolate_to
from dataloaders.samples import EvalCase, ImageCase, SupportSet, Volume
from models.methods.base import Method
from models.networks.postprocessing import confidences
from models.networks.similarity import Likeness
from models.training.speed import to_memory_format


@dataclass(frozen=True)
class Segmentation:
    """What a method finds in a case of D slices or images, for its K classes; on the method's device."""

    probabilities: Float[Tensor, "K D H W"]
    masks: Bool[Tensor, "K D H W"]

    @cached_property
    def confidence(self) -> Float[Tensor, " K"]:
        """Of each class, how firm its outline is in all slices together, see `confidences`; NaN: nothing was found."""
        return confidences(self.masks, self.probabilities)

    @property
    def confidence_by_image(self) -> Float[Tensor, "D K"]:
        """The same in each image."""
        return confidences(self.masks[:, :, None], self.probabilities[:, :, None]).T

    def named_confidence(self, structures: Iterable[str]) -> dict[str, float | None]:
        """Structure -> confidence, of the classes in their order; None: nothing was found."""
        pairs = zip(structures, self.confidence.tolist(), strict=True)
        return {name: None if math.isnan(value) else value for name, value in pairs}


@dataclass(frozen=True)
class ScanSegmentation:
    """What was found in a scan, or in one of its frames.

    Attributes:
        label_map: unsigned integers, on the grid of the scan.
        confidence: structure -> how firm its outline is, 0 to 1, also where the mask was left out for it; None:
            nothing of the structure was found.
        probabilities: structure -> float32 on the grid of the scan, 0 outside what the network saw; empty unless
            asked for.
    """

    label_map: Volume
    confidence: dict[str, float | None]
    probabilities: dict[str, Volume] = field(default_factory=dict)


def to_host(probabilities: Float[Tensor, "K D H W"]) -> Float[np.ndarray, "K D H W"]:
    """The same as float32 on the host."""
    return probabilities.float().cpu().numpy()


def on_scan(
    structures: Iterable[str], probabilities: Float[np.ndarray, "K D H W"], affine: np.ndarray, scan: Volume
) -> dict[str, Volume]:
    """Probabilities on the network's grid, interpolated to the grid of a scan; see `ScanSegmentation.probabilities`.

    Args:
        structures: K names.
        probabilities: of each.
        affine: of the network's grid.
        scan: raw.
    """
    grid = Grid.of(scan)
    return {
        name: Volume(interpolate_to(Volume(each, affine), grid), scan.affine, scan.stored)
        for name, each in zip(structures, probabilities, strict=True)
    }


class Segmenter:
    """Applies a method to prepared cases, in evaluation mode and without gradients; its mode is restored after each.

    Args:
        method: on `device`; unless it is being trained, its weights take the memory order that is faster there.
        device: where to compute.

    Attributes:
        support: what the method made of the support set; None: there is none yet.
    """

    def __init__(self, method: Method, device: torch.device) -> None:
        self.method = method if method.training else to_memory_format(method, device, "auto")
        self.device = device
        self.support: Any = None

    def set_support(self, support: SupportSet) -> None:
        """Encodes the annotated slices with which all following cases are compared."""
        with inference(self.method):
            self.support = self.method.encode_support(support.to(self.device))

    def encode(self, case: EvalCase) -> EvalCase:
        """The case on the device, with what `segment` and `likeness` both need of it."""
        with inference(self.method):
            return self.method.encode_case(case.to(self.device))

    def likeness(self, case: EvalCase) -> Likeness | None:
        """Whether a case looks like the annotated slices; None: the method cannot tell."""
        with inference(self.method):
            return self.method.likeness(case.to(self.device), self.support)

    def probabilities(self, case: EvalCase | ImageCase) -> Float[Tensor, "K D H W"]:
        """Of each class at every voxel of a case."""
        with inference(self.method):
            return self.method.probabilities(case.to(self.device), self.support)

    def segment(self, case: EvalCase | ImageCase) -> Segmentation:
        """Segments a case into its classes; masks follow from probabilities by the method's rule."""
        probabilities = self.probabilities(case)
        with inference(self.method):
            return Segmentation(probabilities, self.method.masks(probabilities))

    def class_probabilities(
        self, image: Float[Tensor, "B C H W"], temperature: float = 1.0
    ) -> Float[Tensor, "B K H W"]:
        """Probability of every class of each image, with the background; see `Method.class_probabilities`."""
        with inference(self.method):
            return self.method.class_probabilities(image.to(self.device), temperature)


def masks_of_image(method: Method, probabilities: Float[np.ndarray, "K H W"]) -> Bool[np.ndarray, "K H W"]:
    """The masks of an image of any size that follow from probabilities, float32, by the method's rule; on the host."""
    with inference(method):
        return method.masks(torch.from_numpy(probabilities)[:, None])[:, 0].numpy()


@contextmanager
def inference(method: Method) -> Iterator[None]:
    """Puts a method into evaluation mode without gradients; restores its mode at the end."""
    was_training = method.training
    method.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        method.train(was_training)


def most_probable(probabilities: Float[Tensor, "K D H W"], masks: Bool[Tensor, "K D H W"]) -> UInt8[Tensor, "D H W"]:
    """Number (1 to K) of the most probable of those classes whose mask contains the voxel; 0: none."""
    value, place = probabilities.masked_fill(~masks, -1).max(0)
    return torch.where(value >= 0, place + 1, 0).to(torch.uint8)
