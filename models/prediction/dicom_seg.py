"""Writes label maps of DICOM series as DICOM segmentations (SEG), which refer to the slices of the series.

A SEG belongs to the study of its series, as DICOM requires: it contains the attributes of patient and study that the
series has, and nothing else of it. That of an anonymous series is anonymous, any other names the patient.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import highdicom as hd
import numpy as np
from jaxtyping import UInt
from matplotlib.colors import to_rgb
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from skimage.color import rgb2lab

from dataloaders.io.dicom.frame import quiet
from dataloaders.io.dicom.planes import DicomSlice
from util.errors import DataError
from util.files import atomic_write
from util.results.pictures import outline_style

SERIES_NUMBER = 900  # above those that scanners give
NEEDED = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID", "FrameOfReferenceUID")
MAY_BE_EMPTY = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate"),
    *("StudyTime", "ReferringPhysicianName"),
)  # required by DICOM, with or without a value
PIXEL_GROUP = 0x7FE0
DECIMALS = ("SliceThickness", "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient")  # that SEGs take over
LONGEST_LABEL, LONGEST_DECIMAL = 64, 16  # characters that DICOM allows; many programs write longer decimals
PROJECT = Path(__file__).parents[2] / "pyproject.toml"

# Names as in the catalogue or in plain words -> SNOMED CT, with the side where the code has none.
ANATOMY, LEFT, RIGHT = codes.SCT.AnatomicalStructure, codes.SCT.Left, codes.SCT.Right
STRUCTURES: dict[str, tuple[Code, Code | None]] = {
    "liver": (codes.SCT.Liver, None),
    "spleen": (codes.SCT.Spleen, None),
    "kidney": (codes.SCT.Kidney, None),
    "left kidney": (codes.SCT.Kidney, LEFT),
    "right kidney": (codes.SCT.Kidney, RIGHT),
    "pancreas": (codes.SCT.Pancreas, None),
    "stomach": (codes.SCT.Stomach, None),
    "gallbladder": (codes.SCT.Gallbladder, None),
    "esophagus": (codes.SCT.Esophagus, None),
    "aorta": (codes.SCT.Aorta, None),
    "heart": (codes.SCT.Heart, None),
    "lung": (codes.SCT.Lung, None),
    "left lung": (codes.SCT.Lung, LEFT),
    "right lung": (codes.SCT.Lung, RIGHT),
    "left ventricle": (codes.SCT.LeftVentricle, None),
    "right ventricle": (codes.SCT.RightVentricle, None),
    "spinal cord": (codes.SCT.SpinalCord, None),
    "bladder": (codes.SCT.Bladder, None),
    "prostate": (codes.SCT.Prostate, None),
}
SHORT_NAMES = {
    "lk": "left kidney", "rk": "right kidney", "kid l": "left kidney", "kid r": "right kidney", "lv": "left ventricle",
    "rv": "right ventricle", "oesophagus": "esophagus", "urinary bladder": "bladder",
}  # fmt: skip


@dataclass(frozen=True)
class Source:
    """The headers of a series, without pixels: what a segmentation refers to.

    Attributes:
        headers: D data sets of single-frame files, or the one of a multi-frame file.
        frames: place of each slice of the scan in the multi-frame file; empty: the files are single-frame.
    """

    headers: tuple[Dataset, ...]
    frames: tuple[int, ...] = ()


def source_of(slices: Sequence[DicomSlice]) -> Source:
    """What a segmentation of these slices refers to; see `DicomSeries`."""
    frames = [each.frame for each in slices]
    distance_mm = abs(slices[-1].height_mm - slices[0].height_mm) / (len(slices) - 1)
    if not any(frame.groups for frame in frames):
        return Source(tuple(_without_pixels(frame.header, distance_mm) for frame in frames))
    headers = {frame.path: _without_pixels(frame.header) for frame in frames}
    return Source(tuple(headers.values()), tuple(frame.index for frame in frames))


def _without_pixels(header: Dataset, thickness_mm: float | None = None) -> Dataset:
    """A copy without pixels, with valid decimals, and the attributes that anonymisation may have removed, empty.

    Args:
        header: of a file.
        thickness_mm: written where the file gives no thickness of its slices; None: left out.
    """
    copied = Dataset({tag: element for tag, element in header.items() if tag.group != PIXEL_GROUP})
    copied.set_original_encoding(*header.original_encoding, header.original_character_set)
    copied.file_meta = header.file_meta
    for keyword in MAY_BE_EMPTY:
        if keyword not in copied:
            setattr(copied, keyword, None)
    if thickness_mm is not None and not copied.get("SliceThickness"):
        copied.SliceThickness = f"{thickness_mm:.6g}"
    for keyword in DECIMALS:
        value = copied.get(keyword)
        numbers = [value] if isinstance(value, float) else value or ()
        if any(len(str(number)) > LONGEST_DECIMAL for number in numbers):
            shorter = [f"{number:.9g}" for number in numbers]
            setattr(copied, keyword, shorter if len(shorter) > 1 else shorter[0])
    return copied


def write_dicom_seg(
    path: Path, labels: UInt[np.ndarray, "D H W"], structures: Mapping[str, int], source: Source, method: str
) -> None:
    """Writes a label map as a DICOM segmentation with a segment for each structure, atomically.

    Args:
        path: of the file.
        labels: in the order of the slices that `source` was made of.
        structures: name -> value; the segments have this order, and the colours of the overlays.
        source: the series.
        method: that segmented it.

    Raises:
        DataError: the series lacks what DICOM requires of it, or is a multi-frame file of which slices were left out,
            or several of these.
    """
    masks = np.stack([_in_file_order(labels, source) == value for value in structures.values()], axis=-1)
    missing = [keyword for keyword in NEEDED if not source.headers[0].get(keyword)]
    if missing:
        raise DataError(
            f"{path.name}: not written, as the DICOM series has no {', '.join(missing)}, to which a segmentation "
            "refers. Export the series again with these attributes, or use the NIfTI file."
        )
    version = _version()
    with quiet():
        segmentation = hd.seg.Segmentation(
            source_images=source.headers,
            pixel_array=masks.astype(np.uint8),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=_describe(list(structures), method, version),
            series_instance_uid=hd.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="FrugalSeg",
            manufacturer_model_name=f"FrugalSeg {method}"[:LONGEST_LABEL],
            software_versions=version,
            device_serial_number="none",
            specific_character_set="ISO_IR 192",  # UTF-8: names of structures may have any letters
            content_label="SEGMENTATION",
            content_description="Automatic; research software, not for diagnosis",
            series_description="Segmentation by FrugalSeg (research only)",
        )
        # Scanner and hospital of the series, which are optional.
        segmentation.pop("ContributingEquipmentSequence", None)
        with atomic_write(path) as temporary:
            segmentation.save_as(temporary)


def _in_file_order(labels: np.ndarray, source: Source) -> np.ndarray:
    """The label map with its slices in the order of the source's frames."""
    if not source.frames:
        return labels
    n_frames = int(source.headers[0].get("NumberOfFrames", 0))
    if len(source.headers) > 1 or sorted(source.frames) != list(range(n_frames)):
        raise DataError(
            f"DICOM segmentation: not written for {len(source.headers)} multi-frame file(s) of which {len(labels)} "
            "frames are the scan; expected one file all of whose frames are. Use the NIfTI file."
        )
    return labels[np.argsort(source.frames)]


