"""What the name of a file says: image or label, training or test part, and the words that tell cases apart."""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from util.ids import IMAGE_WORDS, LABEL_WORDS

Role = Literal["image", "label"]
Words = tuple[str, ...]

PARTS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
NNUNET_PARTS = {"tr": "train", "ts": "test", "va": "validation"}  # after images and labels: imagesTr, labelsTs
FILLERS = frozenset({"set", "all", "the", "of", "and"})
ANNOTATOR_WORDS = "annotator|rater|reader|observer|expert|grader|doctor"
ANNOTATOR = re.compile(rf"(?:{ANNOTATOR_WORDS}|ann|obs|r|a|o)?\d+|1st|2nd|3rd|\dth|{ANNOTATOR_WORDS}")
LONGEST_ID = 60  # signs
DOUBLE_SUFFIXES = (".nii.gz", ".hdr.gz", ".ome.tif", ".ome.tiff")


@dataclass(frozen=True)
class Name:
    """What a path says. Words are kept as they are spelled.

    Attributes:
        role: image or label; None: the path does not say.
        says_label: the file's own name holds a word for label, not just a folder's.
        part: train, validation or test; None: the path does not say.
        core: words of the file's name that say neither role nor part.
        place: the same of the folders above.
        role_words: those that say the role, of the file's name, else of the nearest folder that has any.
    """

    role: Role | None
    says_label: bool
    part: str | None
    core: Words
    place: Words
    role_words: Words


def parse(path: str, n_common: int = 0) -> Name:
    """Takes a relative path apart; the first `n_common` folders are the same for all files and say nothing."""
    *folders, file = PurePosixPath(path).parts
    parsed = [_Component.of(text) for text in (*folders[n_common:], stem(file))]
    own, above = parsed[-1], parsed[:-1]
    with_role = next((each for each in reversed(parsed) if each.role_words), None)
    nearest: Role | None = next((each.role for each in reversed(above) if each.role), None)
    is_label = "label" in (own.role, nearest)
    return Name(
        role="label" if is_label else own.role or nearest,
        says_label=own.role == "label",
        part=next((each.part for each in reversed(parsed) if each.part), None),
        core=own.words,
        place=tuple(word for each in above for word in each.words),
        role_words=with_role.role_words if with_role else (),
    )


def stem(file: str) -> str:
    """A file's name without its suffix, `.nii.gz` included."""
    suffix = next((each for each in DOUBLE_SUFFIXES if file.lower().endswith(each)), None)
    return file[: -len(suffix)] if suffix else PurePosixPath(file).stem or file


@dataclass(frozen=True)
class _Component:
    """One folder or file name of a path."""

    role: Role | None
    part: str | None
    words: Words
    role_words: Words

    @classmethod
    def of(cls, text: str) -> "_Component":
        words, role_words, part = [], [], None
        for word in _split(text):
            lower = word.lower()
            if lower in LABEL_WORDS | IMAGE_WORDS:
                role_words.append(word)
            elif lower in PARTS:
                part = PARTS[lower]
            elif lower in NNUNET_PARTS and role_words:
                part = NNUNET_PARTS[lower]
            elif lower not in FILLERS:
                words.append(word)
        named = [word.lower() for word in role_words]
        is_label = any(word in LABEL_WORDS for word in named) or _names_annotator(words)
        role: Role | None = "label" if is_label else "image" if named else None
        return cls(role, part, tuple(words), tuple(role_words))


def _names_annotator(words: Sequence[str]) -> bool:
    return any(re.fullmatch(rf"(?:{ANNOTATOR_WORDS})\d*", word.lower()) for word in words)


def _split(text: str) -> Iterator[str]:
    """The words of a name, without an enumeration such as `1. ` before it."""
    text = re.sub(r"^\w{1,2}[.)]\s+", "", unicodedata.normalize("NFC", text))
    for piece in filter(None, re.split(r"[\W_]+", text)):
        yield from _divide(piece)


