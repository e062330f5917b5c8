"""Segments scans, also of several frames, with a network trained on slices of several domains."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from dataloaders.description import DatasetSpec
from dataloaders.io.geometry import Grid, paste_back
from dataloaders.samples import ImageCase, Volume
from dataloaders.scans.folder import MULTIPLE_PX
from dataloaders.scans.labels import to_supplied_values
from dataloaders.scans.preprocess import PrepareParameters, parameters_of, prepare_frames
from dataloaders.sources.frames import SliceRule
from models.methods.base import Method
from models.prediction.averaging import Intensities
from models.prediction.origin import find_dataset, require_family
from models.prediction.raw_scans import check_array, warn_of_doubts
from models.prediction.segmenter import ScanSegmentation, Segmentation, Segmenter, most_probable, on_scan, to_host
from models.training.load import load_trained, read_trained
from util.errors import CheckpointError, DataError
from util.runtime.device import choose_device, set_precision

OwnPredictor = TypeVar("OwnPredictor", bound="SourcesPredictor")


def segment_slices(segmenter: Segmenter, case: ImageCase) -> tuple[UInt8[np.ndarray, "D h w"], Segmentation]:
    """Segments the slices of a case; the method takes `images_per_pass` of them together.

    Returns:
        For each pixel the most probable of the classes whose mask contains it, else 0; and what was found.
    """
    found = segmenter.segment(case)
    values = np.array([0, *case.classes], np.uint8)
    return values[most_probable(found.probabilities, found.masks).cpu().numpy()], found


class SourcesPredictor:
    """Segments scans slice by slice; nothing but the scan is needed.

    Scans may have any orientation and spacing; label maps are returned on the grids of the scans.

        predictor = SourcesPredictor.from_checkpoint(Path("checkpoint.pt"))
        label_maps = predictor.predict(read_frames(scan_file))

    Attributes:
        segmenter: the method, in evaluation mode on its device.
        rule: how slices are normalised.
        parameters: how scans are prepared.
        spec: description of the data set that the network was trained on.
        structures: name -> value in the label maps.
        intensities: of the slices that the network sees, after `rule`.
    """

    family: ClassVar[str] = "sources"
    intensities: Intensities = Intensities()

    def __init__(
        self,
        method: Method,
        rule: SliceRule,
        parameters: PrepareParameters,
        spec: DatasetSpec,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - immutable
    ) -> None:
        self.segmenter = Segmenter(method.to(device).eval(), device)
        self.rule, self.parameters, self.spec = rule, parameters, spec
        places = range(1, len(spec.class_names))
        self.structures = {spec.class_names[place]: spec.supplied_value(place) for place in places}

    @classmethod
    def from_checkpoint(
        cls: type[OwnPredictor],
        path: Path,
        weights: Literal["last", "ema"] = "last",
        device: str = "auto",
        *,
        dataset: str | None = None,
    ) -> OwnPredictor:
        """Makes a predictor with the weights of a checkpoint or snapshot.

        Args:
            path: of the file.
            weights: which of the weights in the file.
            device: auto, cpu or cuda. PyTorch computes there in full single precision.
            dataset: name or description of what the network was trained on, where the file does not contain it.

        Raises:
            CheckpointError: unreadable, or of a method of another family.
            ConfigError: trained on another data set.
        """
        content = read_trained(path)
        require_family(path, content, cls.family)
        spec = find_dataset(path, content, "scans", dataset)
        target = choose_device(device)
        set_precision("float32", target)
        trained = load_trained(path, content["settings"], weights, target)
        if trained.slices is None:
            raise CheckpointError(
                f"{path}: does not say how slices are normalised; expected a checkpoint.pt or snapshot that "
                "training.py wrote."
            )
        made = cls(trained.method, trained.slices, trained.preparation or parameters_of(spec), spec, target)
        made.read_settings(path, content["settings"])
        return made

    def read_settings(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Takes what else matters from the settings of a checkpoint; here nothing."""

    def network_input(self, prepared: np.ndarray) -> Float[Tensor, "D 1 h w"]:
        """The slices of a prepared scan (D, H, W) as the network sees them."""
        return self.rule.apply(prepared)

    def predict(self, frames: Sequence[Volume], name: str = "the scan") -> list[Volume]:
        """The label map of each frame of a scan; see `segment`."""
        return [found.label_map for found in self.segment(frames, name)]

    def agreement(self) -> dict[str, Any]:
        """What must be equal in networks that are averaged, see `averaged`."""
        return {
            "method": type(self.segmenter.method).__name__,
            "classes": self.structures,
            "preparation": self.parameters,
            "slices": self.rule,
        }

    def segment(
        self, frames: Sequence[Volume], name: str = "the scan", *, with_probabilities: bool = False
    ) -> list[ScanSegmentation]:
        """Segments the frames of a scan.

        Args:
            frames: raw, of one grid; one frame for a scan without time.
            name: of the scan, for warnings.
            with_probabilities: whether these are wanted, too.

        Returns:
            Of each frame a label map with the values of the data set's own label maps, on the frame's grid.

        Raises:
            DataError: no scan: no numbers, a constant image, or frames of different grids.
        """
        _check_frames(frames)
        warn_of_doubts(frames[0], self.parameters, self.spec, name)
        stack = prepare_frames(frames, self.parameters)  # (T D, H, W)
        rows, columns = (side - side % MULTIPLE_PX for side in stack.array.shape[1:])
        parts = np.split(stack.array[:, :rows, :columns], len(frames))
        return [
            self._segment(Volume(part, stack.affine), frame, name, with_probabilities)
            for part, frame in zip(parts, frames, strict=True)
        ]

    def _segment(self, prepared: Volume, frame: Volume, name: str, with_probabilities: bool) -> ScanSegmentation:
        ids = tuple(f"{name} {z}" for z in range(len(prepared.array)))
        case = ImageCase(ids, tuple(range(1, len(self.spec.class_names))), self.network_input(prepared.array))
        label, found = segment_slices(self.segmenter, case)
        shape = prepared.array.shape[1:]
        whole = self.rule.in_full(label, shape)
        grid = Grid.of(frame)
        pasted = paste_back(Volume(whole, prepared.affine), grid.shape, grid.affine)
        label_map = Volume(to_supplied_values(pasted.array, self.spec), frame.affine, frame.stored)
        maps = {}
        if with_probabilities:
            shares = self.rule.in_full(to_host(found.probabilities), shape)
            maps = on_scan(self.structures, shares, prepared.affine, frame)
        return ScanSegmentation(label_map, found.named_confidence(self.structures), maps)


def _check_frames(frames: Sequence[Volume]) -> None:
    if not frames:
        raise DataError("no frames; expected one or more.")
    for frame in frames:
        check_array(frame, "scan")
        if frame.array.shape != frames[0].array.shape or not np.allclose(frame.affine, frames[0].affine):
            raise DataError(
                f"frames of {frames[0].array.shape} and {frame.array.shape} voxels (D, H, W), or at different places; "
                "expected one grid. Segment them as scans of their own."
            )
