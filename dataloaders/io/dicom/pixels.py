"""The intensities of slices: decoded, without overlay bits, MONOCHROME1 turned round, rescaled."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
from pydicom.encaps import generate_frames
from pydicom.pixels.processing import apply_modality_lut
from pydicom.pixels.utils import pixel_array
from pydicom.uid import UID

from dataloaders.io.dicom.codecs import DECODERS, decode
from dataloaders.io.dicom.frame import Frame, one_file
from util.errors import DataError

MOST_SIDE_PX = 8192  # rows or columns of a slice
MOST_VOXELS = 2**31
GREY = ("MONOCHROME1", "MONOCHROME2")
RESCALE = ("RescaleSlope", "RescaleIntercept")
MOST_CT_MEDIAN_HU = 300  # of a scan in the stored direction; air and soft tissue are below

log = logging.getLogger(__name__)


def check_pixels(frame: Frame) -> tuple[int, int]:
    """Checks what a header says of its pixels, before anything is allocated; returns rows and columns.

    Raises:
        DataError: colour; sizes or bits that no slice has; fewer bytes than the pixels need; an unknown compression.
    """
    photometric = frame.text("PhotometricInterpretation") or GREY[1]
    if frame.whole("SamplesPerPixel", 1) != 1 or photometric not in GREY:
        raise DataError(
            f"{frame.name}: a colour image (PhotometricInterpretation {photometric}); expected grey ones "
            f"({' or '.join(GREY)}). Move screenshots and colour maps out of the folder, or export the grey series."
        )
    rows, columns = _size(frame)
    if not (0 < rows <= MOST_SIDE_PX and 0 < columns <= MOST_SIDE_PX):
        raise DataError(
            f"{frame.name}: {rows} Rows, {columns} Columns; expected 1 to {MOST_SIDE_PX}. The header is damaged: copy "
            "the file again."
        )
    _check_bits(frame)
    _check_length(frame, rows, columns)
    return rows, columns


def _size(frame: Frame) -> tuple[int, int]:
    rows, columns = (int(frame.numbers(keyword, 1)[0]) for keyword in ("Rows", "Columns"))
    return rows, columns


def _check_bits(frame: Frame) -> None:
    allocated = frame.whole("BitsAllocated", 0)
    stored = frame.whole("BitsStored", allocated)
    if allocated not in (8, 16, 32, 64) or not 0 < stored <= allocated:
        raise DataError(
            f"{frame.name}: BitsAllocated {allocated}, BitsStored {stored}; expected 8, 16 or 32, and not more stored. "
            "The header is damaged, or this is a mask: copy the file again, or move it out of the folder."
        )
    if frame.whole("HighBit", stored - 1) != stored - 1:
        raise frame.wrong("HighBit", f"{stored - 1} (BitsStored - 1)")


def _check_length(frame: Frame, rows: int, columns: int) -> None:
    syntax = _transfer_syntax(frame)
    if syntax.is_compressed and not syntax.is_deflated:
        return
    data = next(
        frame.header[key].value
        for key in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
        if key in frame.header
    )
    expected = rows * columns * frame.whole("BitsAllocated", 0) // 8 * frame.whole("NumberOfFrames", 1)
    if len(data or b"") < expected:
        raise DataError(
            f"{frame.path}: truncated: {len(data or b'')} bytes of pixels; expected {expected} ({rows} x {columns}). "
            "Copy it again."
        )


def _transfer_syntax(frame: Frame) -> UID:
    return UID(str(frame.header.file_meta.TransferSyntaxUID))


def read_stored(frames: Sequence[Frame]) -> Iterator[np.ndarray]:
    """Yields the stored values (H, W) of frames of one file that `check_pixels` has let pass.

    Raises:
        DataError: they cannot be decoded.
    """
    syntax, header = _transfer_syntax(frames[0]), frames[0].header
    streams: list[bytes] = []
    if syntax in DECODERS:
        number = frames[0].whole("NumberOfFrames", 1)
        with one_file(frames[0].path):
            streams = list(generate_frames(header.PixelData, number_of_frames=number))
        if len(streams) < number:
            raise DataError(f"{frames[0].path}: truncated: {len(streams)} of {number} frames. Copy it again.")
    for frame in frames:
        rows, columns = _size(frame)
        try:
            with one_file(frame.path):
                array = (
                    decode(streams[frame.index], syntax, rows, columns)
                    if syntax in DECODERS
                    else pixel_array(header, index=frame.index, raw=True)
                )
        except DataError as error:
            raise DataError(f"{frame.name}: {_explain(error)} (stored as {syntax.name}). Copy it again.") from error
        if array.shape != (rows, columns):
            raise DataError(f"{frame.name}: pixels of shape {array.shape}; expected {rows, columns}. Copy it again.")
        yield _without_other_bits(frame, array)


def _explain(error: DataError) -> str:
    """Why the pixels could not be decoded, as the decoder says it."""
    cause = error.__cause__
    return f"pixels cannot be decoded: {' '.join(str(cause).split())[:200]}"


def _without_other_bits(frame: Frame, array: np.ndarray) -> np.ndarray:
    """The lowest BitsStored bits; the others may hold an overlay. Signed where the header says so."""
    if array.dtype.kind == "f":
        return array
    allocated = frame.whole("BitsAllocated", 0)
    bits = frame.whole("BitsStored", allocated)
    is_signed = frame.whole("PixelRepresentation", 0) == 1
    if bits == allocated and array.dtype.kind == "ui"[is_signed]:
        return array
    wide = array.astype(np.int32 if allocated <= 16 else np.int64) & (2**bits - 1)
    if is_signed:
        sign = 2 ** (bits - 1)
        wide = (wide ^ sign) - sign
    return wide.astype(f"{'ui'[is_signed]}{allocated // 8}")


def intensities(frames: Sequence[Frame], stored: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The stored values of a scan's slices as intensities, of which higher ones are brighter.

    MONOCHROME1 is turned round within the range of the stored bits. Of CT with a rescale, which gives Hounsfield
    units whatever the display, only where the scan would be denser than bodies are.
    """
    is_turned = [frame.text("PhotometricInterpretation") == GREY[0] for frame in frames]
    if any(is_turned) and frames[0].text("Modality") == "CT" and has_rescale(frames[0]):
        as_stored = [_rescaled(frame, array) for frame, array in zip(frames, stored, strict=True)]
        if np.median(np.stack(as_stored)) <= MOST_CT_MEDIAN_HU:
            return as_stored
    return [
        _rescaled(frame, _turned(frame, array) if turned else array)
        for frame, array, turned in zip(frames, stored, is_turned, strict=True)
    ]


def _turned(frame: Frame, array: np.ndarray) -> np.ndarray:
    """MONOCHROME1 as MONOCHROME2: the lowest value that BitsStored allows becomes the highest."""
    if array.dtype.kind == "f":
        return -array
    bits = frame.whole("BitsStored", frame.whole("BitsAllocated", 0))
    return (2**bits - 1 - array.astype(np.int64) if array.dtype.kind == "u" else -1 - array).astype(array.dtype)


def has_rescale(frame: Frame) -> bool:
    """Whether the header says how stored values become intensities."""
    return any(frame.owner(keyword) is not None for keyword in (*RESCALE, "ModalityLUTSequence"))


def _rescaled(frame: Frame, array: np.ndarray) -> np.ndarray:
    if frame.owner("ModalityLUTSequence") is not None:
        with one_file(frame.path):
            return apply_modality_lut(array, frame.header)
    slope, intercept = frame.number("RescaleSlope", 1.0) or 1, frame.number("RescaleIntercept", 0.0)
    return array if (slope, intercept) == (1, 0) else array * slope + intercept
