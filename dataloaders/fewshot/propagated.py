"""Label maps that a method has made of unlabelled scans, from which a network then learns.

<folder>/propagated.json           which run made them, of which scans; written last
<folder>/label_<scan>.nii.gz       class values on the grid of the prepared scan; 255: unknown, does not count

They are ordinary label maps: they may be looked at in any viewer, and corrected.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from dataloaders.io.nifti import read_nifti, write_nifti
from dataloaders.samples import Volume
from dataloaders.scans.folder import scan_path
from util.errors import ConfigError, DataError
from util.files import read_json_object, write_json
from util.records import hash_files

RECORD = "propagated.json"
FORMAT = 1
COMMAND = "`frugalseg pseudo-labels propagation ...`"


@dataclass(frozen=True)
class PropagatedFolder:
    """The label maps of one run."""

    folder: Path

    def path(self, scan: str) -> Path:
        """The file of a scan."""
        return scan_path(self.folder, "label", scan)

    @property
    def maker(self) -> str:
        """The run that made the label maps; "": the folder holds no finished ones.

        Raises:
            DataError: the record is damaged.
        """
        return str(self._content()["run"]) if (self.folder / RECORD).exists() else ""

    def begin(self, run: str) -> None:
        """Prepares the folder for the label maps of a run; former ones of the same run are replaced.

        Raises:
            ConfigError: it holds label maps of another run.
        """
        if self.maker not in ("", run):
            raise ConfigError(
                f"{self.folder}: holds label maps of the run {self.maker}, not of {run}. Choose another folder with "
                "export_to, or move it away."
            )
        (self.folder / RECORD).unlink(missing_ok=True)

    def read(self, scan: str) -> UInt8[np.ndarray, "D H W"]:
        """The label map of a scan.

        Raises:
            DataError: absent or damaged.
        """
        return read_nifti(self.path(scan)).array.astype(np.uint8)

    def write(self, scan: str, label: Volume) -> None:
        """Writes the label map of a scan."""
        write_nifti(self.path(scan), label)

    def finish(self, run: str, images: Mapping[str, str], classes: Sequence[int], facts: Mapping[str, Any]) -> None:
        """Writes the record.

        Args:
            run: name of the experiment that made them.
            images: scan -> SHA-256 of its prepared image.
            classes: values that were looked for.
            facts: how they were made, for people.
        """
        content = {"format": FORMAT, "run": run, "images": dict(images), "classes": list(classes), "made": dict(facts)}
        write_json(self.folder / RECORD, content)

    def require_for(self, images: Mapping[str, str], classes: Sequence[int]) -> None:
        """Checks that there is a label map of every scan, made of its present image and of these classes.

        Args:
            images: scan -> SHA-256 of its prepared image.
            classes: that are learned.

        Raises:
            DataError: one is missing, unfinished, of another image, or without one of the classes.
        """
        content = self._content()
        unknown = [value for value in classes if value not in content["classes"]]
        if unknown:
            raise self._error(f"label {unknown[0]} was not looked for")
        for scan, value in images.items():
            if content["images"].get(scan) != value:
                state = "made of another image" if scan in content["images"] else "no label map"
                raise self._error(f"scan {scan}: {state}")
            if not self.path(scan).exists():
                raise self._error(f"{self.path(scan).name} is missing")

    def hashes(self, scans: Sequence[str]) -> dict[str, str]:
        """File -> SHA-256 of the label maps of some scans."""
        found = hash_files([self.path(scan) for scan in scans], self.folder)
        return {f"propagated/{name}": value for name, value in found.items()}

    def _content(self) -> dict[str, Any]:
        path = self.folder / RECORD
        if not path.exists():
            raise self._error("missing, or not finished")
        content = read_json_object(path)
        if content.get("format") != FORMAT or any(key not in content for key in ("run", "images", "classes")):
            raise self._error(f"{RECORD} is damaged, or of another version")
        return content

    def _error(self, problem: str) -> DataError:
        return DataError(f"pseudo_labels={str(self.folder)!r}: {problem}. Make them (again) with {COMMAND}.")
