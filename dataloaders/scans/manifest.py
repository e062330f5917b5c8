"""`manifest.json` of a prepared folder: parameters of each step, and per scan its statistics and original grid."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from util.errors import DataError
from util.files import read_json, write_json
from util.ids import first_invalid_id, natural_key
from util.records import Record

FILE_NAME = "manifest.json"


@dataclass
class Manifest:
    """The content of `manifest.json`.

    Attributes:
        dataset: name of the data set.
        parameters: step name -> the step's parameters, as written by that step.
        scans: scan id -> {"original": {"shape": [D, H, W], "affine": 4x4},
            "stored_geometry": fields of `StoredGeometry` where the original has more than an affine in millimetres,
            "prepared": {"shape", "affine"}, "statistics": {"count", "mean", "std", "min", "max"}, "is_labelled", and
            where they are known "patient", "phase", "domain", "centre" and "fold"}. A cine scan also has "frames",
            their number, and "labelled_frames": {number of the frame as text: its phase}; its frames are stored one
            after the other along z, and both grids are those of one frame. A folder prepared by another program may
            lack entries.
        records: name -> what files of this folder were made from (`util.records.Record`): "scan_<id>", the prepared
            image and label; "superpix-<scale>_<id>"; "classmap_<least number of pixels>".
        failed: scan id -> why the scan could not be prepared the last time; such a folder does not pass the check.
    """

    dataset: str
    parameters: dict[str, Any] = field(default_factory=dict)
    scans: dict[str, dict[str, Any]] = field(default_factory=dict)
    records: dict[str, Record] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

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
        known = {
            "dataset",
            "parameters",
            "scans",
            "records",
            "failed",
            "pseudo_labels",
        }  # the last: of earlier versions
        if not isinstance(content, dict) or set(content) - known or content.get("dataset") != dataset:
            found = content.get("dataset") if isinstance(content, dict) else type(content).__name__
            raise DataError(
                f"{path}: manifest of {found!r}, expected one of {dataset!r} with the keys {', '.join(sorted(known))}. "
                f"Point the data folder at {dataset}, or delete the file and run `frugalseg prepare` again."
            )
        if reason := _first_fault(content):
            raise DataError(f"{path}: {reason}. Correct it, or delete the file and run `frugalseg prepare` again.")
        records = {name: Record.from_json(entry) for name, entry in content.get("records", {}).items()}
        return cls(
            dataset,
            content.get("parameters", {}),
            content.get("scans", {}),
            {name: record for name, record in records.items() if record is not None},
            content.get("failed", {}),
        )

    def save(self, folder: Path) -> None:
        """Writes the manifest, atomically."""
        content = {
            "dataset": self.dataset,
            "parameters": self.parameters,
            "scans": {key: self.scans[key] for key in sorted(self.scans, key=natural_key)},
            "records": {name: self.records[name].to_json() for name in sorted(self.records, key=natural_key)},
            **({"failed": self.failed} if self.failed else {}),
        }
        write_json(folder / FILE_NAME, content)


def _first_fault(content: dict[str, Any]) -> str:
    """What is wrong with the shape of a manifest or the ids in it; empty: nothing."""
    parameters = content.get("parameters", {})
    if not isinstance(parameters, dict) or not isinstance(parameters.get("normalise", {}), dict):
        return "parameters: holds something else than an object of objects"
    for key in ("scans", "records"):
        entries = content.get(key, {})
        if not isinstance(entries, dict) or not all(isinstance(each, dict) for each in entries.values()):
            return f"{key}: holds something else than an object of objects"
    failed = content.get("failed", {})
    if not isinstance(failed, dict) or not all(isinstance(reason, str) for reason in failed.values()):
        return "failed: holds something else than an object of texts"
    return next(filter(None, map(first_invalid_id, (content.get("scans", {}), content.get("records", {}), failed))), "")


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
