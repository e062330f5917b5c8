"""Names that become paths (ids of scans and images, ...): which are allowed, their order; words for label maps."""

import re
import unicodedata
from collections.abc import Iterable
from typing import Any

# Words in names of files and folders that mark a label map or an image.
_LABEL_WORDS = """
label labels lbl lbls labelmap labelmaps mask masks seg segs segm segmentation segmentations gt gts ground truth truths
groundtruth groundtruths annotation annotations annot annots manual contour contours delineation delineations roi rois
"""
_IMAGE_WORDS = """
image images img imgs im scan scans volume volumes vol vols picture pictures photo photos data raw orig original
originals jpegimages dicom
"""
LABEL_WORDS, IMAGE_WORDS = frozenset(_LABEL_WORDS.split()), frozenset(_IMAGE_WORDS.split())
MAX_ID_BYTES = 80  # as UTF-8; files of a case have names of up to 255 bytes, in which its id can appear twice
SHOWN = 100  # characters of an unfit id in messages
_REFUSED = "/\\"
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)  # devices, as names of files on Windows
_REFUSED_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")  # control characters, lone surrogates, line and paragraph separators


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that orders ids as people do, "scan 9" before "scan 10"; ids of digits alone are ordered as numbers.

    Ids that differ in leading zeros alone are ordered as text.
    """
    parts = re.findall(r"\d+|\D+", text)
    return (*((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts), (-1, 0, text))


def is_valid_id(text: str) -> bool:
    """Whether a text can be the id of a case, and so a part of file names."""
    return not invalid_id_reason(text)


def invalid_id_reason(text: str) -> str:
    """What makes a text unfit as an id, with what is expected; empty: nothing.

    The rule for every text from a file or a setting that becomes a part of a path: ids of cases, names of data sets and
    their classes, prefixes of experiments. A valid id joined to a folder always lies in that folder.
    """
    if not text or text != text.strip():
        return "is empty or begins or ends with white space; expected a text"
    if any(sign in _REFUSED or unicodedata.category(sign) in _REFUSED_CATEGORIES for sign in text):
        return "holds a slash, a backslash or a control character; expected letters, digits, spaces and . _ - or alike"
    if text[0] in "-." or text[-1] == ".":
        return "begins with a dash or a dot, or ends with a dot; expected a letter or a digit there"
    if _RESERVED.fullmatch(text):
        return "is the name of a device on Windows; expected another name"
    if len(text.encode()) > MAX_ID_BYTES:
        return f"takes {len(text.encode())} bytes in UTF-8; expected at most {MAX_ID_BYTES}"
    return ""


def first_invalid_id(ids: Iterable[Any]) -> str:
    """The first of some ids that is unfit, and why; empty: none is, and no two name the same file."""
    seen: dict[str, str] = {}
    for text in ids:
        reason = invalid_id_reason(text) if isinstance(text, str) else "is no text; expected one"
        if reason:
            shown = repr(text) if len(repr(text)) <= SHOWN else f"{repr(text)[:SHOWN]}..."
            return f"the id {shown} {reason}"
        key = comparable_id(text)
        if key in seen:
            same = f"the id {text!r} is given twice"
            return same if seen[key] == text else f"the ids {seen[key]!r} and {text!r} name one file"
        seen[key] = text
    return ""


def comparable_id(text: str) -> str:
    """Equal for ids whose files some file systems do not tell apart: upper and lower case, composed characters."""
    return unicodedata.normalize("NFC", text).casefold()
