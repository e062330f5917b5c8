"""Segments scans with a trained few-shot network and one annotated scan."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from dataloaders.description import DatasetSpec
from dataloaders.fewshot import protocol
from dataloaders.io.geometry import Grid, on_grid_of
from dataloaders.samples import EvalCase, SupportScan, SupportSet, Volume
from dataloaders.scans.labels import whole_values
from dataloaders.scans.normalise import Normalisation
from dataloaders.scans.preprocess import (
    PrepareParameters,
    parameters_of,
    paste_back,
    prepare_image,
    prepare_label,
)
from models.methods.base import Method
from models.prediction.origin import find_dataset, require_family
from models.prediction.raw_scans import check_array, warn_of_doubts
from models.prediction.segmenter import Segmenter, most_probable
from models.training.load import load_trained, read_trained
from util.errors import ConfigError, DataError, UserError
from util.runtime.device import choose_device, set_precision

logger = logging.getLogger(__name__)

MAX_STRUCTURES = 255  # of a label map
LENGTH_TOLERANCE = 1.5  # ratio of two scans' lengths along z above which relative heights hardly correspond


@dataclass(frozen=True)
class _Support:
    """What is known of the annotated scan, besides its features."""

    values: np.ndarray  # (K + 1,) label values, the background's 0 first
    slices: tuple[list[int], ...]  # K lists of the P supporting slices
    n_slices: int
    length_mm: float  # along z


class FewShotPredictor:
    """Segments scans with a trained few-shot network and one annotated scan; nothing is trained.

    Scans may have any orientation and spacing; label maps are returned on the grids of the scans.

        predictor = FewShotPredictor.from_checkpoint(Path("checkpoint.pt"))
        predictor.set_support(read_nifti(image_file), read_nifti(label_file), {"liver": 6})
        label_map = predictor.predict(read_nifti(scan_file))

    Attributes:
        segmenter: the method, in evaluation mode on its device, with the features of the annotated scan.
        normalisation: of prepared intensities.
        parameters: how scans are prepared.
        n_parts: supporting slices per structure; odd.
        structures: name -> label value, as set by `set_support`.
        spec: description of the data set that the network was trained on; None: unknown.
    """

    def __init__(
        self,
        method: Method,
        normalisation: Normalisation,
        parameters: PrepareParameters,
        n_parts: int = 3,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - immutable
        spec: DatasetSpec | None = None,
    ) -> None:
        protocol.part_fractions(n_parts)  # raises unless odd
        self.segmenter = Segmenter(method.to(device).eval(), device)
        self.normalisation = normalisation
        self.parameters = parameters
        self.n_parts = n_parts
        self.spec = spec
        self.structures: dict[str, int] = {}
        self._support: _Support | None = None

    @classmethod
    def from_checkpoint(
        cls,
        path: Path,
        weights: Literal["last", "ema"] = "last",
        device: str = "auto",
        *,
        n_parts: int = 3,
        dataset: str | None = None,
        modelname: str | None = None,
        normalisation: Normalisation | None = None,
    ) -> "FewShotPredictor":
        """Makes a predictor with the weights of a file.

        Args:
            path: a checkpoint or snapshot of ours, or one released by SSL-ALPNet's authors.
            weights: which of the weights in the file.
            device: auto, cpu or cuda. PyTorch computes there in full single precision.
            n_parts: supporting slices per structure; odd.
            dataset: name or description of what the network was trained on, where the file does not say (released
                ones).
            modelname: its encoder, likewise.
            normalisation: mean and standard deviation of the prepared training scans, likewise; needed for CT only.

        Raises:
            CheckpointError: unreadable, of another model, or of a method that is not few-shot.
            ConfigError: missing information, or trained on another data set.
        """
        content = read_trained(path)
        stored = content.get("settings", {})
        require_family(path, content, "fewshot")
        spec = find_dataset(path, content, "scans", dataset)
        if "modelname" not in stored and modelname is None:
            raise ConfigError(f"{path}: does not contain the name of its encoder; set modelname, e.g. dlfcn_res101.")
        settings = {"method": "alpnet", "modelname": modelname} | stored
        target = choose_device(device)
        set_precision("float32", target)
        trained = load_trained(path, settings, weights, target)
        normalisation = trained.normalisation or normalisation
        if normalisation is None and spec.intensity.normalise_by == "training_scans":
            raise ConfigError(
                f"{path}: does not contain the normalisation of CT; give the mean and the standard deviation of the "
                "prepared training scans (0 to 255)."
            )
        parameters = trained.preparation or parameters_of(spec)
        return cls(trained.method, normalisation or Normalisation(), parameters, n_parts, target, spec)

    def set_support(
        self, image: Volume, label: Volume, classes: Mapping[str, int] | Sequence[int] | None = None
    ) -> None:
        """Encodes one annotated scan, which defines what to segment; replaces an earlier one.

        Args:
            image: raw scan, not prepared; CT in Hounsfield units.
            label: label map on the image's grid; its axes may count in other directions. Values within 0.001 of a
                whole number are rounded.
            classes: label values to segment, or a name for each; None: all but 0.

        Raises:
            DataError: not a scan or a label map, different grids, or a structure that is absent or on too few slices.
            ConfigError: invalid classes.
        """
        check_array(image, "image")
        check_array(label, "label map", kinds="biuf")
        label = Volume(whole_values(label.array), label.affine, label.stored)
        structures = _structures(label, classes)
        numbered = _numbered(label, image, list(structures.values()), self.parameters.axis_codes)
        prepared = self._prepare(image, "the annotated scan")
        number = prepare_label(numbered, self.parameters).array
        masks = [number == k for k in range(1, len(structures) + 1)]
        slices = tuple(self._supporting_slices(mask, name) for mask, name in zip(masks, structures, strict=True))
        support = SupportSet(
            self._numbers(structures),
            torch.from_numpy(np.stack([prepared.array[z] for z in slices]))[:, :, None, None],  # (K, P, 1, 1, H, W)
            torch.from_numpy(np.stack([mask[z] for mask, z in zip(masks, slices, strict=True)]))[:, :, None],
            (
                SupportScan(
                    torch.from_numpy(prepared.array)[:, None],
                    torch.from_numpy(number),
                    prepared.spacing_mm,
                    torch.tensor(slices),
                ),
            ),
        )
        self.segmenter.set_support(support)
        values = np.array([0, *structures.values()], np.min_scalar_type(max(structures.values())))
        self._support = _Support(values, slices, len(prepared.array), _length_mm(prepared))
        self.structures = structures

    def predict(self, image: Volume, name: str = "the scan") -> Volume:
        """Segments a scan.

        Each slice is compared with the supporting slice at the most similar relative height, so both scans should show
        about the same part of the body. A voxel in the masks of several structures gets the most probable one.

        Args:
            image: raw scan; CT in Hounsfield units.
            name: of the scan, for warnings.

        Returns:
            Label map with the values of the support's, unsigned integers, on the grid of `image`.

        Raises:
            UserError: `set_support` was not called.
            DataError: not a scan: no numbers, a constant image, or no Hounsfield units where the network expects them.
        """
        support = self._support
        if support is None:
            raise UserError("no annotated scan; call set_support(image, label) before predict(image).")
        check_array(image, "image")
        prepared = self._prepare(image, name)
        _warn_of_length(name, _length_mm(prepared), support.length_mm)
        parts = [protocol.blind_parts(len(prepared.array), z, support.n_slices) for z in support.slices]
        scan = torch.from_numpy(prepared.array)[:, None]
        part = torch.from_numpy(np.stack(parts))
        case = EvalCase(name, self._numbers(self.structures), scan, part, spacing_mm=prepared.spacing_mm)
        found = self.segmenter.segment(case)
        number = most_probable(found.probabilities, found.masks).cpu().numpy()
        grid = Grid.of(image)
        pasted = paste_back(Volume(number, prepared.affine), grid.shape, grid.affine)
        return Volume(support.values[pasted.array], image.affine, image.stored)

    @staticmethod
    def _numbers(structures: Mapping[str, int]) -> tuple[int, ...]:
        """What stands for the structures in prepared label maps, whatever their values in the given one."""
        return tuple(range(1, len(structures) + 1))

    def _prepare(self, image: Volume, name: str) -> Volume:
        warn_of_doubts(image, self.parameters, self.spec, name)
        prepared = prepare_image(image, self.parameters)
        return Volume(self.normalisation.apply(prepared.array), prepared.affine)

    def _supporting_slices(self, mask: np.ndarray, name: str) -> list[int]:
        shown = np.flatnonzero(mask.any((1, 2)))
        if len(shown) < self.n_parts:
            raise DataError(
                f"the annotation shows {name} on {len(shown)} slices of the prepared scan; expected at least "
                f"{self.n_parts}. Annotate more slices, use fewer parts (an odd number), or leave this structure out."
            )
        return protocol.support_slices(shown.tolist(), self.n_parts).tolist()


def _structures(label: Volume, classes: Mapping[str, int] | Sequence[int] | None) -> dict[str, int]:
    """Name -> label value of the structures to segment, checked against the label map."""
    found = np.unique(label.array)
    if found[0] < 0 or len(found) > MAX_STRUCTURES + 1:
        raise DataError(
            f"the label map contains {len(found)} values from {found[0]} to {found[-1]}; expected whole numbers, 0 "
            f"for the background and at most {MAX_STRUCTURES} structures. Is it an image?"
        )
    present = [int(value) for value in found if value > 0]
    if not present:
        raise DataError("the label map is empty; expected at least one structure with a value above 0.")
    chosen = present if classes is None else classes
    structures = dict(chosen) if isinstance(chosen, Mapping) else {f"label {value}": value for value in chosen}
    values = list(structures.values())
    if not values or min(values) < 1 or len(set(values)) < len(chosen):
        raise ConfigError(f"classes={classes}: expected different label values from 1.")
    absent = sorted(set(values) - set(present))
    if absent:
        raise DataError(f"the label map contains the values {present}, not {absent}; choose classes from the former.")
    return structures


def _numbered(label: Volume, image: Volume, values: Sequence[int], axis_codes: str) -> Volume:
    """The label map with 1 to K for `values`, on the reoriented image's grid."""
    try:
        turned = on_grid_of(image, label, axis_codes)
    except DataError as error:
        raise DataError(f"the label map has {error}") from error
    number = np.zeros(turned.array.shape, np.uint8)
    for k, value in enumerate(values, start=1):
        number[turned.array == value] = k
    return Volume(number, turned.affine)


def _length_mm(volume: Volume) -> float:
    return len(volume.array) * volume.spacing_mm[0]


def _warn_of_length(name: str, length_mm: float, support_mm: float) -> None:
    if max(length_mm, support_mm) > LENGTH_TOLERANCE * min(length_mm, support_mm):
        logger.warning(
            "%s covers %.0f mm along the body, the annotated scan %.0f mm: slices may be compared with the wrong part "
            "of a structure. Crop one of them to about the same range.",
            name,
            length_mm,
            support_mm,
        )
