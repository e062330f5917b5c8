"""Several labels of one image: masks of different structures, or the same drawn by different annotators."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from data.describe.folder import LeftOut
from data.describe.names import ANNOTATOR, Words, safe
from data.describe.pairing import Match, Pairing

MOST_STRUCTURES = 254
SPORADIC = 0.5  # a second, merely numbered mask in a smaller part of the labelled cases is a further object


@dataclass(frozen=True)
class Column:
    """One kind of label file: a column of the table.

    Attributes:
        structure: whose binary mask it is; empty: label maps of all classes.
        annotator: who drew it; empty: only one annotator.
    """

    structure: str = ""
    annotator: str = ""

    @property
    def heading(self) -> str:
        """The column's name in the table."""
        return (f"mask:{self.structure}" if self.structure else "label") + f"@{self.annotator}" * bool(self.annotator)


@dataclass
class LabelTable:
    """The label files of each image.

    Attributes:
        columns: in the order of the table.
        files: per image, column -> path of its label.
        hint: name of the only structure, where file or folder names tell one; else empty.
        left_out: labels that found no place.
    """

    columns: list[Column]
    files: list[dict[Column, str]]
    hint: str
    left_out: list[LeftOut]


@dataclass(frozen=True)
class _Label:
    match: Match
    structure: str
    annotator: str


def arrange_labels(pairing: Pairing) -> LabelTable:
    """Sorts the labels of each image into columns."""
    labels, left_out = _keep_regular(_read_words(pairing.matches))
    several = _have_several(labels)
    structures = {label.structure for label in labels}
    hint = ""
    if not several:
        hint = structures.pop() if len(structures) == 1 else ""
        if len(structures) > 1 and not _are_structures(labels, structures):
            structures = {""}
        labels = [replace(label, structure="") for label in labels] if len(structures) <= 1 else labels
    labels, multi = _keep_label_maps(labels)
    left_out += multi
    files: list[dict[Column, str]] = [{} for _ in pairing.images]
    for label in labels:
        column, row = Column(label.structure, label.annotator), files[label.match.image]
        if column in row:
            reason = f"a second label of the same kind; {row[column]} is used. Rename one of them"
            left_out.append(LeftOut(label.match.label.path, reason))
        else:
            row[column] = label.match.label.path
    columns = sorted({column for row in files for column in row}, key=lambda each: (each.structure, each.annotator))
    return LabelTable(columns, files, hint, left_out)


def _read_words(matches: Sequence[Match]) -> list[_Label]:
    """Reads structure and annotator from the words of each label that are not the image's."""
    parts = [tuple(_divide(words) for words in (match.place_words, match.name_words)) for match in matches]
    places, names = ({part[source][0] for part in parts} for source in (0, 1))
    both = {(place[0], name[0]) for place, name in parts}
    use_place, use_name = len(places) == len(both), len(names) == len(both)
    labels = []
    for match, (place, name) in zip(matches, parts, strict=True):
        words = place[0] if use_place and len(places) > 1 else name[0] if use_name else (*place[0], *name[0])
        labels.append(_Label(match, safe("_".join(words)), safe("_".join((*place[1], *name[1])))))
    return _name_by_role(labels)


def _divide(words: Words) -> tuple[Words, Words]:
    """Words of structures, words of annotators; a number after a word for annotator belongs to it."""
    annotators = tuple(word for word in words if ANNOTATOR.fullmatch(word.lower()))
    return tuple(word for word in words if word not in annotators), annotators


def _name_by_role(labels: list[_Label]) -> list[_Label]:
    """Names nameless structures by their word for label (`mask`, `manual`) where an image has several of them."""
    roles = {label.match.role_words for label in labels if not label.structure}
    by_image: dict[int, set[Words]] = defaultdict(set)
    for label in labels:
        by_image[label.match.image].add(() if label.structure else label.match.role_words)
    is_needed = any(len(kinds) > 1 for kinds in by_image.values())
    if not is_needed:
        return labels
    annotators = {(label.match.role_words, label.annotator) for label in labels if not label.structure}
    is_one_each = len(annotators) == len(roles)  # then the number in `manual1` tells nothing
    return [
        label
        if label.structure
        else replace(
            label,
            structure=safe("_".join(label.match.role_words)).lower() or "label",
            annotator="" if is_one_each else label.annotator,
        )
        for label in labels
    ]


