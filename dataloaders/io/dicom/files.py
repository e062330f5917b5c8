"""Which files of a folder are slices: the others are passed over and counted, by reason."""

import re
import shlex
import struct
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dataloaders.io.dicom.frame import Frame, one_file
from util.errors import DataError

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
PREAMBLE, MAGIC = 128, b"DICM"
MOST_INFLATED = 2**30  # bytes of a deflated file
MOST_NAMED = 3  # files of a reason in the log
PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
NOT_DICOM = "non-DICOM"

# Modalities of files that hold no slices, for those without a SOP class.
NO_IMAGES = frozenset({"SR", "PR", "KO", "SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "RTRECORD", "REG", "DOC", "FID"})
VOLUME_CLASSES = frozenset({"Enhanced US Volume Storage", "Parametric Map Storage"})  # images, by another name
SECONDARY_CAPTURE = "Secondary Capture"
LOCALISER = re.compile(r"locali[sz]er|scout|topogram|scanogram|\bsurvey\b|3[- ]?plane", re.IGNORECASE)


@dataclass(frozen=True)
class Skipped:
    """A file that is no slice of the scan, and what it is."""

    path: Path
    reason: str


@dataclass(frozen=True)
class DicomFile:
    """A file that may hold slices, with the name of its SOP class: "CT Image Storage"; "" where it has none."""

    path: Path
    header: Dataset
    sop_class: str = ""

    def is_localiser(self, keyword: str) -> bool:
        """Whether this attribute of the header says so."""
        return bool(LOCALISER.search(Frame(self.path, self.header).text(keyword)))


def is_dicom_file(path: Path) -> bool:
    """Whether a file begins as DICOM does, with or without a preamble."""
    try:
        with path.open("rb") as stream:
            return _is_dicom(stream.read(PREAMBLE + len(MAGIC)))
    except OSError:
        return False


def _is_dicom(content: bytes) -> bool:
    if content[PREAMBLE : PREAMBLE + len(MAGIC)] == MAGIC or content.startswith(MAGIC):
        return True
    # Without a preamble: the first attribute belongs to group 0002 or 0008, and has a low number.
    is_little = content[:2] in (b"\x02\x00", b"\x08\x00") and content[3:4] == b"\x00"
    return len(content) > PREAMBLE and (is_little or (content[:2] == b"\x00\x08" and content[2:3] == b"\x00"))


def read_files(folder: Path) -> tuple[list[DicomFile], list[Skipped]]:
    """Reads the DICOM files of a folder that may hold slices, in the order of their names.

    Hidden files and folders within are not looked at.

    Returns:
        Files with pixels, and what else there is.

    Raises:
        DataError: no slices; or a file that is named as the slices are, and cannot be read.
    """
    paths = sorted(path for path in folder.glob("*") if not path.name.startswith(".") and path.is_file())
    files, skipped = [], []
    for path in paths:
        with one_file(path):
            file = _read(path)
        (files if isinstance(file, DicomFile) else skipped).append(file)
    files, further = _without_captures(files)
    skipped += further
    if not files:
        found = f"; found {describe(skipped)}" if skipped else ""
        raise DataError(
            f"{folder}: no DICOM slices{found}; expected the slices of one scan (*.dcm). Copy or download the scan "
            "again; export segmentations and contours as label maps in NIfTI."
        )
    _check_names(files, skipped)
    return files, skipped


def _read(path: Path) -> DicomFile | Skipped:
    with path.open("rb") as stream:
        content = stream.read(PREAMBLE + len(MAGIC))
        if not _is_dicom(content):
            return Skipped(path, NOT_DICOM)
        content += stream.read()
    if content.startswith(MAGIC):
        content = bytes(PREAMBLE) + content
    _check_inflation(path, content)
    header = pydicom.dcmread(BytesIO(content), force=True)
    _complete_meta(header)
    reason = _explain_no_image(path, header)
    if reason:
        return Skipped(path, reason)
    if not any(key in header for key in PIXEL_KEYWORDS):
        raise DataError(
            f"{path}: truncated, or without its pixels: the file ends before PixelData. Copy it again, or move it out "
            "of the folder if it is no slice."
        )
    return DicomFile(path, header, _sop_class(header))


def _check_inflation(path: Path, content: bytes) -> None:
    """Refuses deflated files that would fill the memory.

    Raises:
        DataError: more than `MOST_INFLATED` bytes.
    """
    if DeflatedExplicitVRLittleEndian.encode() not in content[:1024]:
        return
    start = 144 + struct.unpack("<I", content[140:144])[0]  # after the group length of the file meta information
    decompressor, rest, size = zlib.decompressobj(-zlib.MAX_WBITS), content[start:], 0
    while rest and not decompressor.eof:
        size += len(decompressor.decompress(rest, 2**24))
        rest = decompressor.unconsumed_tail
        if size > MOST_INFLATED:
            raise DataError(f"{path}: inflates to more than {MOST_INFLATED} bytes; expected a slice. Copy it again.")


def _complete_meta(header: Dataset) -> None:
    """Adds the transfer syntax where a file has none: as pydicom has read it."""
    if "TransferSyntaxUID" not in header.file_meta:
        is_implicit, is_little = header.original_encoding
        explicit = ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if is_implicit else explicit


def _sop_class(header: Dataset) -> str:
    uid = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""
    return UID(str(uid)).name


def _explain_no_image(path: Path, header: Dataset) -> str:
    """What a file is that holds no slices; "" if it may hold some."""
    name = _sop_class(header)
    if "Image Storage" in name or name in VOLUME_CLASSES:
        return ""
    if name.endswith("Storage") or " SR " in name:
        return name.removesuffix(" Storage")
    modality = Frame(path, header).text("Modality")
    return modality if modality in NO_IMAGES else ""


def _without_captures(files: Sequence[DicomFile]) -> tuple[list[DicomFile], list[Skipped]]:
    """Leaves screenshots and localisers out, unless there is nothing else."""
    kept, skipped = list(files), []
    for reason, is_such in (
        ("secondary capture", lambda file: SECONDARY_CAPTURE in file.sop_class),
        ("localiser", lambda file: file.is_localiser("ImageType")),
        ("localiser", lambda file: file.is_localiser("SeriesDescription")),
    ):
        others = [file for file in kept if not is_such(file)]
        if others and len(others) < len(kept):
            skipped += [Skipped(file.path, reason) for file in kept if is_such(file)]
            kept = others
    return kept, skipped


def _check_names(files: Iterable[DicomFile], skipped: Iterable[Skipped]) -> None:
    """Refuses a file that is no DICOM, but named as one or as the slices are: it may be a damaged slice.

    Raises:
        DataError: there is one.
    """
    patterns = {_pattern(file.path) for file in files}
    for each in skipped:
        is_named_so = each.path.suffix.lower() in DICOM_SUFFIXES or _pattern(each.path) in patterns
        if each.reason == NOT_DICOM and is_named_so:
            raise DataError(
                f"{each.path}: not a readable DICOM file ({each.path.stat().st_size} bytes that do not begin as "
                "DICOM), but named as a slice. Copy it again, or move it out of the folder."
            )


def _pattern(path: Path) -> str:
    return re.sub(r"\d+", "#", path.name)


def split_command(folder: Path, keywords: Iterable[str]) -> str:
    """The command that sorts a folder of several scans, for messages."""
    return f"`python -m data.split_dicom {shlex.quote(str(folder))} --by {' '.join(keywords)} --out OUT`"


def describe(skipped: Iterable[Skipped]) -> str:
    """Counts by reason with the first names, for example "2 x localiser (IM7, IM8), 1 x non-DICOM (notes.txt)"."""
    names: dict[str, list[str]] = defaultdict(list)
    for each in skipped:
        names[each.reason].append(each.path.name)
    counts = Counter({reason: len(each) for reason, each in names.items()})
    return ", ".join(
        f"{count} x {reason} ({', '.join(names[reason][:MOST_NAMED])}{', ...' * (count > MOST_NAMED)})"
        for reason, count in counts.most_common()
    )