def _describe(structures: Sequence[str], method: str, version: str) -> list[hd.seg.SegmentDescription]:
    algorithm = hd.AlgorithmIdentificationSequence(
        name=f"FrugalSeg {method}"[:LONGEST_LABEL], family=codes.DCM.ArtificialIntelligence, version=version
    )
    described = []
    for number, name in enumerate(structures, start=1):
        code, side = code_of(name)
        segment = hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name[:LONGEST_LABEL],
            segmented_property_category=ANATOMY,
            segmented_property_type=code,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
            tracking_uid=hd.UID(),
            tracking_id=name[:LONGEST_LABEL],
            display_color=hd.color.CIELabColor(*rgb2lab(to_rgb(outline_style(number - 1)[0])).tolist()),
        )
        if side is not None:
            modifier = hd.sr.CodedConcept.from_code(side)
            segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
        described.append(segment)
    return described


def code_of(structure: str) -> tuple[Code, Code | None]:
    """The code of a structure by its name, and its side; of an unknown one that of any anatomical structure."""
    words = " ".join(structure.lower().replace("_", " ").split())
    return STRUCTURES.get(SHORT_NAMES.get(words, words), (ANATOMY, None))


def _version() -> str:
    """The version of this program."""
    try:
        return tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["version"]
    except (OSError, KeyError, ValueError):
        return "unknown"
