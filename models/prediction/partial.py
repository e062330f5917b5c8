"""Segments images of any size with a network of several tasks; validation writes its masks with the same functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped

from dataloaders.description import DatasetSpec
from dataloaders.images.framing import Framing
from dataloaders.images.labels import image_tensor
from dataloaders.images.preprocess import read_image
from dataloaders.partial.config import standardise
from dataloaders.partial.store import to_unit
from dataloaders.partial.tasks import channels_of
from dataloaders.samples import ImageCase, Task
from models.methods.base import Method
from models.prediction.averaging import Intensities
from models.prediction.dense import SEGMENTATION, require_picture, segmentation_files, to_16_bits
from models.prediction.label_tables import write_label_tables
from models.prediction.origin import find_dataset, require_family
from models.prediction.segmenter import Segmenter, masks_of_image, to_host
from models.training.load import load_trained, read_trained
from util.errors import CheckpointError
from util.runtime.device import choose_device, set_precision
from util.schema import build


def values_of(task: Task) -> dict[str, int]:
    """Class -> value in the label map of its task: its place, from 1."""
    return {name: value for value, name in enumerate(task.classes, start=1)}


def task_files(
    folder: Path, name: str, task: Task, masks: Mapping[str, Bool[np.ndarray, "H W"]]
) -> dict[Path, np.ndarray]:
    """`<name>_<task>_segmentation.png`, a label map; if classes overlap, a mask `<name>_<task>_<class>_...` each.

    Nested classes always have a label map, in which a pixel has the value of the innermost one; so have exclusive ones.

    Args:
        folder: of the files.
        name: of the image.
        task: whose classes are written.
        masks: by class, also those of other tasks; those of exclusive classes as `separate` returns them.
    """
    return segmentation_files(folder, f"{name}_{task.name}", innermost(task, masks), values_of(task))


def innermost(task: Task, masks: Mapping[str, Bool[np.ndarray, "..."]]) -> dict[str, Bool[np.ndarray, "..."]]:
    """The masks of the classes of a task; those of nested ones without what is in them."""
    own = {each: masks[each] for each in task.classes}
    if task.relation == "nested":
        taken = np.zeros(next(iter(own.values())).shape, bool)
        for each in reversed(task.classes):
            own[each] = masks[each] & ~taken
            taken |= masks[each]
    return own


def separate(
    tasks: Sequence[Task], probabilities: Float[np.ndarray, "K ..."], masks: Bool[np.ndarray, "K ..."]
) -> Bool[np.ndarray, "K ..."]:
    """The masks of the classes of all tasks; where exclusive ones overlap, the most probable keeps the pixel.

    Of equally probable classes the first keeps it. Other relations are left as they are.
    """
    kept = masks.copy()
    ends = np.cumsum([len(task.classes) for task in tasks])
    for task, share, mask in zip(tasks, np.split(probabilities, ends[:-1]), np.split(kept, ends[:-1]), strict=True):
        if task.relation == "exclusive":
            winner = np.where(mask, share, -1).argmax(0)
            mask &= winner == np.arange(len(mask)).reshape(-1, *[1] * winner.ndim)  # a view of what is returned
    return kept


@dataclass(frozen=True)
class PartialPrediction:
    """The classes of all tasks in one image, on the grid of the image.

    Attributes:
        masks: class -> (H, W) bool; see `separate` for those that exclude each other, all others may overlap.
        probabilities: class -> (H, W) uint16, 65535 is 1; 0 outside what the network sees.
        values: class -> value in the label map of its task.
        confidence: class -> how firm its outline is; None: nothing was found.
        tasks: of the network.
    """

    masks: Mapping[str, Bool[np.ndarray, "H W"]]
    probabilities: Mapping[str, Shaped[np.ndarray, "H W"]]
    values: Mapping[str, int]
    confidence: Mapping[str, float | None]
    tasks: tuple[Task, ...]

    def label_files(self, folder: Path, name: str) -> dict[Path, np.ndarray]:
        """The label maps or masks of each task; see `task_files`."""
        files: dict[Path, np.ndarray] = {}
        for task in self.tasks:
            files |= task_files(folder, name, task, self.masks)
        return files


class PartialPredictor:
    """Segments images into the classes of several tasks, prepared as those that the network was trained on.

        predictor = PartialPredictor.from_checkpoint(Path("checkpoint.pt"))
        prediction = predictor.predict(predictor.read(Path("image.png")))
        prediction.masks["disc"]  # at the size of the image

    Attributes:
        segmenter: the method, in evaluation mode on its device.
        spec: one description of the data sets that were trained on.
        tasks: of the network, in the order of its outputs.
        mean, sd: of each channel, for intensities of 0 to 255.
        side_px: rows and columns of what the network sees.
    """

    def __init__(
        self,
        method: Method,
        spec: DatasetSpec,
        tasks: Sequence[Task],
        intensities: tuple[tuple[float, ...], tuple[float, ...]],
        side_px: int | None = None,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - immutable
    ) -> None:
        self.segmenter = Segmenter(method.to(device).eval(), device)
        self.spec, self.tasks = spec, tuple(tasks)
        self.mean, self.sd = intensities
        self.side_px = side_px or spec.grid.size_px

    @classmethod
    def from_checkpoint(
        cls, path: Path, weights: Literal["last", "ema"] = "last", device: str = "auto", *, dataset: str | None = None
    ) -> "PartialPredictor":
        """Makes a predictor with the weights, the description and the settings of a file.

        Args:
            path: a checkpoint or snapshot of a method of this family.
            weights: which of the weights in the file.
            device: auto, cpu or cuda. PyTorch computes there in full single precision.
            dataset: name or description of what the network was trained on; may be left out.

        Raises:
            CheckpointError: unreadable, of another family, or without tasks or intensities.
            ConfigError: trained on other data than `dataset`.
        """
        content = read_trained(path)
        require_family(path, content, "partial")
        spec = find_dataset(path, content, "images", dataset)
        tasks, *intensities = network_settings(path, content["settings"])
        target = choose_device(device)
        set_precision("float32", target)
        trained = load_trained(path, content["settings"], weights, target)
        return cls(
            trained.method, spec, tasks, (intensities[0], intensities[1]), content["settings"]["size_px"], target
        )

    @property
    def intensities(self) -> Intensities:
        """Of the images that the network sees, of 0 to 255 before."""
        return Intensities(self.mean, self.sd)

    def agreement(self) -> dict[str, Any]:
        """What must be equal in networks that are averaged, see `averaged`."""
        return {
            "method": type(self.segmenter.method).__name__,
            "tasks": self.tasks,
            "size_px": self.side_px,
            "channels": self.spec.channels,
            "grid": self.spec.grid,
            "intensity": self.spec.intensity,
        }

    @property
    def values(self) -> dict[str, int]:
        """Class -> value in the label map of its task."""
        return {name: value for task in self.tasks for name, value in values_of(task).items()}

    def read(self, path: Path) -> np.ndarray:
        """Reads an image with the channels and intensities of the data sets; upright, (H, W) or (H, W, 3).

        Raises:
            DataError: absent, damaged, of several pages, or with fractions outside 0 to 1.
        """
        return read_image(path, self.spec)

    def predict(self, image: np.ndarray) -> PartialPrediction:
        """Segments an image; where the training images were cut out by their field of view, this one is, too.

        Args:
            image: (H, W) or (H, W, 3) uint8 or uint16, as `read` returns it.

        Raises:
            DataError: other channels or another type, or no field of view where it is to be cut out.
        """
        require_picture(image, self.spec.channels)
        framing = Framing.of(image, self.spec.grid, self.side_px)
        square = framing.image_to_square(image).reshape(1, self.side_px, self.side_px, -1)
        names = channels_of(self.tasks)
        tensor = standardise(to_unit(image_tensor(square)), self.mean, self.sd)
        found = self.segmenter.segment(ImageCase(("image",), tuple(range(1, len(names) + 1)), tensor))
        shares = framing.to_picture(to_host(found.probabilities)[:, 0])
        masks = separate(self.tasks, shares, masks_of_image(self.segmenter.method, shares))
        return PartialPrediction(
            dict(zip(names, masks, strict=True)),
            dict(zip(names, to_16_bits(shares), strict=True)),
            self.values,
            found.named_confidence(names),
            self.tasks,
        )

    def write_label_tables(self, folder: Path) -> None:
        """Writes the tables of the values and colours of label maps, `labels_<task>.txt` and `.ctbl`."""
        first = 0
        for task in self.tasks:
            write_label_tables(folder, values_of(task), f"labels_{task.name}", first)
            first += len(task.classes)

    def result_names(self, name: str) -> list[str]:
        """Names of all label maps and masks that an image may have."""
        ends = [task.name for task in self.tasks]
        ends += [f"{task.name}_{each}" for task in self.tasks for each in task.classes]
        return [f"{name}_{end}{SEGMENTATION}" for end in ends]


def network_settings(
    path: Path, settings: Mapping[str, Any]
) -> tuple[tuple[Task, ...], tuple[float, ...], tuple[float, ...]]:
    """Tasks, means and standard deviations of a checkpoint.

    Raises:
        CheckpointError: one of them is missing.
    """
    missing = [key for key in ("heads", "mean", "sd") if not settings.get(key)]
    if missing or "size_px" not in settings:
        raise CheckpointError(
            f"{path}: its settings hold no {', '.join(missing) or 'size_px'}; expected a checkpoint.pt or snapshot "
            "that training.py wrote."
        )
    heads = tuple(build(Task, each, "heads.") for each in settings["heads"])
    return heads, tuple(settings["mean"]), tuple(settings["sd"])
