"""Segments scans with a self-trained network, which needs no annotated scan any more."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dataloaders.samples import Volume
from models.prediction.annotated import Annotated
from models.prediction.fewshot import FewShotPredictor
from util.errors import ConfigError


class SelfTrainedPredictor(FewShotPredictor):
    """Segments scans with a network of the method `self_training`.

        predictor = SelfTrainedPredictor.from_checkpoint(Path("checkpoint.pt"))
        label_map = predictor.predict(read_nifti(scan_file))

    The label maps have the values of the data set's own ones.
    """

    family = "self_trained"
    _learned: tuple[int, ...] = ()

    def read_settings(self, settings: Mapping[str, Any]) -> None:
        """Takes the classes that were learned."""
        if self.spec is not None:
            self._learned = self.spec.held_out(settings["label_sets"])
            names = self.spec.class_names
            self.structures = {names[value]: self.spec.supplied_value(value) for value in self._learned}

    def set_supports(
        self, scans: Sequence[Annotated], classes: Mapping[str, int] | Sequence[int] | None = None
    ) -> None:
        """Not available.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("a self-trained network needs no annotated scan; call predict(image).")

    def _require_support(self) -> None:
        """Nothing is required."""

    @property
    def _classes(self) -> tuple[int, ...]:
        return self._learned

    def _parts(self, prepared: Volume, name: str) -> list[np.ndarray]:
        return [np.zeros(len(prepared.array), np.int64)] * len(self._learned)  # there is no support set
