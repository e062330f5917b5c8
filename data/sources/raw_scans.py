"""Scans and their labels as they are supplied: what every source of scans finds and reads."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataloaders.description import DatasetSpec
from dataloaders.samples import UNKNOWN, Cine, Origin, Volume
from util.inventory import ARCHIVE, is_archive, list_files, summary


@dataclass(frozen=True)
class Annotation:
    """What one annotator drew: a label map, or masks.

    Attributes:
        label: the label map; None: there is none.
        masks: class name -> binary mask, in place of a label map.
    """

    label: Path | None = None
    masks: Mapping[str, Path] = field(default_factory=dict)

    @property
    def files(self) -> list[Path]:
        """All files of the annotation."""
        return [*([self.label] if self.label else []), *self.masks.values()]


@dataclass(frozen=True)
class RawScan:
    """A scan of a download or of a user, and where its labels are.

    Attributes:
        id: its name in all files made of it.
        image: a NIfTI file, or the folder of one DICOM series.
        annotations: one per annotator; none: the scan is not labelled.
        origin: whose scan it is, and where from; without a patient: nobody else's.
        fold: whose query the scan is; None: not given.
        frames: of a cine scan with labels: number of each annotated frame, from 0 -> its phase, such as "ED".
        fault: why the scan was found, but cannot be used; empty: nothing is known to be wrong.
    """

    id: str
    image: Path
    annotations: tuple[Annotation, ...] = ()
    origin: Origin = UNKNOWN
    fold: int | None = None
    frames: Mapping[int, str] = field(default_factory=dict)
    fault: str = ""

    @classmethod
    def with_label(cls, scan_id: str, image: Path, label: Path) -> "RawScan":
        """A scan with one label map."""
        return cls(scan_id, image, (Annotation(label),))

    @property
    def is_labelled(self) -> bool:
        """Whether the scan has labels."""
        return bool(self.annotations)

    @property
    def label_file(self) -> Path:
        """The one label map, for sources in which every scan has one."""
        (annotation,) = self.annotations
        (file,) = annotation.files
        return file

    @property
    def inputs(self) -> list[Path]:
        """Everything that is read: the image, then its labels."""
        return [self.image, *(file for annotation in self.annotations for file in annotation.files)]


@dataclass(frozen=True)
class ScanSource:
    """How the raw scans of a data set are found and read.

    Attributes:
        find: folder of the download, or table of the files -> its scans, in natural order of their ids.
        read: a scan -> its image, and its label map on the same grid, None where it has none; or its frames.
        account: folder of the download and the scans found in it -> one line that counts its files and names those that
            are left out.
        converted_folder: where the scans are stored as NIfTI before they are prepared, below the data root; empty:
            they are prepared from the raw files.
    """

    find: Callable[[Path, DatasetSpec], list[RawScan]]
    read: Callable[[RawScan, DatasetSpec], tuple[Volume, Volume | None] | Cine]
    account: Callable[[Path, Sequence[RawScan]], str] = lambda raw, scans: ""
    converted_folder: str = ""


def as_cine(found: tuple[Volume, Volume | None] | Cine) -> Cine:
    """What a source read, as frames; a scan without time has one."""
    if isinstance(found, Cine):
        return found
    image, label = found
    return Cine((image,), {} if label is None else {0: label})


def account(name: str, root: Path, scans: Sequence[RawScan], why_unused: Callable[[Path], str]) -> str:
    """One line that counts the files below a folder and names those that are left out.

    Args:
        name: of the data set.
        root: the folder.
        scans: those found; files in a folder that is read count as used.
        why_unused: the reason why another file is left out.
    """
    files, left_out = list_files(root)
    n_found = len(files) + len(left_out)
    used = {path for scan in scans for path in scan.inputs}
    for file in files:
        if used.isdisjoint((file, *file.parents)):
            left_out[file] = ARCHIVE if is_archive(file.name) else why_unused(file)
    return f"{name}: {summary(n_found, left_out, root)}"
