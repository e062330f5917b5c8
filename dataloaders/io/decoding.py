"""Opens picture files of any origin safely: known formats only, a bound on their size, one error for every defect."""

import gzip
import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from util.errors import DataError

# Decoders of pillow and libraries linked to it (JPEG with MPO); none that starts another program, as EPS does.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "GIF", "WEBP", "JPEG2000", "PPM")
LARGEST_PX = 2**27  # 134 million, such as 11585 x 11585: 512 MiB decoded in four channels of 8 bits
PACKED_SUFFIX, LARGEST_PACKED = ".ppm.gz", 2**26  # bytes after unpacking: a colour picture of 4729 x 4729
TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BIG_TIFF = b"+"  # of which the header has 16 bytes, not 8
TIFF_WIDTH, TIFF_HEIGHT = 256, 257  # tags
ENDS = {b"\x89PNG": b"IEND\xaeB`\x82", b"\xff\xd8\xff": b"\xff\xd9"}  # first bytes -> last bytes
END_WITHIN = 4096  # bytes; some programs append data of their own
LONGEST_REASON = 200  # characters
AGAIN = "Copy, export or download the file again."


class UnsupportedTiffError(DataError):
    """A TIFF file of a kind that pillow does not know; OpenCV may."""


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Opens a single picture, not decoded yet; what fails while it is decoded in the block is reported as well.

    Through a stream, because pillow 13 misreads turned TIFF files that it maps into memory. Of the several pictures
    that cameras and phones store in one JPEG file (MPO) the first is used, as viewers do. PPM files may be packed.

    Raises:
        UnsupportedTiffError: a TIFF file of a kind that pillow does not know.
        DataError: absent, empty, no picture, damaged, of several pages or frames, or of more than `LARGEST_PX` pixels.
    """
    try:
        with _open_stream(path) as stream, Image.open(stream, formats=FORMATS) as image:
            require_size(path, image.height, image.width)
            _require_one_page(path, image)
            yield image
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file. Correct the path, or copy the file there.") from error
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise _unidentified(path) from error
    except Exception as error:  # the boundary: pillow raises some fifteen kinds of errors for damaged and hostile files
        raise _unreadable(path, error) from error


def _open_stream(path: Path) -> io.BufferedReader | io.BytesIO:
    """The bytes of a picture, unpacked where it is a packed PPM file.

    Raises:
        DataError: more than `LARGEST_PACKED` bytes after unpacking.
    """
    if not path.name.lower().endswith(PACKED_SUFFIX):
        return path.open("rb")
    with gzip.open(path) as packed:
        content = packed.read(LARGEST_PACKED + 1)
    if len(content) > LARGEST_PACKED:
        raise DataError(f"{path}: more than {LARGEST_PACKED} bytes when unpacked, the most that is read. Unpack it.")
    return io.BytesIO(content)


def read_unchanged(path: Path) -> np.ndarray:
    """Reads a picture with OpenCV: (H, W), or (H, W, C) in the order red, green, blue, alpha, in the file's own dtype.

    OpenCV turns TIFF files upright by itself, others not.

    Raises:
        DataError: absent, damaged, of several pages, or of more than `LARGEST_PX` pixels.
    """
    import cv2  # only deep images need it

    try:
        _require_sound_tiff(path)
        array = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except DataError:
        raise
    except Exception as error:  # the boundary, see `opened`
        raise _unreadable(path, error) from error
    if array is None:
        raise DataError(f"{path}: cannot be read as an image. {AGAIN}")
    return array if array.ndim == 2 else np.concatenate([array[..., 2::-1], array[..., 3:]], axis=-1)


def require_size(path: Path, height_px: int, width_px: int) -> None:
    """Checks the size that a header states, before anything is allocated.

    Raises:
        DataError: no pixels, or more than `LARGEST_PX`.
    """
    if not 0 < height_px * width_px <= LARGEST_PX:
        raise DataError(
            f"{path}: {height_px} x {width_px} pixels (rows x columns) by its header; expected 1 to {LARGEST_PX} in "
            "all. Scale the picture down, or copy the file again."
        )


def is_16_bit_colour(image: Image.Image) -> bool:
    """Whether pillow would drop the lower 8 of 16 bits per channel; `image` has been opened, not loaded."""
    return image.mode.startswith(("RGB", "LA")) and any("16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _require_one_page(path: Path, image: Image.Image) -> None:
    n_pages = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    if n_pages > 1:
        raise _several_pages(path, f"{n_pages}")


def _require_sound_tiff(path: Path) -> None:
    """Checks the size and the number of pages of a TIFF file by its header; of other files nothing."""
    with path.open("rb") as stream:
        header = stream.read(16)
        if header[:4] not in TIFF_MAGIC:
            return
        tags = ImageFileDirectory_v2(header if BIG_TIFF in header[2:4] else header[:8])
        stream.seek(tags.next)
        tags.load(stream)
    require_size(path, int(tags[TIFF_HEIGHT]), int(tags[TIFF_WIDTH]))
    if tags.next:
        raise _several_pages(path, "several")


def _several_pages(path: Path, n_pages: str) -> DataError:
    return DataError(
        f"{path}: {n_pages} pages; expected a single picture. Save each page as a file of its own, or describe a "
        "volume as a scan (NIfTI)."
    )


def _unidentified(path: Path) -> DataError:
    with path.open("rb") as stream:
        start = stream.read(8)
    if start[:4] in TIFF_MAGIC:
        return UnsupportedTiffError(
            f"{path}: cannot be read as an image (a kind of TIFF that is not supported). {AGAIN}"
        )
    found = f"it begins with {start!r}" if start else "it is empty (0 bytes)"
    return DataError(f"{path}: cannot be read as an image: {found}; expected PNG, JPEG, TIFF or BMP. {AGAIN}")


def _unreadable(path: Path, error: Exception) -> DataError:
    """The error of a damaged or hostile file; truncated is called what lacks its end."""
    reason, remedy = " ".join(str(error).split())[:LONGEST_REASON] or type(error).__name__, AGAIN
    if isinstance(error, Image.DecompressionBombError):
        reason, remedy = f"more than {LARGEST_PX} pixels, the most that is read", "Scale the picture down."
    elif "MAX_TEXT" in reason:
        reason, remedy = f"too much text in its metadata: {reason}", "Save it again without metadata."
    elif "truncated" in reason.lower() and _has_end(path):
        reason = "its compressed data are damaged"
    return DataError(f"{path}: cannot be read as an image ({reason}). {remedy}")


def _has_end(path: Path) -> bool:
    """Whether a PNG or JPEG file ends as its format demands."""
    content = path.read_bytes()
    return any(content.startswith(first) and last in content[-END_WITHIN:] for first, last in ENDS.items())
