"""Which label belongs to which image: from names first, confirmed by contents; what is ambiguous is not guessed."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from data.describe.folder import LeftOut
from data.describe.names import Name, Words, parse
from util.ids import natural_key

NNUNET_CHANNEL_DIGITS = 4  # of the suffix _0000 of nnU-Net's images


@dataclass(frozen=True)
class Entry:
    """A file, or the folder of a DICOM series, and what pairing needs to know of it.

    Attributes:
        path: relative, with slashes.
        shape: (D, H, W) or (H, W).
        is_label_like: it may be a label map.
        is_surely_label_like: it looks like one whatever its name.
        is_binary: it is a mask of one structure.
        is_folder: of a DICOM series.
        content: what it holds, in words, for messages about files that are named like labels and are none.
    """

    path: str
    shape: tuple[int, ...] = ()
    is_label_like: bool = False
    is_surely_label_like: bool = False
    is_binary: bool = False
    is_folder: bool = False
    content: str = "many values"


@dataclass(frozen=True)
class Match:
    """A label and the image it belongs to.

    Attributes:
        label: its entry.
        image: position of the image among the images.
        place_words: what the label's folders say beyond the image's name: a structure, an annotator.
        name_words: what the label's own name says beyond that.
        role_words: the words for label in its name or folder.
    """

    label: Entry
    image: int
    place_words: Words
    name_words: Words
    role_words: Words


@dataclass
class Pairing:
    """Images, and the labels that belong to them.

    Attributes:
        images: entries, by path.
        names: what the paths of the images say.
        matches: of labels, by path.
        left_out: what belongs to no image, or to several.
    """

    images: list[Entry] = field(default_factory=list)
    names: list[Name] = field(default_factory=list)
    matches: list[Match] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)


def pair(entries: Iterable[Entry], n_common: int | None = None) -> Pairing:
    """Pairs labels with images.

    A file is a label where its name or the nearest folder says so and its content can be one, or where its content
    surely looks like one and its name extends an image's. A label belongs to the image whose distinguishing words its
    own name holds; where several images fit equally well, or sizes differ, it is left out with the reason.

    Args:
        entries: all files of a kind.
        n_common: number of leading folders that say nothing; None: those that all entries have in common.
    """
    entries = sorted(entries, key=lambda entry: natural_key(entry.path))
    paths = [_path_with_file(entry) for entry in entries]
    n_common = count_common_folders(paths) if n_common is None else n_common
    names = [parse(path, n_common) for path in paths]
    images, labels, unsure, result = [], [], [], Pairing()
    for entry, name in zip(entries, names, strict=True):
        if name.role == "label" and not entry.is_label_like and name.says_label:
            reason = f"named like a label, but holds {entry.content}; expected few whole values from 0, or few colours"
            result.left_out.append(LeftOut(entry.path, reason))
        elif name.role == "label" and entry.is_label_like:
            labels.append((entry, name))
        elif name.role is None and entry.is_surely_label_like:
            unsure.append((entry, name))
        else:
            images.append((entry, name))
    images = _keep_first_channels(images, [name for _, name in labels], result)
    result.images, result.names = [entry for entry, _ in images], [name for _, name in images]
    index = _Index(result.names)
    for entry, name in labels + unsure:
        _match(entry, name, index, result)
    result.matches.sort(key=lambda match: natural_key(match.label.path))
    return result


def _path_with_file(entry: Entry) -> str:
    return f"{entry.path}/dicom" if entry.is_folder else entry.path


def count_common_folders(paths: Sequence[str]) -> int:
    """Number of leading folders that all paths have in common."""
    folders = [path.split("/")[:-1] for path in paths]
    n_common = 0
    while folders and all(len(each) > n_common and each[n_common] == folders[0][n_common] for each in folders):
        n_common += 1
    return n_common


def _keep_first_channels(
    images: list[tuple[Entry, Name]], labels: Sequence[Name], result: Pairing
) -> list[tuple[Entry, Name]]:
    """Removes nnU-Net's suffix `_0000` from the images' words and leaves further channels out."""
    cores = {label.core for label in labels}
    suffixes = [(name.core or ("",))[-1] for _, name in images]
    is_nnunet = any(name.core[:-1] in cores for _, name in images) and all(
        len(suffix) == NNUNET_CHANNEL_DIGITS and suffix.isdigit() for suffix in suffixes
    )
    if not is_nnunet:
        return images
    kept = []
    for (entry, name), channel in zip(images, suffixes, strict=True):
        if channel == "0000":
            kept.append((entry, Name(name.role, name.says_label, name.part, name.core[:-1], name.place, ())))
        else:
            reason = "a further channel of a case (nnU-Net's _0001, ...); one channel per scan is used"
            result.left_out.append(LeftOut(entry.path, reason))
    return kept


def _stretches(words: Sequence[str]) -> set[Words]:
    """All stretches of neighbouring words, in lower case."""
    lower = [word.lower() for word in words]
    return {tuple(lower[i:j]) for i in range(len(lower)) for j in range(i + 1, len(lower) + 1)}


class _Index:
    """Images by their words."""

    def __init__(self, names: Sequence[Name]) -> None:
        self.names = names
        self.by_key: dict[Words, list[int]] = defaultdict(list)
        self.by_stretch: dict[Words, list[int]] = defaultdict(list)
        self.by_place: dict[Words, list[int]] = defaultdict(list)
        for number, name in enumerate(names):
            self.by_key[self.key(number)].append(number)
            for length in range(len(name.place) + 1):
                self.by_place[_lower(name.place[:length])].append(number)
            for stretch in _stretches(name.core):
                self.by_stretch[stretch].append(number)

    def key(self, number: int) -> Words:
        """The words that a label's name must hold: those of the image's name; without any, its folders'."""
        return _lower(self.names[number].core or self.names[number].place)

    def candidates(self, label: Name) -> dict[int, tuple[int, ...]]:
        """Images that fit -> how well, greater is better."""
        full, core = (*label.place, *label.core), _lower(label.core)
        found: dict[int, tuple[int, ...]] = {}
        for stretch in _stretches(full):
            for number in self.by_key.get(stretch, ()):
                found[number] = (len(stretch), core[: len(stretch)] == stretch, 0)
        if core:
            for number in self.by_stretch.get(core, ()):
                unused = len(core) - len(self.names[number].core)
                found[number] = max(found.get(number, (0,)), (len(core), self.key(number)[: len(core)] == core, unused))
        found = found or self._neighbours(label)
        return {
            number: (*fit, self._common(label, number)) for number, fit in found.items() if self._agree(label, number)
        }

    def _neighbours(self, label: Name) -> dict[int, tuple[int, ...]]:
        """The only image in the label's folder or below it, else below one of the folders above."""
        place = _lower(label.place)
        for length in range(len(place), -1, -1):
            near = self.by_place.get(place[:length], [])
            if near:
                is_only = len(near) == 1 and (length or label.role)
                return {near[0]: (0, 0, 0)} if is_only and not self._numbers_differ(label, near[0]) else {}
        return {}

    def _numbers_differ(self, label: Name, number: int) -> bool:
        mine, other = ({word for word in name.core if word.isdigit()} for name in (label, self.names[number]))
        return bool(mine and other and mine.isdisjoint(other))

    def _common(self, label: Name, number: int) -> int:
        """How many words of the folders they share; the part of the data set counts as one."""
        image = self.names[number]
        shared = Counter(_lower(label.place)) & Counter(_lower(image.place))
        return shared.total() + (label.part is not None and label.part == image.part)

    def _agree(self, label: Name, number: int) -> bool:
        """False where parts differ, or where both folders hold numbers that the other's path has not."""
        image = self.names[number]
        if label.part and image.part and label.part != image.part:
            return False
        all_label, all_image = (set(_lower((*name.place, *name.core))) for name in (label, image))
        mine = any(_has_digit(word) for word in set(_lower(label.place)) - all_image)
        return not (mine and any(_has_digit(word) for word in set(_lower(image.place)) - all_label))


