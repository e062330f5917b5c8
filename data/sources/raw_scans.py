"""Scans and their labels as they are supplied: what every source of scans finds and reads."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dataloaders.description import DatasetSpec
from dataloaders.samples import Volume


@dataclass(frozen=True)
class RawScan:
    """A scan of a download or of a user, and where its labels are.

    Attributes:
        id: its name in all files made of it.
        image: a NIfTI file, or the folder of one DICOM series.
        label: the label map; None: there is none.
        masks: class name -> binary mask, in place of a label map.
        patient: scans of one patient share it; empty: the id.
        fold: whose query the scan is; None: not given.
    """

    id: str
    image: Path
    label: Path | None = None
    masks: Mapping[str, Path] = field(default_factory=dict)
    patient: str = ""
    fold: int | None = None

    @property
    def is_labelled(self) -> bool:
        """Whether the scan has a label map or masks."""
        return self.label is not None or bool(self.masks)

    @property
    def label_file(self) -> Path:
        """The label map, for sources in which every scan has one."""
        if self.label is None:
            raise ValueError(f"scan {self.id} has no label map")
        return self.label

    @property
    def inputs(self) -> list[Path]:
        """Everything that is read: the image, then its labels."""
        return [self.image, *([self.label] if self.label else []), *self.masks.values()]


@dataclass(frozen=True)
class ScanSource:
    """How the raw scans of a data set are found and read.

    Attributes:
        find: folder of the download, or table of the files -> its scans, in natural order of their ids.
        read: a scan -> its image, and its label map on the same grid; None where it has none.
        converted_folder: where the scans are stored as NIfTI before they are prepared, below the data root; empty:
            they are prepared from the raw files.
    """

    find: Callable[[Path, DatasetSpec], list[RawScan]]
    read: Callable[[RawScan, DatasetSpec], tuple[Volume, Volume | None]]
    converted_folder: str = ""