def _divide(piece: str) -> Iterator[str]:
    """Separates a word for the role that is written together with others: `img0001`, `GroundTruth`, `gmseg`."""
    known = LABEL_WORDS | IMAGE_WORDS
    humps = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+|[^\W\dA-Za-z]+", piece)
    numbered = re.fullmatch(r"([^\W\d]+?)(\d+)", piece)
    joined = re.fullmatch(r"(\w{2,}?)(seg|mask|label)s?", piece.lower())
    if piece.lower() in known:
        yield piece
    elif numbered and numbered[1].lower() in known:
        yield from numbered.groups()
    elif len(humps) > 1 and "".join(humps) == piece and any(hump.lower() in known for hump in humps):
        yield from humps
    elif joined:
        yield piece[: joined.end(1)]
        yield piece[joined.end(1) :]
    else:
        yield piece


def safe(text: str) -> str:
    """`text` as a file name on every system: letters and digits of ASCII, `.`, `-` and `_`; may be empty."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^A-Za-z0-9.-]+", "_", plain).strip("._-")[-LONGEST_ID:].strip("._-")


def choose_ids(paths: Sequence[str], names: Sequence[Name]) -> list[str]:
    """Ids of cases: the shortest distinguishing part of each image's path, safe as a file name.

    Args:
        paths: of the images, relative.
        names: what the paths say.
    """
    shared = set.intersection(*(set(name.place) for name in names)) if len(names) > 1 else set()
    places = [tuple(word for word in name.place if word not in shared) for name in names]
    choices = (
        [safe("_".join(name.core)) for name in names],
        [safe("_".join(place)) for place in places],
        [safe("_".join((*place, *name.core))) for place, name in zip(places, names, strict=True)],
        [safe(stem(PurePosixPath(path).name)) for path in paths],
        [safe("_".join(PurePosixPath(path).with_name(stem(PurePosixPath(path).name)).parts)) for path in paths],
    )
    for ids in choices:
        if all(ids) and len({each.lower() for each in ids}) == len(ids):
            return ids
    return _numbered(choices[-1])


def _numbered(ids: Sequence[str]) -> list[str]:
    """The same ids, repeated or empty ones with a number."""
    taken: set[str] = set()
    result = []
    for given in ids:
        number, each = 1, given or "case"
        while each.lower() in taken:
            number += 1
            each = f"{given or 'case'}_{number}"
        taken.add(each.lower())
        result.append(each)
    return result


PATIENT = re.compile(r"(?:p|pt|pat|patient|sub|subj|subject)(\d+)", re.IGNORECASE)
PATIENT_WORDS = frozenset({"patient", "pat", "sub", "subj", "subject"})


def guess_patients(names: Sequence[Name]) -> list[str]:
    """A guess at each case's patient from its name; all empty where no patient would have several cases."""
    guesses = [_named_patient(name) for name in names]
    if not all(guesses):
        guesses = _leading_words(names)
    return guesses if 1 < len(set(guesses)) < len(guesses) else [""] * len(names)


def _named_patient(name: Name) -> str:
    """`P01`, `patient_3` or `sub-01` among the words of a path; empty where there is none."""
    words = (*name.place, *name.core)
    for word, following in zip(words, (*words, "")[1:], strict=True):
        if PATIENT.fullmatch(word):
            return safe(word)
        if word.lower() in PATIENT_WORDS and following[:1].isdigit():
            return safe(f"{word}_{following}")
    return ""


def _leading_words(names: Sequence[Name]) -> list[str]:
    """The first word that differs between cases, where further differing words follow it; else empty."""
    words = [(*name.place, *name.core) for name in names]
    if not words or len({len(each) for each in words}) != 1:
        return [""] * len(names)
    varying = [place for place in range(len(words[0])) if len({each[place] for each in words}) > 1]
    if len(varying) < 2 or not all(re.search(r"\d", each[varying[0]]) for each in words):
        return [""] * len(names)
    return [safe("_".join(each[: varying[0] + 1][-2:])) for each in words]