def _lower(words: Iterable[str]) -> Words:
    return tuple(word.lower() for word in words)


def _has_digit(word: str) -> bool:
    return any(sign.isdigit() for sign in word)


def _match(entry: Entry, name: Name, index: _Index, result: Pairing) -> None:
    """Adds a label to the matches, or to what is left out."""
    candidates = index.candidates(name)
    best = [number for number, fit in candidates.items() if fit == max(candidates.values())]
    if not best:
        looks = "" if name.role else "looks like a label map; "
        result.left_out.append(LeftOut(entry.path, f"{looks}no image has a name that fits"))
    elif len(best) > 1:
        listed = ", ".join(result.images[number].path for number in best[:3]) + ", ..." * (len(best) > 3)
        reason = f"fits {len(best)} images equally well ({listed}); leave the others out with --ignore, or rename"
        result.left_out.append(LeftOut(entry.path, reason))
    elif not _have_same_size(entry, result.images[best[0]]):
        image = result.images[best[0]]
        reason = f"size {_size(entry)}; expected {_size(image)} as {image.path}"
        result.left_out.append(LeftOut(entry.path, reason))
    else:
        result.matches.append(_matched(entry, name, best[0], index))


def _have_same_size(label: Entry, image: Entry) -> bool:
    """Whether sizes agree; volumes may store their axes in different orders."""
    return label.shape == image.shape or (len(label.shape) == 3 and sorted(label.shape) == sorted(image.shape))


def _size(entry: Entry) -> str:
    return " x ".join(map(str, entry.shape))


def _matched(entry: Entry, name: Name, number: int, index: _Index) -> Match:
    """The match, with the words of the label that are not the image's."""
    image = index.names[number]
    theirs = Counter(_lower((*image.core, *image.place)))
    rest: list[Words] = []
    for words in (name.core, name.place):  # the name first: `lung/lung_01` of `lung_01` leaves the folder's word
        kept = []
        for word in words:
            if theirs[word.lower()]:
                theirs[word.lower()] -= 1
            else:
                kept.append(word)
        rest.append(tuple(kept))
    return Match(entry, number, place_words=rest[1], name_words=rest[0], role_words=name.role_words)
