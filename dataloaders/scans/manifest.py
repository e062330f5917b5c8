"""`manifest.json` of a prepared folder: parameters of each step, and per scan its statistics and original grid."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from util.errors import DataError
from util.files import read_json, write_json
from util.ids import first_invalid_id, natural_key

FILE_NAME = "manifest.json"


@dataclass
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        dataset: name of the data set.
        parameters: step name -> the step's parameters, as written by that step.
        scans: scan id -> {"inputs": {file name: sha256}, "original": {"shape": [D, H, W], "affine": 4x4},
            "prepared": {"shape", "affine"}, "statistics": {"count", "mean", "std", "min", "max"}, "image_sha256": hash
            of the prepared image's voxels, "is_labelled", and "patient" and "fold" where the table of files has them}.
            A folder prepared by another program may lack entries.
        pseudo_labels: superpixel scale -> {"parameters": {...}, "scans": {scan id: {"image_sha256", "n_ids"...}}}.
    """

    dataset: str
    parameters: dict[str, Any] = field(default_factory=dict)
    scans: dict[str, dict[str, Any]] = field(default_factory=dict)
    pseudo_labels: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, dataset: str) -> "Manifest":
        """Reads the folder's manifest; an empty one where the folder has none (prepared by another program).

        Raises:
            DataError: the manifest belongs to another data set, has unknown content, or an id that cannot be a part of
                a path.
        """
        path = folder / FILE_NAME
        if not path.exists():
            return cls(dataset)
        content = read_json(path)
        known = {"dataset", "parameters", "scans", "pseudo_labels"}
        if not isinstance(content, dict) or set(content) - known or content.get("dataset") != dataset:
            found = content.get("dataset") if isinstance(content, dict) else type(content).__name__
            raise DataError(
                f"{path}: manifest of {found!r}, expected one of {dataset!r} with the keys {', '.join(sorted(known))}. "
                f"Point the data folder at {dataset}, or delete the file and run `python -m data.prepare` again."
            )
        if reason := _first_fault(content):
            raise DataError(f"{path}: {reason}. Correct it, or delete the file and run `python -m data.prepare` again.")
        return cls(**content)

    def save(self, folder: Path) -> None:
        """Writes the manifest, atomically."""
        content = {
            "dataset": self.dataset,
            "parameters": self.parameters,
            "scans": {key: self.scans[key] for key in sorted(self.scans, key=natural_key)},
            "pseudo_labels": self.pseudo_labels,
        }
        write_json(folder / FILE_NAME, content)


def _first_fault(content: dict[str, Any]) -> str:
    """What is wrong with the shape of a manifest or the ids in it; empty: nothing."""
    parameters = content.get("parameters", {})
    if not isinstance(parameters, dict) or not isinstance(parameters.get("normalise", {}), dict):
        return "parameters: holds something else than an object of objects"
    for key in ("scans", "pseudo_labels"):
        entries = content.get(key, {})
        if not isinstance(entries, dict) or not all(isinstance(each, dict) for each in entries.values()):
            return f"{key}: holds something else than an object of objects"
    listed = [content.get("scans", {}), *(each.get("scans", {}) for each in content.get("pseudo_labels", {}).values())]
    if not all(isinstance(scans, dict) for scans in listed):
        return "pseudo_labels: scans: holds something else than an object"
    return next(filter(None, map(first_invalid_id, listed)), "")


def statistics_of(array: np.ndarray) -> dict[str, float | int]:
    """Count, mean, population standard deviation and range of all voxels, in float64."""
    values = array.astype(np.float64)
    return {
        "count": int(values.size),
        "mean": float(values.mean()),
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
    }


def pooled_mean_std(statistics: list[dict[str, float | int]]) -> tuple[float, float]:
    """Mean and population standard deviation of the union of several scans' voxels, from their single statistics."""
    count = np.array([entry["count"] for entry in statistics], np.float64)
    mean = np.array([entry["mean"] for entry in statistics], np.float64)
    std = np.array([entry["std"] for entry in statistics], np.float64)
    pooled = float(np.average(mean, weights=count))
    variance = np.average(std**2 + (mean - pooled) ** 2, weights=count)
    return pooled, float(np.sqrt(variance))
