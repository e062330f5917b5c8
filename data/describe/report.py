"""The summary that is shown, and stored in full next to the draft."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from data.describe.facts import PERCENTILES
from data.describe.folder import LeftOut
from data.describe.proposal import ClassDraft, propose_classes, propose_modality, uses_parts
from data.describe.survey import Survey

MOST_LISTED = 4  # of a kind, in the short version
MOST_VARIANTS = 4


def write_report(survey: Survey, most: int | None = MOST_LISTED) -> Iterator[str]:
    """Yields the lines of the summary.

    Args:
        survey: what was found.
        most: how many cases or files are listed of each kind; None: all.
    """
    classes, background = propose_classes(survey)
    yield f"{survey.root}: {len(survey.cases)} {survey.kind}, {survey.n_labelled} with labels"
    yield from _pair_lines(survey, most)
    yield from _fact_lines(survey)
    yield from _class_lines(survey, classes, background)
    yield from _patient_lines(survey, most)
    for remark in survey.remarks[:most]:
        yield f"note: {remark}"
    if len(survey.remarks) > len(survey.remarks[:most]):
        yield f"note: ... and {len(survey.remarks) - len(survey.remarks[:most])} more of the kind"
    yield from _note_lines(survey, most)
    yield from _left_out_lines(survey.left_out, most)
    n_left = sum(each.n_files for each in survey.left_out)
    ignored = f" {survey.n_ignored} hidden or system file(s) were not counted." if survey.n_ignored else ""
    yield f"{survey.n_files} file(s) found: {survey.n_files - n_left} used, {n_left} left out.{ignored}"


def _pair_lines(survey: Survey, most: int | None) -> Iterator[str]:
    yield "pairs:"
    for case in survey.cases[:most]:
        yield f"  {case.id}: {case.image}" + "  (no label)" * (not case.labels)
        labels = [f"    {column.heading}: {path}" for column, path in case.labels.items()]
        yield from labels[:most]
        if len(labels) > len(labels[:most]):
            yield f"    ... and {len(labels) - len(labels[:most])} more masks"
    if len(survey.cases) > len(survey.cases[:most]):
        yield f"  ... and {len(survey.cases) - len(survey.cases[:most])} more"


def _fact_lines(survey: Survey) -> Iterator[str]:
    images = survey.images
    axes = "slices x rows x columns" if survey.kind == "scans" else "rows x columns"
    yield f"sizes ({axes}): {_variants(' x '.join(map(str, facts.shape)) for facts in images)}"
    if survey.kind == "scans":
        spacings = (" x ".join(f"{value:.3g}" for value in facts.spacing_mm) for facts in images)
        yield f"spacing in mm (z, y, x): {_variants(spacings)}"
        yield f"orientation (columns, rows, slices count towards): {_variants(facts.axis_codes for facts in images)}"
        modality, why = propose_modality(survey)
        yield f"modality: {modality or 'unknown'}{f' ({why})' if why else ''}"
    else:
        yield f"colour: {_variants('colour' if facts.channels == 3 else 'grey' for facts in images)}"
    yield f"stored as: {_variants(facts.dtype for facts in images)}"
    medians = np.median([facts.percentiles for facts in images], axis=0)
    named = ("lowest", *(f"{percent:g}th percentile" for percent in PERCENTILES[1:-1]), "highest")
    yield "intensities, median over cases: " + ", ".join(f"{n} {v:.5g}" for n, v in zip(named, medians, strict=True))


def _variants(values: Iterable[str]) -> str:
    """The values that occur, the most frequent first, with their numbers."""
    counts = Counter(values).most_common()
    listed = ", ".join(f"{value} ({count})" if len(counts) > 1 else value for value, count in counts[:MOST_VARIANTS])
    return f"{listed}, and {len(counts) - MOST_VARIANTS} others" if len(counts) > MOST_VARIANTS else listed


def _class_lines(survey: Survey, classes: Sequence[ClassDraft], background: tuple | None) -> Iterator[str]:
    unit = "voxels" if survey.kind == "scans" else "pixels"
    if not classes:
        yield (
            "classes: none, as there are no labels" if not survey.n_labelled else "classes: none; all labels are empty"
        )
        return
    yield f"classes ({survey.n_labelled} labelled cases):"
    for each in classes:
        code = f"value {each.value}" if each.value is not None else f"colour {each.colour}" if each.colour else "mask"
        yield f"  {each.name}: {code}, {100 * each.share:.2g} % of {unit}, in {each.n_cases} cases"
    if background is not None:
        yield f"  background: colour {background}"


def _patient_lines(survey: Survey, most: int | None) -> Iterator[str]:
    cases: dict[str, int] = defaultdict(int)
    for case in survey.cases:
        cases[case.patient] += bool(case.patient)
    if uses_parts(survey):
        yield f"split, from the names of folders or files: {_variants(case.part or 'none' for case in survey.cases)}"
    named = {patient: count for patient, count in cases.items() if patient}
    if not named:
        yield "patients: every case counts as a patient of its own; fill in the column `patient` if that is wrong"
        return
    source = (
        "guessed from names; check the column `patient`" if survey.patients_are_guessed else "from DICOM's PatientID"
    )
    shown = [f"{patient} ({count})" for patient, count in named.items()]
    listed = ", ".join(shown[:most]) + ", ..." * (len(shown) > len(shown[:most]))
    yield f"patients ({source}): {len(named)}: {listed}"


def _note_lines(survey: Survey, most: int | None) -> Iterator[str]:
    by_note: dict[str, list[str]] = defaultdict(list)
    for case in survey.cases:
        for note in filter(None, case.note.split("; ")):
            by_note[note].append(case.image)
        for path in case.labels.values():
            for note in survey.facts[path].notes:
                by_note[note].append(path)
    for note, paths in by_note.items():
        yield f"note: {note}: {_listed(paths, most)}"


def _left_out_lines(left_out: Sequence[LeftOut], most: int | None) -> Iterator[str]:
    by_reason: dict[str, list[LeftOut]] = defaultdict(list)
    for each in left_out:
        by_reason[each.reason].append(each)
    if by_reason:
        yield "left out:"
    for reason, several in by_reason.items():
        yield f"  {_listed([each.path for each in several], most)}: {reason}"


def _listed(paths: Sequence[str], most: int | None) -> str:
    shown = list(paths)[:most]
    rest = len(paths) - len(shown)
    return ", ".join(shown) + (f" and {rest} more" if rest else "")
