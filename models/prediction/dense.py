"""Segments images of any size with a trained dense network; validation writes its masks with the same functions."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from dataloaders.catalog import is_built_in
from dataloaders.images.framing import Framing
from dataloaders.images.labels import image_tensor, normalise
from dataloaders.images.preprocess import read_image
from dataloaders.images.task import ImageTask
from dataloaders.samples import ImageCase
from models.methods.base import Method
from models.prediction.averaging import Intensities
from models.prediction.label_tables import write_label_tables
from models.prediction.origin import find_dataset, require_family
from models.prediction.segmenter import Segmenter, masks_of_image, to_host
from models.training.load import load_trained, read_trained
from util.errors import DataError
from util.runtime.device import choose_device, set_precision

logger = logging.getLogger(__name__)

SEGMENTATION = "_segmentation.png"
PROBABILITY = "_probability.png"
FULL = 65_535  # value of probability 1 in files
DARK_BELOW = 4096  # largest value of 16-bit images that hold 12 bits


@dataclass(frozen=True)
class DensePrediction:
    """The structures of one image, on the grid of the image.

    Attributes:
        masks: structure -> (H, W) bool.
        values: structure -> value in label maps.
        probabilities: structure -> (H, W) uint16, 65535 is 1; interpolated, so 0 from half a pixel of the network's
            grid outside the window that it sees.
        confidence: structure -> how firm its outline is; None: nothing was found.
    """

    masks: Mapping[str, Bool[np.ndarray, "H W"]]
    values: Mapping[str, int]
    probabilities: Mapping[str, Shaped[np.ndarray, "H W"]]
    confidence: Mapping[str, float | None]

    @property
    def label_map(self) -> Shaped[np.ndarray, "H W"]:
        """(H, W) uint8 or uint16 with the values that the data set's own label maps use.

        A pixel of several structures gets the most probable one.
        """
        masks = np.stack(list(self.masks.values()))
        probabilities = np.where(masks, np.stack(list(self.probabilities.values())).astype(np.int32), -1)
        values = np.array(list(self.values.values()), smallest_type(self.values))
        return np.where(masks.any(0), values[probabilities.argmax(0)], 0).astype(values.dtype)

    def label_files(self, folder: Path, name: str) -> dict[Path, np.ndarray]:
        """The label map, or masks of structures that overlap; see `segmentation_files`."""
        return segmentation_files(folder, name, self.masks, self.values)


class DensePredictor:
    """Segments images with a trained dense network, prepared as those that it was trained on.

        predictor = DensePredictor.from_checkpoint(Path("checkpoint.pt"))
        prediction = predictor.predict(predictor.read(Path("image.png")))
        label_map = prediction.label_map  # at the size of the image

    Attributes:
        segmenter: the method, in evaluation mode on its device.
        task: data set, structures, and the part of the prepared image that the network sees.
        intensities: of these images; those of all dense networks are normalised alike.
    """

    intensities = Intensities()

    def __init__(
        self,
        method: Method,
        task: ImageTask,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - immutable
    ) -> None:
        self.segmenter = Segmenter(method.to(device).eval(), device)
        self.task = task

    @classmethod
    def from_checkpoint(
        cls, path: Path, weights: Literal["last", "ema"] = "last", device: str = "auto", *, dataset: str | None = None
    ) -> "DensePredictor":
        """Makes a predictor with the weights, the data set's description and the settings of a file.

        Args:
            path: a checkpoint or snapshot of any dense method.
            weights: which of the weights in the file.
            device: auto, cpu or cuda. PyTorch computes there in full single precision.
            dataset: name or description of the data set, for checkpoints that store none.

        Raises:
            CheckpointError: unreadable, or of a method that is not dense.
            ConfigError: the data set is unknown, or another one than `dataset`.
        """
        target = choose_device(device)
        set_precision("float32", target)
        content = read_trained(path)
        require_family(path, content, "dense")
        settings = content["settings"]
        spec = find_dataset(path, content, "images", dataset)
        task = ImageTask(spec, tuple(settings["structures"]), settings["size_px"])
        return cls(load_trained(path, settings, weights, target).method, task, target)

    def agreement(self) -> dict[str, Any]:
        """What must be equal in networks that are averaged, see `averaged`."""
        return {
            "method": type(self.segmenter.method).__name__,
            "classes": self.values,
            "size_px": self.task.side_px,
            "channels": self.task.spec.channels,
            "grid": self.task.spec.grid,
            "intensity": self.task.spec.intensity,
        }

    @property
    def values(self) -> dict[str, int]:
        """Structure -> value in label maps."""
        return self.task.supplied_values

    def read(self, path: Path) -> np.ndarray:
        """Reads an image with the channels and intensities of the data set; upright, (H, W) or (H, W, 3).

        Raises:
            DataError: absent, damaged, of several pages, or with fractions outside 0 to 1.
        """
        image = read_image(path, self.task.spec)
        if is_built_in(self.task.spec) and image.dtype == np.uint16 and image.max() < DARK_BELOW:
            logger.warning(
                "%s: values up to %d of 65535, which a network for %s sees as black; export it with 8 bits, or with "
                "the whole range of 16.",
                path, image.max(), self.task.spec.name,
            )  # fmt: skip
        return image

    def predict(self, image: np.ndarray) -> DensePrediction:
        """Segments an image.

        Args:
            image: (H, W) or (H, W, 3) uint8 or uint16, as `read` returns it.

        Raises:
            DataError: other channels or another type, or no field of view where it is to be cut out.
        """
        require_picture(image, self.task.spec.channels)
        framing = Framing.of(image, self.task.spec.grid, self.task.side_px)
        case = ImageCase(("image",), tuple(range(1, len(self.task.names) + 1)), self.network_input(image, framing))
        found = self.segmenter.segment(case)
        shares = framing.to_picture(self.task.in_full(to_host(found.probabilities)[:, 0]))
        return DensePrediction(
            dict(zip(self.task.names, masks_of_image(self.segmenter.method, shares), strict=True)),
            self.values,
            dict(zip(self.task.names, to_16_bits(shares), strict=True)),
            found.named_confidence(self.task.names),
        )

    def network_input(self, image: np.ndarray, framing: Framing) -> Float[Tensor, "1 C H W"]:
        """The window of the prepared image, normalised."""
        square = framing.image_to_square(image)[self.task.window]
        return normalise(image_tensor(square.reshape(1, *square.shape[:2], self.task.spec.channels)))

    def write_label_tables(self, folder: Path) -> None:
        """Writes the tables of the values and colours of label maps."""
        write_label_tables(folder, self.values)

    def result_names(self, name: str) -> list[str]:
        """Names of all label maps and masks that an image may have."""
        ends = ("", *(f"_{structure}" for structure in self.task.names))
        return [f"{name}{end}{SEGMENTATION}" for end in ends]


def require_picture(image: np.ndarray, channels: int) -> None:
    """Checks the shape and type of an image that is to be segmented.

    Raises:
        DataError: other channels, or neither uint8 nor uint16.
    """
    if image.dtype not in (np.uint8, np.uint16) or image.shape[2:] != ((3,) if channels == 3 else ()):
        raise DataError(
            f"an image of shape {image.shape} and type {image.dtype}; expected {channels} channel(s) of 8 or 16 bits. "
            "Read it with the predictor's `read`."
        )


def to_16_bits(probabilities: Float[np.ndarray, "K H W"]) -> Shaped[np.ndarray, "K H W"]:
    """Probabilities as uint16; `FULL` is 1."""
    return np.rint(probabilities * FULL).astype(np.uint16)


def overlap(masks: Mapping[str, Bool[np.ndarray, "..."]]) -> bool:
    """Whether a pixel is in several masks."""
    return bool((np.sum(list(masks.values()), axis=0) > 1).any())


def smallest_type(values: Mapping[str, int]) -> np.dtype[Any]:
    """The type of a label map with these values: uint8 or uint16."""
    return np.min_scalar_type(max(values.values()))


def segmentation_files(
    folder: Path, name: str, masks: Mapping[str, Bool[np.ndarray, "H W"]], values: Mapping[str, int]
) -> dict[Path, np.ndarray]:
    """`<name>_segmentation.png`, a label map; if structures overlap, a mask `<name>_<structure>_...` each.

    Args:
        folder: of the files.
        name: of the image.
        masks: by structure.
        values: structure -> value in the label map; in a mask of its own a structure is 255.
    """
    if overlap(masks):
        return {folder / f"{name}_{structure}{SEGMENTATION}": mask for structure, mask in masks.items()}
    label_map = np.zeros(next(iter(masks.values())).shape, smallest_type(values))
    for structure, mask in masks.items():
        label_map[mask] = values[structure]
    return {folder / f"{name}{SEGMENTATION}": label_map}


def probability_files(
    folder: Path, name: str, probabilities: Mapping[str, Shaped[np.ndarray, "H W"]]
) -> dict[Path, np.ndarray]:
    """`<name>_<structure>_probability.png` each, 16 bits, 65535 is 1."""
    return {folder / f"{name}_{structure}{PROBABILITY}": each for structure, each in probabilities.items()}
