"""What is found in a folder: cases with their labels, facts of every file, and what is left out."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from data.describe.columns import Column, LabelTable, arrange_labels, keep_one_annotator
from data.describe.facts import FileFacts, Unreadable, read_facts
from data.describe.folder import Item, LeftOut, Listing, list_folder
from data.describe.names import choose_ids, guess_patients, safe
from data.describe.pairing import Entry, Pairing, count_common_folders, pair
from dataloaders.io.geometry import corner_distance_mm
from util.cli import parallel_map
from util.errors import DataError
from util.files import read_json_object

Kind = Literal["scans", "images"]
KIND = {"nifti": "scans", "dicom": "scans", "picture": "images"}
OBJECT = "object"  # the structure of masks whose names tell none
FEW_FILES = 16  # read without further processes


@dataclass(frozen=True)
class Case:
    """One line of the table: an image, its labels and what its path tells."""

    id: str
    image: str
    labels: dict[Column, str]
    patient: str = ""
    part: str = ""
    note: str = ""


@dataclass
class Survey:
    """All that was found.

    Attributes:
        root: the folder.
        kind: scans or images.
        cases: by path of the image.
        columns: of labels, in order.
        facts: path -> what the file holds, of used files.
        left_out: unused files.
        n_files: number of files that are used or left out.
        n_ignored: hidden files and thumbnails.
        hint: name of the only structure, if file names tell one.
        class_names: value -> name, from a `dataset.json` of nnU-Net or the Decathlon.
        remarks: what the user should know about the data, one sentence each.
        patients_are_guessed: from names, not from DICOM headers.
    """

    root: Path
    kind: Kind
    cases: list[Case]
    columns: list[Column]
    facts: dict[str, FileFacts]
    left_out: list[LeftOut]
    n_files: int
    n_ignored: int
    hint: str = ""
    class_names: dict[int, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    patients_are_guessed: bool = True

    @property
    def images(self) -> list[FileFacts]:
        """Facts of the images, by case."""
        return [self.facts[case.image] for case in self.cases]

    @property
    def n_labelled(self) -> int:
        """Number of cases with a label."""
        return sum(bool(case.labels) for case in self.cases)


def survey_folder(root: Path, kind: Kind | None = None, ignored: Sequence[str] = (), jobs: int = 1) -> Survey:
    """Lists, reads and pairs the files of a folder.

    Args:
        root: the folder.
        kind: which files are described; None: the kind of which there are more.
        ignored: patterns of paths to leave out.
        jobs: processes that read files.

    Raises:
        DataError: no such folder, a prepared one, or nothing usable in it.
    """
    listing = list_folder(root, tuple(ignored))
    n_files = listing.n_files
    facts, failures = _read_all(root, listing, jobs)
    n_common = count_common_folders([f"{i.path}/dicom" if i.format == "dicom" else i.path for i in listing.items])
    pairings = {each: pair(_entries(listing, facts, each), n_common) for each in ("scans", "images")}
    chosen: Kind = kind or max(("scans", "images"), key=lambda each: len(pairings[each].images))
    left_out = listing.left_out + failures + _other_kind(listing, facts, chosen, is_given=kind is not None)
    pairing = pairings[chosen]
    if not pairing.images:
        raise DataError(_explain_nothing(root, chosen, kind, left_out + pairing.left_out, n_files))
    table = arrange_labels(pairing)
    if chosen == "scans":
        keep_one_annotator(table)
    sizes = {item.path: item.n_files for item in listing.items}
    left_out += [replace(each, n_files=sizes.get(each.path, 1)) for each in pairing.left_out + table.left_out]
    class_names, left_out = _read_class_names(root, left_out)
    survey = Survey(
        root=root,
        kind=chosen,
        cases=_cases(pairing, table, facts),
        columns=table.columns,
        facts=facts,
        left_out=sorted(left_out, key=lambda each: each.path),
        n_files=n_files,
        n_ignored=listing.n_ignored,
        hint=table.hint,
        class_names=class_names,
    )
    _use_mask_column(survey)
    _group_patients(survey, guess_patients(pairing.names))
    _join_duplicates(survey)
    _note_twins(survey)
    _compare_grids(survey)
    return survey


def _note_twins(survey: Survey) -> None:
    """Notes images whose paths differ in their suffix only: copies of one image in two formats."""
    by_stem: dict[str, list[str]] = defaultdict(list)
    for case in survey.cases:
        by_stem[str(Path(case.image).with_suffix("")).lower()].append(case.image)
    for paths in by_stem.values():
        if len(paths) > 1:
            survey.remarks.append(
                f"{' and '.join(paths)}: the same name but for the suffix. If they are one image, delete the lines of "
                "all but one from the table."
            )


def _compare_grids(survey: Survey) -> None:
    """Notes labels of scans that have another place in the patient than their image."""
    for case in survey.cases:
        image = survey.facts[case.image]
        for path in case.labels.values():
            label = survey.facts[path]
            if not image.affine or label.axis_codes != image.axis_codes:
                continue  # other directions of the axes: compared by data.prepare, after reorienting
            distance = corner_distance_mm(label.grid, image.grid)
            if distance > min(image.spacing_mm):
                survey.remarks.append(
                    f"{path}: {distance:.3g} mm from the place of {case.image}, by their headers; `frugalseg prepare` "
                    "refuses it. Copy the image's header to the label if the voxels fit."
                )


def _read_all(root: Path, listing: Listing, jobs: int) -> tuple[dict[str, FileFacts], list[LeftOut]]:
    """Facts by path, and what could not be read."""
    jobs = jobs if len(listing.items) > FEW_FILES else 1
    results = parallel_map(partial(read_facts, root), listing.items, jobs, "reading")
    facts, failures = {}, []
    for item, result in zip(listing.items, results, strict=True):
        if isinstance(result, Unreadable):
            failures.append(LeftOut(item.path, f"cannot be used: {result.reason}", item.n_files))
        else:
            facts[item.path] = result
    return facts, failures


def _entries(listing: Listing, facts: dict[str, FileFacts], kind: Kind) -> list[Entry]:
    items = [item for item in listing.items if KIND[item.format] == kind and item.path in facts]
    return [_entry(item, facts[item.path]) for item in items]


def _entry(item: Item, facts: FileFacts) -> Entry:
    is_folder = item.format == "dicom"
    return Entry(
        item.path,
        facts.shape,
        is_label_like=facts.is_label_like and not is_folder,
        is_surely_label_like=facts.is_surely_label_like and not is_folder,
        is_binary=facts.is_binary,
        is_folder=is_folder,
        content=facts.content,
    )


def _other_kind(listing: Listing, facts: dict[str, FileFacts], kind: Kind, is_given: bool) -> list[LeftOut]:
    """What is left out since it is of the other kind."""
    other = "images" if kind == "scans" else "scans"
    why = f"only {kind} are described" if is_given else f"there are more {kind}; --kind {other} describes these"
    items = [item for item in listing.items if KIND[item.format] == other and item.path in facts]
    return [LeftOut(item.path, f"belongs to {other}; {why}", item.n_files) for item in items]


def _explain_nothing(root: Path, kind: Kind, given: Kind | None, left_out: list[LeftOut], n_files: int) -> str:
    expected = {
        "scans": "NIfTI files (.nii, .nii.gz) or folders of DICOM series",
        "images": "PNG, JPEG, TIFF or BMP images",
    }
    wanted = expected[kind] if given else " or ".join(expected.values())
    found = "; ".join(f"{each.path}: {each.reason}" for each in left_out[:5]) or "nothing"
    return (
        f"{root}: none of {n_files} file(s) is usable; expected {wanted}. Found: {found}{', ...' * (len(left_out) > 5)}"
    )


def _cases(pairing: Pairing, table: LabelTable, facts: dict[str, FileFacts]) -> list[Case]:
    ids = choose_ids([entry.path for entry in pairing.images], pairing.names)
    return [
        Case(id_, entry.path, labels, part=name.part or "", note="; ".join(_notes(facts[entry.path])))
        for id_, entry, name, labels in zip(ids, pairing.images, pairing.names, table.files, strict=True)
    ]


def _notes(facts: FileFacts) -> tuple[str, ...]:
    is_constant = facts.percentiles[0] == facts.percentiles[-1]
    return (*facts.notes, "all intensities are equal") if is_constant else facts.notes


def _read_class_names(root: Path, left_out: list[LeftOut]) -> tuple[dict[int, str], list[LeftOut]]:
    """Names of classes in a `dataset.json` as nnU-Net and the Medical Segmentation Decathlon have it."""
    for each in left_out:
        if Path(each.path).name != "dataset.json":
            continue
        try:
            labels = read_json_object(root / each.path)["labels"].items()
            names = (
                {int(k): str(v) for k, v in labels}
                if str(next(iter(labels))[0]).isdigit()
                else {int(value): str(name) for name, value in labels}
            )
        except (ValueError, TypeError, KeyError, AttributeError, StopIteration):
            continue  # another program's dataset.json; it stays among what is left out
        used = replace(each, reason="names of classes were read from it")
        return {value: name for value, name in names.items() if value}, [used if o is each else o for o in left_out]
    return {}, left_out


def _use_mask_column(survey: Survey) -> None:
    """Turns label maps that are masks with different values for the object (1 here, 255 there) into masks."""
    if any(column.structure for column in survey.columns):
        return
    labels = [survey.facts[path] for case in survey.cases for path in case.labels.values()]
    objects = {value for facts in labels for value in facts.values if value}
    are_soft = any("JPEG" in note for facts in labels for note in facts.notes)
    if not labels or not all(facts.is_binary for facts in labels) or (len(objects) < 2 and not are_soft):
        return
    name = safe(survey.hint) or OBJECT
    survey.columns = [replace(column, structure=name) for column in survey.columns]
    survey.cases = [
        replace(case, labels={replace(column, structure=name): path for column, path in case.labels.items()})
        for case in survey.cases
    ]
    if len(objects) > 1:
        listed = ", ".join(map(str, sorted(objects)))
        survey.remarks.append(
            f"Every label holds one value besides 0, but not the same in all files ({listed}). They are taken as masks "
            "of one structure, whatever the value. If the values are different structures, rename the column to "
            "`label` and list the values in `classes`."
        )


def _group_patients(survey: Survey, guesses: list[str]) -> None:
    """Fills in patients that have several cases: from DICOM headers, else guessed from names."""
    headers = [facts.patient for facts in survey.images]
    counts = Counter(filter(None, headers))
    if any(count > 1 for count in counts.values()):
        numbers = {
            patient: f"patient_{number}" for number, patient in enumerate(dict.fromkeys(filter(None, headers)), 1)
        }
        guesses = [numbers.get(patient, "") for patient in headers]
        survey.patients_are_guessed = False
    survey.cases = [replace(case, patient=guess) for case, guess in zip(survey.cases, guesses, strict=True)]


def _join_duplicates(survey: Survey) -> None:
    """Notes images with identical content, and makes them one patient's, so that no split separates them."""
    by_digest: dict[str, list[int]] = defaultdict(list)
    for number, facts in enumerate(survey.images):
        if facts.percentiles[0] < facts.percentiles[-1]:  # constant images are noted as such
            by_digest[facts.digest].append(number)
    for numbers in by_digest.values():
        first, *others = (survey.cases[number] for number in numbers)
        patient = first.patient or first.id
        for number, case in zip(numbers[1:], others, strict=True):
            note = "; ".join(filter(None, [case.note, f"identical to {first.id}"]))
            survey.cases[number] = replace(case, patient=patient, note=note)
        if others:
            survey.cases[numbers[0]] = replace(first, patient=patient)
            listed = ", ".join(case.image for case in (first, *others))
            survey.remarks.append(
                f"Identical content: {listed}. Delete lines of the table, or keep them as one patient's."
            )
