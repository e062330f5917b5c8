"""Segments scans with a trained few-shot network and annotated scans."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from dataloaders.description import DatasetSpec
from dataloaders.fewshot import protocol
from dataloaders.io.geometry import Grid
from dataloaders.samples import EvalCase, Volume
from dataloaders.scans.normalise import Normalisation
from dataloaders.scans.preprocess import PrepareParameters, parameters_of, paste_back, prepare_image
from models.methods.base import Method
from models.networks.similarity import Likeness
from models.prediction.annotated import (
    Annotated,
    PreparedSupport,
    check_annotated,
    choose_structures,
    make_support_set,
    number_structures,
    prepare_numbers,
    supporting_slices,
)
from models.prediction.averaging import Intensities
from models.prediction.origin import find_dataset, require_family
from models.prediction.raw_scans import check_array, warn_of_brightness, warn_of_doubts
from models.prediction.segmenter import ScanSegmentation, Segmenter, most_probable, on_scan, to_host
from models.training.load import Trained, load_trained, read_trained
from util.errors import ConfigError, UserError
from util.items import naming
from util.runtime.device import choose_device, set_precision

logger = logging.getLogger(__name__)

LENGTH_TOLERANCE = 1.5  # ratio of two scans' lengths along z above which relative heights hardly correspond


class FewShotPredictor:
    """Segments scans with a trained few-shot network and annotated scans; nothing is trained.

    Scans may have any orientation and spacing; label maps are returned on the grids of the scans.

        predictor = FewShotPredictor.from_checkpoint(Path("checkpoint.pt"))
        predictor.set_support(read_nifti(image_file), read_nifti(label_file), {"liver": 6})
        label_map = predictor.predict(read_nifti(scan_file))

    Attributes:
        segmenter: the method, in evaluation mode on its device, with the features of the annotated scans.
        normalisation: of prepared intensities.
        parameters: how scans are prepared.
        n_parts: supporting slices per structure; odd.
        structures: name -> label value, as set by `set_support`.
        spec: description of the data set that the network was trained on; None: unknown.
        min_confidence: a structure that is found with less is left out.
    """

    family = "fewshot"

    def __init__(
        self,
        method: Method,
        normalisation: Normalisation,
        parameters: PrepareParameters,
        n_parts: int = 3,
        device: torch.device = torch.device("cpu"),  # noqa: B008 - immutable
        spec: DatasetSpec | None = None,
        min_confidence: float = 0.0,
    ) -> None:
        protocol.part_fractions(n_parts)  # raises unless odd
        self.segmenter = Segmenter(method.to(device).eval(), device)
        self.normalisation = normalisation
        self.parameters = parameters
        self.n_parts = n_parts
        self.spec = spec
        self.min_confidence = min_confidence
        self.structures: dict[str, int] = {}
        self._supports: list[PreparedSupport] = []

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
        min_confidence: float = 0.0,
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
            min_confidence: see the class.

        Raises:
            CheckpointError: unreadable, of another model, or of a method that is not few-shot.
            ConfigError: missing information, or trained on another data set.
        """
        content = read_trained(path)
        stored = content.get("settings", {})
        require_family(path, content, cls.family)
        spec = find_dataset(path, content, "scans", dataset)
        if "modelname" not in stored and modelname is None:
            raise ConfigError(f"{path}: does not contain the name of its encoder; set modelname, e.g. dlfcn_res101.")
        settings = {"method": "alpnet", "modelname": modelname} | stored
        target = choose_device(device)
        set_precision("float32", target)
        trained = cls._load(path, settings, weights, target)
        normalisation = trained.normalisation or normalisation
        if normalisation is None and spec.intensity.normalise_by == "training_scans":
            raise ConfigError(
                f"{path}: does not contain the normalisation of CT; give the mean and the standard deviation of the "
                "prepared training scans (0 to 255)."
            )
        parameters = trained.preparation or parameters_of(spec)
        made = cls(trained.method, normalisation or Normalisation(), parameters, n_parts, target, spec, min_confidence)
        made.read_settings(stored)
        return made

    def read_settings(self, settings: Mapping[str, Any]) -> None:
        """Takes what else matters from the settings of a checkpoint; here nothing."""

    @property
    def intensities(self) -> Intensities:
        """Of the scans that the network sees; those of MR are normalised one by one."""
        mean, std = self.normalisation.mean, self.normalisation.std
        return Intensities() if mean is None or std is None else Intensities((mean,), (std,))

    def agreement(self) -> dict[str, Any]:
        """What must be equal in networks that are averaged, see `averaged`."""
        return {
            "method": type(self.segmenter.method).__name__,
            "classes": self.structures,
            "preparation": self.parameters,
            "statistics": "of each scan" if self.normalisation.mean is None else "of the training scans",
        }

    @classmethod
    def _load(cls, path: Path, settings: dict[str, Any], weights: str, device: torch.device) -> Trained:
        """The method with its weights; `settings` are those of the file."""
        return load_trained(path, settings, weights, device)

    def set_support(
        self, image: Volume, label: Volume, classes: Mapping[str, int] | Sequence[int] | None = None
    ) -> None:
        """Encodes one annotated scan, see `set_supports`."""
        self.set_supports([Annotated(image, label)], classes)

    def set_supports(
        self, scans: Sequence[Annotated], classes: Mapping[str, int] | Sequence[int] | None = None
    ) -> None:
        """Encodes the annotated scans, which define what to segment; replaces earlier ones.

        Args:
            scans: one or more raw scans, not prepared, with their label maps; CT in Hounsfield units. A label map is on
                the grid of its image; its axes may count in other directions. Values within 0.001 of a whole number are
                rounded.
            classes: label values to segment, or a name for each; None: all but 0.

        Raises:
            DataError: not a scan or a label map, different grids, or a structure that is absent or on too few slices.
            ConfigError: invalid classes.
        """
        checked, prepared = [], []
        for scan in scans:
            with naming(scan.name):
                checked.append(check_annotated(scan))
        structures = choose_structures(checked, classes, self.name_of)
        for scan in checked:
            with naming(scan.name):
                prepared.append(self._annotate(scan, structures))
        self.segmenter.set_support(make_support_set(prepared, structures))
        self._supports, self.structures = prepared, structures

    def name_of(self, value: int) -> str:
        """The name of a label value that is given none."""
        return f"label {value}"

    def predict(self, image: Volume, name: str = "the scan") -> Volume:
        """The label map of a scan; see `segment`."""
        return self.segment(image, name).label_map

    def segment(self, image: Volume, name: str = "the scan", *, with_probabilities: bool = False) -> ScanSegmentation:
        """Segments a scan. A voxel in the masks of several structures gets the most probable one.

        Methods of single slices compare each slice with the supporting slice at the most similar relative height, so
        that both scans should show about the same part of the body.

        Args:
            image: raw scan; CT in Hounsfield units.
            name: of the scan, for warnings.
            with_probabilities: whether these are wanted, too, also of structures that are left out.

        Raises:
            UserError: `set_support` was not called.
            DataError: not a scan: no numbers, a constant image, or no Hounsfield units where the network expects them.
        """
        case, affine = self._encode(image, name)
        found = self.segmenter.segment(case)
        self._warn_if_unlike(case)
        is_kept = (found.confidence >= self.min_confidence)[:, None, None, None]
        number = most_probable(found.probabilities, found.masks & is_kept).cpu().numpy()
        grid = Grid.of(image)
        pasted = paste_back(Volume(number, affine), grid.shape, grid.affine)
        values = np.array([0, *self.structures.values()], np.min_scalar_type(max(self.structures.values())))
        label_map = Volume(values[pasted.array], image.affine, image.stored)
        maps = on_scan(self.structures, to_host(found.probabilities), affine, image) if with_probabilities else {}
        return ScanSegmentation(label_map, found.named_confidence(self.structures), maps)

    def likeness(self, image: Volume, name: str = "the scan") -> Likeness | None:
        """How like the annotated scans a scan is, see `models.networks.similarity`; None: the method cannot tell.

        Raises:
            UserError, DataError: see `segment`.
        """
        return self.segmenter.likeness(self._encode(image, name)[0])

    def _encode(self, image: Volume, name: str) -> tuple[EvalCase, np.ndarray]:
        """A scan on the network's grid, with what the method needs of it, and that grid's affine."""
        self._require_support()
        check_array(image, "image")
        prepared = self._prepare(image, self._parameters_for(image), name)
        warn_of_brightness(prepared.array, [each.profile for each in self._supports], name)
        return self.segmenter.encode(self._case(prepared, name)), prepared.affine

    def _case(self, prepared: Volume, name: str) -> EvalCase:
        image, classes = torch.from_numpy(prepared.array)[:, None], self._classes
        part = torch.from_numpy(np.stack(self._parts(prepared, name)))
        return EvalCase(name, classes, image, part, spacing_mm=prepared.spacing_mm)

    def _warn_if_unlike(self, case: EvalCase) -> None:
        likeness = self.segmenter.likeness(case)
        if likeness is not None and likeness.is_low:
            text = "%s may show another body part or modality: similarity %.2f, the annotated scan with itself %.2f"
            logger.warning(text, case.scan_id, likeness.case, likeness.support)

    def _prepare(self, image: Volume, parameters: PrepareParameters, name: str) -> Volume:
        warn_of_doubts(image, parameters, self.spec, name)
        prepared = prepare_image(image, parameters)
        return Volume(self.normalisation.apply(prepared.array), prepared.affine)

    # What depends on the method

    def _require_support(self) -> None:
        if not self._supports:
            raise UserError("no annotated scan; call set_support(image, label) before predict(image).")

    @property
    def _classes(self) -> tuple[int, ...]:
        """Values of the structures in the method."""
        return tuple(range(1, len(self.structures) + 1))

    def _parameters_for(self, image: Volume) -> PrepareParameters:
        """How a scan is prepared."""
        return self.parameters

    def _annotate(self, scan: Annotated, structures: Mapping[str, int]) -> PreparedSupport:
        """An annotated scan on the network's grid."""
        numbered = number_structures(scan, structures, self.parameters.axis_codes)
        image = self._prepare(scan.image, self.parameters, scan.name)
        number = prepare_numbers(numbered, self.parameters, structures)
        return PreparedSupport(image, number, supporting_slices(number, structures, self.n_parts))

    def _parts(self, prepared: Volume, name: str) -> list[np.ndarray]:
        """For each structure, the part of the support set for each slice of a scan; warns of one of another length."""
        first = self._supports[0]
        n_slices, n_support = len(prepared.array), len(first.number)
        _warn_of_length(name, n_slices * prepared.spacing_mm[0], n_support * first.image.spacing_mm[0])
        return [protocol.blind_parts(n_slices, z, n_support) for z in first.slices]


def _warn_of_length(name: str, length_mm: float, support_mm: float) -> None:
    if max(length_mm, support_mm) > LENGTH_TOLERANCE * min(length_mm, support_mm):
        logger.warning(
            "%s covers %.0f mm along the body, the annotated scan %.0f mm: slices may be compared with the wrong part "
            "of a structure. Crop one of them to about the same range.",
            name,
            length_mm,
            support_mm,
        )
