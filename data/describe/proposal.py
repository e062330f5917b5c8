"""Values proposed for the description: grid, intensities and classes that fit what was found."""

from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

from data.describe.columns import Column
from data.describe.facts import Colour, FileFacts
from data.describe.names import safe
from data.describe.survey import OBJECT, Survey
from dataloaders.scans.guess import PLANES, in_patient_axes, slice_axis
from dataloaders.scans.plausibility import is_air_hu

BLACK: Colour = (0, 0, 0)
SCAN_MULTIPLE_PX, IMAGE_MULTIPLE_PX, LARGEST_PX, SMALLEST_PX = 16, 32, 512, 64


@dataclass(frozen=True)
class ClassDraft:
    """A class found in the labels.

    Attributes:
        name: proposed.
        value: in the label maps; None for masks and colours.
        colour: in colour-coded masks.
        share: of the voxels of all labels of that kind, 0 to 1.
        n_cases: that have it.
    """

    name: str
    value: int | None
    colour: Colour | None
    share: float
    n_cases: int


@dataclass(frozen=True)
class GridDraft:
    """A grid for scans.

    Attributes:
        size_px: rows and columns.
        spacing_mm: (z, y, x).
        axis_codes: as in the description.
        plane: axial, coronal or sagittal.
        field_mm: median field of view, the longer side.
    """

    size_px: int
    spacing_mm: tuple[float, float, float]
    axis_codes: str
    plane: str
    field_mm: float


def propose_classes(survey: Survey) -> tuple[list[ClassDraft], Colour | None]:
    """The classes in the labels, and the background's colour where masks are colour-coded.

    Images without any label get one class, as a description of images needs one.
    """
    classes, background = _find_classes(survey)
    is_needed = not classes and survey.kind == "images"
    return [ClassDraft(OBJECT, None, None, 0.0, 0)] if is_needed else classes, background


def _find_classes(survey: Survey) -> tuple[list[ClassDraft], Colour | None]:
    masks = [column for column in survey.columns if column.structure]
    if masks:
        return [_mask_class(survey, name) for name in dict.fromkeys(column.structure for column in masks)], None
    labels = [_label_facts(survey, case.labels) for case in survey.cases if case.labels]
    if any(facts.colours for several in labels for facts in several):
        return _colour_classes(labels)
    voxels, n_cases = _count([[facts.values for facts in several] for several in labels])
    total = max(sum(voxels.values()), 1)
    values = sorted(value for value in voxels if value)
    hint = (safe(survey.hint) or OBJECT) if len(values) == 1 else ""
    names = {value: safe(survey.class_names.get(value, "")) or hint or f"class_{value}" for value in values}
    if len(set(names.values())) < len(names):
        names = {value: f"{name}_{value}" for value, name in names.items()}
    return [ClassDraft(names[v], v, None, voxels[v] / total, n_cases[v]) for v in values], None


def _label_facts(survey: Survey, labels: dict[Column, str]) -> list[FileFacts]:
    return [survey.facts[path] for path in labels.values()]


def _count(labels: list[list[dict]]) -> tuple[Counter, Counter]:
    """Voxels of each value, and the cases that have it; a list of label files per case."""
    voxels: Counter = Counter()
    n_cases: Counter = Counter()
    for several in labels:
        for values in several:
            voxels.update(values)
        n_cases.update({value for values in several for value in values})
    return voxels, n_cases


def _mask_class(survey: Survey, name: str) -> ClassDraft:
    per_case = [
        [survey.facts[path].values for column, path in case.labels.items() if column.structure == name]
        for case in survey.cases
    ]
    voxels = [sum(count for value, count in values.items() if value) for several in per_case for values in several]
    total = sum(sum(values.values()) for several in per_case for values in several)
    n_cases = sum(any(any(values.keys() - {0}) for values in several) for several in per_case)
    return ClassDraft(name, None, None, sum(voxels) / max(total, 1), n_cases)


def _colour_classes(labels: list[list[FileFacts]]) -> tuple[list[ClassDraft], Colour]:
    """Classes of colour-coded masks; black is the background, else the most frequent colour."""
    as_colours = [
        [facts.colours or {(v, v, v): count for v, count in facts.values.items()} for facts in several]
        for several in labels
    ]
    voxels, n_cases = _count(as_colours)
    background = BLACK if BLACK in voxels else voxels.most_common(1)[0][0]
    total = sum(voxels.values())
    colours = sorted((colour for colour in voxels if colour != background), key=lambda colour: -voxels[colour])
    return [
        ClassDraft(f"class_{number}", None, colour, voxels[colour] / total, n_cases[colour])
        for number, colour in enumerate(colours, start=1)
    ], background


def propose_modality(survey: Survey) -> tuple[str, str]:
    """The modality and why; empty where nothing tells."""
    if survey.kind == "images":
        return ("", "")
    named = Counter(facts.modality for facts in survey.images if facts.modality)
    if named:
        modality = named.most_common(1)[0][0]
        return ("MR" if modality == "MR" else modality, f"the DICOM headers of {named[modality]} scan(s) say so")
    low = float(np.median([facts.percentiles[0] for facts in survey.images]))
    if is_air_hu(low):
        return ("CT", f"intensities look like Hounsfield units: lowest about {low:.0f}")
    return ("", "")


def propose_grid(survey: Survey) -> GridDraft:
    """A grid that holds the median field of view at the median spacing."""
    boxes = [in_patient_axes(facts.grid) for facts in survey.images]
    spacings = np.array([spacing for _, spacing in boxes])
    through = Counter(slice_axis(spacing) for spacing in spacings).most_common(1)[0][0]
    plane = PLANES[through]
    in_plane = list(plane.axes)
    fields = [max(shape[axis] * spacing[axis] for axis in in_plane) for shape, spacing in boxes]
    pixel = float(f"{np.median(spacings[:, in_plane]):.4g}")
    between = float(f"{np.median(spacings[:, through]):.4g}")
    field_mm = float(np.median(fields))
    size = int(np.ceil(round(field_mm / pixel, 3) / SCAN_MULTIPLE_PX)) * SCAN_MULTIPLE_PX
    size_px = min(max(size, SMALLEST_PX), LARGEST_PX)
    return GridDraft(size_px, (between, pixel, pixel), plane.axis_codes, plane.name, field_mm)


def propose_image_size(survey: Survey) -> int:
    """A side in pixels near the median shorter side of the images."""
    shorter = float(np.median([min(facts.shape) for facts in survey.images]))
    size = round(shorter / IMAGE_MULTIPLE_PX) * IMAGE_MULTIPLE_PX
    return min(max(size, SMALLEST_PX), LARGEST_PX)


def uses_parts(survey: Survey) -> bool:
    """Whether the folders' own training and test parts can be taken over: every labelled image is in one of several."""
    parts = defaultdict(int)
    for case in survey.cases:
        if case.labels:
            parts[case.part] += 1
    return survey.kind == "images" and "" not in parts and "train" in parts and len(parts) > 1


def names_are_guesses(classes: list[ClassDraft]) -> bool:
    """Whether some class has no name but a number."""
    return any(each.name.startswith("class_") or each.name == OBJECT for each in classes)
