"""Decoders of compressed pixel data that pydicom lacks: JPEG of every kind, JPEG-LS and JPEG 2000.

imagecodecs decodes with libjpeg-turbo, CharLS and OpenJPEG. GDCM, which SimpleITK brings along, ends the whole process
on damaged JPEG streams (segmentation fault).
"""

import struct
from collections.abc import Callable

import imagecodecs
import numpy as np
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    UID,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
)

DECODERS: dict[UID, Callable[[bytes], np.ndarray]] = {
    **dict.fromkeys((JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1), imagecodecs.jpeg8_decode),
    **dict.fromkeys((JPEGLSLossless, JPEGLSNearLossless), imagecodecs.jpegls_decode),
    **dict.fromkeys((JPEG2000Lossless, JPEG2000, HTJ2KLossless, HTJ2KLosslessRPCL, HTJ2K), imagecodecs.jpeg2k_decode),
}
JPEG_2000_START = b"\xff\x4f\xff\x51"  # start of codestream, then the marker of its size
END = b"\xff\xd9"
MOST_PADDING = 16  # bytes after the end marker
FRAME_MARKERS = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})  # SOF of JPEG and JPEG-LS


def decode(stream: bytes, transfer_syntax: UID, rows: int, columns: int) -> np.ndarray:
    """Decodes one frame (H, W) of grey values.

    Sizes are compared before anything is decoded, so that a damaged stream cannot ask for any amount of memory.

    Args:
        stream: the frame's codestream.
        transfer_syntax: a key of `DECODERS`.
        rows: as the header says.
        columns: as the header says.

    Raises:
        ValueError: the stream is truncated or has another size; decoders raise errors of their own.
    """
    if END not in stream[-MOST_PADDING:]:
        raise ValueError("truncated: the compressed pixels end without an end marker")
    found = stream_size(stream)
    if found != (rows, columns, 1):
        raise ValueError(f"compressed pixels of {found} rows, columns and colours; expected {(rows, columns, 1)}")
    return DECODERS[transfer_syntax](stream)


def stream_size(stream: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and colour components by the codestream's own header; None where it has none."""
    if stream.startswith(JPEG_2000_START) and len(stream) >= 42:
        right, bottom, left, top = struct.unpack(">4I", stream[8:24])
        return bottom - top, right - left, struct.unpack(">H", stream[40:42])[0]
    place = 2
    while place + 10 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker in FRAME_MARKERS:
            return struct.unpack(">HHB", stream[place + 5 : place + 10])
        is_fill = marker == 0xFF
        place += 1 if is_fill else 2 + struct.unpack(">H", stream[place + 2 : place + 4])[0]
    return None
