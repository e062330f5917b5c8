"""One scan in one step of the preparation: its files, and whether they are up to date."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.sources.raw_scans import RawScan
from dataloaders.scans.folder import scan_path
from util.files import file_sha256
from util.records import Record, hash_files


@dataclass(frozen=True)
class ScanJob:
    """One scan in one step.

    Attributes:
        scan: what is read.
        folder: where `image_<scan id>.nii.gz` and `label_<scan id>.nii.gz` are written.
        record: what an earlier run made it from; None where there was none.
        settings: that it is to be made with.
        keeps_original_label: whether the label map on the original grid is written, too, for scores there.
    """

    scan: RawScan
    folder: Path
    record: Record | None
    settings: Mapping[str, Any]
    keeps_original_label: bool = False

    @property
    def outputs(self) -> tuple[Path, Path]:
        """The image file and the label file; there is no label file of a scan without label."""
        return scan_path(self.folder, "image", self.scan.id), scan_path(self.folder, "label", self.scan.id)

    @property
    def original_label(self) -> Path:
        """The file of the label map on the original grid."""
        return scan_path(self.folder, "original-label", self.scan.id)

    def input_hashes(self) -> dict[str, str]:
        """SHA-256 of every file read, by folder and file name."""
        files = [file for path in self.scan.inputs for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
        return {f"{file.parent.name}/{file.name}": file_sha256(file) for file in files if file.is_file()}

    def is_done(self, inputs: dict[str, str]) -> bool:
        """Whether an earlier run made the outputs from the same inputs, with the same settings."""
        image, label = self.outputs
        is_same = self.record is not None and not self.record.differences(self.settings, inputs)
        has_original = self.original_label.exists() or not (self.keeps_original_label and self.scan.is_labelled)
        return is_same and has_original and image.exists() and label.exists() == self.scan.is_labelled

    def changed_outputs(self) -> set[str]:
        """Names of the outputs that are not as the earlier run wrote them."""
        made = {} if self.record is None else self.record.made
        now = hash_files([self.folder / name for name in made], self.folder)
        return {name for name in made if now.get(name) != made[name]}

    def finish(self, inputs: dict[str, str]) -> Record:
        """The record of the outputs, which have been written."""
        written = self.outputs if self.scan.is_labelled else self.outputs[:1]
        further = [self.original_label] if self.keeps_original_label and self.scan.is_labelled else []
        return Record(dict(self.settings), inputs, hash_files([*written, *further], self.folder))
