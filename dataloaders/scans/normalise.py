"""Intensity normalisation: computed before training, saved with the weights, applied unchanged afterwards."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from dataloaders.description import DatasetSpec
from dataloaders.scans.manifest import pooled_mean_std
from util.schema import build


@dataclass(frozen=True)
class Normalisation:
    """Normalisation of intensities: (x - mean) / std.

    Attributes:
        mean, std: of the training scans (CT, where Hounsfield units are comparable between scans); None: each scan's
            own, over the whole volume (MR).
    """

    mean: float | None = None
    std: float | None = None

    @classmethod
    def fit(cls, spec: DatasetSpec, statistics: list[dict[str, float | int]]) -> "Normalisation":
        """The normalisation of a description, with statistics of the training scans where it needs them.

        Source: SSL-ALPNet, released code: per volume for MR, over the fold's training scans for CT.
        """
        return cls() if spec.intensity.normalise_by == "scan" else cls(*pooled_mean_std(statistics))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Normalisation":
        """Reads what `to_dict` wrote."""
        return build(cls, values)

    def to_dict(self) -> dict[str, float | None]:
        """Plain values for a checkpoint."""
        return asdict(self)

    def apply(self, array: np.ndarray) -> np.ndarray:
        """Normalises a whole scan (D, H, W); returns float32."""
        values = array.astype(np.float64)
        mean = values.mean() if self.mean is None else self.mean
        std = values.std() if self.std is None else self.std
        return ((values - mean) / max(std, 1e-8)).astype(np.float32)
