"""Segments scans with annotated scans alone: no trained network, no description of the data."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataloaders import catalog
from dataloaders.samples import Volume
from dataloaders.scans.guess import describe_scan, whole_scan
from dataloaders.scans.manifest import statistics_of
from dataloaders.scans.normalise import Normalisation
from dataloaders.scans.preprocess import PrepareParameters, parameters_of, prepare_image
from models.methods.propagation import Propagation, PropagationConfig
from models.prediction.annotated import Annotated, PreparedSupport, keep_slices, number_structures, prepare_numbers
from models.prediction.fewshot import FewShotPredictor
from models.prediction.raw_scans import check_array
from models.prediction.segmenter import most_probable
from models.training.load import Trained, load_with_encoder
from util.errors import UserError
from util.runtime.device import choose_device, set_precision

logger = logging.getLogger(__name__)

LEAST_OWN_DICE = 0.5  # of a structure in the annotated scan, segmented with its own annotation
REVIEW_BELOW = 0.4  # confidence; chosen on the pairs among the CHAOS scans 8, 10, 13 and 15


class PropagationPredictor(FewShotPredictor):
    """Segments scans by label propagation from annotated ones, on packaged ImageNet weights.

    All slices on which any structure is annotated are used; there may be one or many, in one or several scans.

        predictor = PropagationPredictor.from_scan(image)
        predictor.set_support(image, label, {"liver": 6})
        label_map = predictor.predict(read_nifti(scan_file))

    `from_checkpoint` takes the encoder of a trained few-shot network in place of the packaged weights, and prepares
    scans as in its training; `n_parts` has no meaning then.

    Attributes:
        holds_whole_scans: the grid of each scan holds all of it; else rows and columns are those of a description.
        names: label value -> name, of a description.
    """

    holds_whole_scans = False
    names: Mapping[int, str] = {}

    @classmethod
    def from_scan(
        cls,
        image: Volume,
        device: str = "auto",
        *,
        dataset: str | None = None,
        normalisation: Normalisation | None = None,
        min_confidence: float = 0.0,
    ) -> "PropagationPredictor":
        """Makes a predictor for scans like an annotated one.

        Args:
            image: the annotated scan, raw. Grid and intensity rule are chosen for it, see `describe_scan`, and CT is
                normalised with its mean and standard deviation.
            device: auto, cpu or cuda.
            dataset: name or description of a data set, in place of the rules that are chosen.
            normalisation: mean and standard deviation of prepared scans, in place of the image's; CT only.
            min_confidence: a structure that is found with less is left out.

        Raises:
            ConfigError: no such description, or the package with the weights is not installed.
            CheckpointError: the weights are damaged.
            DataError: not a scan.
        """
        check_array(image, "image")
        if dataset is None:
            spec, rule = describe_scan(image)
            logger.info("rules from the first annotated scan (--dataset gives others): %s", rule)
        else:
            spec = catalog.dataset(dataset, "scans")
        target = choose_device(device)
        set_precision("float32", target)
        try:
            method = Propagation(PropagationConfig(annotation="labelled"))
        except UserError as error:
            raise type(error)(f"{error} A trained few-shot network (--checkpoint) does without.") from error
        parameters = parameters_of(spec)
        if normalisation is None and spec.intensity.normalise_by == "training_scans":
            fitted = whole_scan(parameters, image) if dataset is None else parameters
            normalisation = Normalisation.fit(spec, [statistics_of(prepare_image(image, fitted).array)])
        made = cls(method, normalisation or Normalisation(), parameters, 1, target, spec, min_confidence)
        made.holds_whole_scans = dataset is None
        made.names = {spec.supplied_value(k): each.name for k, each in enumerate(spec.classes, start=1)}
        return made

    @classmethod
    def _load(cls, path: Path, settings: dict[str, Any], weights: str, device: torch.device) -> Trained:
        del settings  # those of the network, which is not used but for its encoder
        own = {"method": "propagation"} | asdict(PropagationConfig(annotation="labelled"))
        return load_with_encoder(path, own, weights, device)

    def set_supports(
        self, scans: Sequence[Annotated], classes: Mapping[str, int] | Sequence[int] | None = None
    ) -> None:
        """See the base class. Warns of structures that are not even found again in the first annotated scan."""
        super().set_supports(scans, classes)
        first = self._supports[0]
        case = replace(self._case(first.image, scans[0].name), encoded=self.segmenter.support[0].scan)
        found = self.segmenter.segment(case)
        label = most_probable(found.probabilities, found.masks).cpu().numpy()
        is_annotated = first.number.any((1, 2))
        for k, name in enumerate(self.structures, start=1):
            one, other = label[is_annotated] == k, first.number[is_annotated] == k
            dice = 2 * int((one & other).sum()) / max(int(one.sum()) + int(other.sum()), 1)
            if other.any() and dice < LEAST_OWN_DICE:
                text = "%s: %s is not found again in its own scan (Dice %.2f): too small, too thin, or too blurred"
                logger.warning(text, scans[0].name, name, dice)

    def name_of(self, value: int) -> str:
        """The description's name of a label value, or one with the number."""
        return self.names.get(value, super().name_of(value))

    def _parameters_for(self, image: Volume) -> PrepareParameters:
        return whole_scan(self.parameters, image) if self.holds_whole_scans else self.parameters

    def _annotate(self, scan: Annotated, structures: Mapping[str, int]) -> PreparedSupport:
        parameters = self._parameters_for(scan.image)
        numbered = number_structures(scan, structures, parameters.axis_codes)
        parameters = keep_slices(parameters, numbered)
        image = self._prepare(scan.image, parameters, scan.name)
        return PreparedSupport(image, prepare_numbers(numbered, parameters, structures), ())

    def _parts(self, prepared: Volume, name: str) -> list[np.ndarray]:
        return [np.zeros(len(prepared.array), np.int64)] * len(self.structures)  # scans are compared as a whole
