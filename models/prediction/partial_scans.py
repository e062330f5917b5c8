"""Segments scans with a network of several tasks that was trained on slices of several sets of scans."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from torch import Tensor

from dataloaders.partial.config import standardise
from models.prediction.averaging import Intensities
from models.prediction.partial import network_settings
from models.prediction.sources import SourcesPredictor


class PartialScanPredictor(SourcesPredictor):
    """Segments scans slice by slice into the classes of all tasks; a voxel of several gets the most probable one."""

    family = "partial_scans"

    def read_settings(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Takes the intensities from the settings of a checkpoint.

        Raises:
            CheckpointError: they are missing.
        """
        _, *(mean, sd) = network_settings(path, settings)
        self.intensities = Intensities(mean, sd)  # of slices of 0 to 255

    def network_input(self, prepared: np.ndarray) -> Float[Tensor, "D 1 h w"]:
        """The slices of a prepared scan (D, H, W) as the network sees them."""
        return standardise(super().network_input(prepared), self.intensities.mean, self.intensities.sd)
