"""What the header says of one slice, wherever it stands: at the top level or in the functional groups of a frame."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np
from pydicom.config import disable_value_validation
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag

from util.errors import DataError, UserError

MOST_SHOWN = 60  # characters of a value in a message
PICTURES = frozenset({"CR", "DX", "MG", "XA", "RF", "OP", "ES", "GM", "SM"})  # modalities without volumes
LIBRARY_LOGS = tuple(map(logging.getLogger, ("pydicom", "highdicom")))


@contextmanager
def one_file(path: Path) -> Iterator[None]:
    """Turns whatever a damaged or hostile file provokes in a decoder or parser into an error that names the file.

    Raises:
        DataError: anything else than a `UserError` was raised.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the boundary: pydicom raises nearly every type
        raise DataError(
            f"{path}: not a readable DICOM file ({type(error).__name__} while reading it). It is damaged, or not "
            "DICOM: copy it again, or move it out of the folder."
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps the libraries' remarks, which quote values and so may identify the patient, out of logs and warnings."""
    levels = [log.level for log in LIBRARY_LOGS]
    for log in LIBRARY_LOGS:
        log.setLevel(logging.CRITICAL)
    try:
        with catch_warnings(), disable_value_validation():
            simplefilter("ignore")
            yield
    finally:
        for log, level in zip(LIBRARY_LOGS, levels, strict=True):
            log.setLevel(level)


@dataclass(frozen=True)
class Frame:
    """One slice of a file.

    Attributes:
        path: the file.
        header: its attributes, pixel data included.
        index: of the frame in the file; 0 in single-frame files.
        groups: functional groups of this frame, then those shared by all frames; empty in single-frame files.
    """

    path: Path
    header: Dataset
    index: int = 0
    groups: tuple[Dataset, ...] = ()

    @property
    def name(self) -> str:
        """The file's path, and the frame of multi-frame files, counted from 1."""
        return f"{self.path}, frame {self.index + 1}" if self.groups else str(self.path)

    def owner(self, keyword: str) -> Dataset | None:
        """The data set that holds an attribute; None where it is absent or empty."""
        tag = Tag(keyword)
        nested = (
            element.value[0] for group in self.groups for element in group if element.VR == "SQ" and element.value
        )
        return next((each for each in (*nested, self.header) if _raw(each, tag) not in (None, b"", "")), None)

    def value(self, keyword: str) -> Any:
        """The attribute as pydicom converts it; None where it is absent or empty.

        Raises:
            DataError: its value cannot be converted.
        """
        owner = self.owner(keyword)
        if owner is None:
            return None
        try:
            return owner[keyword].value
        except Exception as error:  # pydicom raises nearly every type
            raise self.wrong(keyword, "a value as DICOM prescribes") from error

    def text(self, keyword: str) -> str:
        """The attribute in words; "" where it is absent, empty or unreadable."""
        try:
            value = self.value(keyword)
        except DataError:
            return ""
        values = [] if value is None else value if is_several(value) else [value]
        return "\\".join(f"{each:g}" if isinstance(each, float) else str(each) for each in values)

    def numbers(self, keyword: str, count: int) -> np.ndarray:
        """The attribute as float64 (`count`,).

        Raises:
            DataError: it is absent, not of that many values, not numeric, or not finite.
        """
        expected = f"{count} numbers" if count > 1 else "a number"
        if self.owner(keyword) is None:
            raise DataError(f"{self.name}: {keyword} is missing or empty; expected {expected}. {self._advice(keyword)}")
        value = self.value(keyword)
        try:
            numbers = np.array([float(each) for each in (value if is_several(value) else [value])], np.float64)
        except (TypeError, ValueError, OverflowError) as error:
            raise self.wrong(keyword, expected) from error
        if len(numbers) != count or not np.isfinite(numbers).all():
            raise self.wrong(keyword, expected)
        return numbers

    def number(self, keyword: str, default: float) -> float:
        """One number; `default` where the attribute is absent or empty.

        Raises:
            DataError: see `numbers`.
        """
        return default if self.owner(keyword) is None else float(self.numbers(keyword, 1)[0])

    def whole(self, keyword: str, default: int) -> int:
        """One whole number; `default` where the attribute is absent or empty.

        Raises:
            DataError: see `numbers`; or it has a fraction.
        """
        number = self.number(keyword, float(default))
        if number != int(number):
            raise self.wrong(keyword, "a whole number")
        return int(number)

    def wrong(self, keyword: str, expected: str) -> DataError:
        """The error that says what an attribute holds and what it should hold."""
        owner = self.owner(keyword)
        raw = None if owner is None else _raw(owner, Tag(keyword))
        values = raw if is_several(raw) else [raw]
        shown = raw.decode("latin-1") if isinstance(raw, bytes) else "\\".join(map(str, values or []))
        printable = "".join(each if each.isprintable() else "?" for each in shown.strip("\0 "))[:MOST_SHOWN]
        return DataError(f"{self.name}: {keyword} is '{printable}'; expected {expected}. {self._advice(keyword)}")

    def _advice(self, keyword: str) -> str:
        modality = self.text("Modality")
        if modality in PICTURES:
            return f"A picture (Modality {modality}) is no slice of a volume: export it as PNG, 8 or 16 bits."
        if keyword == "PixelSpacing" and self.owner("ImagerPixelSpacing") is not None:
            return "ImagerPixelSpacing is the distance on the detector, not in the patient: a projection, no slice."
        return (
            "Export or copy the series again, with its geometry; or move the file out of the folder if it is no slice."
        )


def is_several(value: Any) -> bool:
    """Whether an attribute has several values."""
    return not isinstance(value, str | bytes) and hasattr(value, "__len__")


def _raw(header: Dataset, tag: BaseTag) -> Any:
    """The value as it is stored, unconverted where pydicom has not converted it yet; None where it is absent."""
    element = header.get_item(tag) if tag in header else None
    return None if element is None else element.value


def frames_of(path: Path, header: Dataset) -> list[Frame]:
    """The slices of a file: one, or the frames of an enhanced multi-frame file with their functional groups.

    Raises:
        DataError: several frames without functional groups, or of another number than said.
    """
    whole = Frame(path, header)
    n_frames = whole.whole("NumberOfFrames", 1)
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    if not groups and n_frames == 1:
        return [whole]
    if len(groups) != n_frames:
        raise DataError(
            f"{path}: {n_frames} frames, {len(groups)} of them with a position (PerFrameFunctionalGroupsSequence); "
            "expected a position for each. Export the series as single-frame files, or with functional groups."
        )
    shared = header.get("SharedFunctionalGroupsSequence") or []
    return [Frame(path, header, index, (group, *shared)) for index, group in enumerate(groups)]