def _have_several(labels: Iterable[_Label]) -> bool:
    """Whether any image has labels of several structures."""
    by_image: dict[int, set[str]] = defaultdict(set)
    for label in labels:
        by_image[label.match.image].add(label.structure)
    return any(len(structures) > 1 for structures in by_image.values())


def _are_structures(labels: Sequence[_Label], structures: set[str]) -> bool:
    """Whether words that differ between images, each with one label, are names of structures."""
    return all(label.match.label.is_binary for label in labels) and len(structures) <= max(2, len(labels) // 3)


def _keep_regular(labels: list[_Label]) -> tuple[list[_Label], list[LeftOut]]:
    """Leaves out masks of single objects, and further masks that only some images have."""
    n_labelled = len({label.match.image for label in labels})
    n_structures = len({label.structure for label in labels})
    if n_structures > MOST_STRUCTURES or (
        n_structures > 3 * max(n_labelled, 1) and n_structures > 20 and _are_unique(labels)
    ):
        reason = "one of many masks of single objects with names of their own; merge them into one mask per image"
        return [], [LeftOut(label.match.label.path, reason) for label in labels]
    used = Counter((label.structure, label.annotator) for label in labels)
    bare = {label.structure for label in labels if not label.annotator}
    kept, left_out = [], []
    for label in labels:
        n_images = used[label.structure, label.annotator]
        if label.annotator.isdigit() and label.structure in bare and n_images < SPORADIC * used[label.structure, ""]:
            reason = (
                "a further mask that only some images have; merge it with the first one if it shows a second object, "
                "or name the annotators (_r1, _r2)"
            )
            left_out.append(LeftOut(label.match.label.path, reason))
        else:
            kept.append(label)
    annotators = {label.annotator for label in kept}
    if len(annotators) == 1:
        kept = [replace(label, annotator="") for label in kept]
    return kept, left_out


def _are_unique(labels: Sequence[_Label]) -> bool:
    """Whether hardly any structure occurs in two images."""
    counts = Counter(label.structure for label in labels)
    return sum(count == 1 for count in counts.values()) > 0.9 * len(counts)


def _keep_label_maps(labels: list[_Label]) -> tuple[list[_Label], list[LeftOut]]:
    """Where masks of structures and label maps of several classes are mixed: keeps the label maps, if of one name."""
    several = {label.structure for label in labels if label.structure and not label.match.label.is_binary}
    if not several:
        return labels, []
    kept = [replace(label, structure="") for label in labels if len(several) == 1 and label.structure in several]
    used = {label.match.label.path for label in kept}
    if used:
        reason = f"a mask next to label maps of several classes ({several.pop()}), which are used"
    else:
        listed = ", ".join(sorted(several)[:4])
        reason = f"one of several kinds of label maps ({listed}); leave all but one out with --ignore"
    paths = [label.match.label.path for label in labels]
    return kept, [LeftOut(path, reason) for path in paths if path not in used]


def keep_one_annotator(table: LabelTable) -> None:
    """Keeps the labels of the annotator with the most files; for scans, several are not supported."""
    counts = Counter(column.annotator for row in table.files for column in row)
    if not any(counts):
        return
    chosen = max(sorted(counts), key=lambda annotator: counts[annotator])
    reason = f"drawn by another annotator than {chosen}; one per scan is supported. Enter this file to use it instead"
    for number, row in enumerate(table.files):
        kept = {replace(column, annotator=""): path for column, path in row.items() if column.annotator == chosen}
        table.left_out += [LeftOut(path, reason) for path in row.values() if path not in kept.values()]
        table.files[number] = kept
    table.columns = [replace(column, annotator="") for column in table.columns if column.annotator == chosen]
