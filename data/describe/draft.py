"""The files that are written: the description with comments, and the table of files."""

import csv
import io
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data.describe.columns import Column
from data.describe.names import safe
from data.describe.proposal import (
    BLACK,
    LARGEST_PX,
    ClassDraft,
    names_are_guesses,
    propose_classes,
    propose_grid,
    propose_image_size,
    propose_modality,
    uses_parts,
)
from data.describe.survey import Case, Survey
from dataloaders.catalog import dataset_names
from dataloaders.scans.guess import CT_WINDOW_HU, MR_CLIP_PERCENTILE

MOST_FOLDS = 5
MOST_SHARE = 0.5  # of the voxels that a structure takes


def render_table(survey: Survey, folder: Path) -> str:
    """The table of files as CSV text; paths are relative to `folder`, where the table will be stored."""
    headings = ["id", "image", *(column.heading for column in survey.columns or [Column()]), "patient", "split"]
    headings += ["fold", "note"] if survey.kind == "scans" else ["note"]
    with_parts = uses_parts(survey)
    text = io.StringIO()
    writer = csv.DictWriter(text, headings, restval="", lineterminator="\n")
    writer.writeheader()
    for case in survey.cases:
        writer.writerow(_row(case, survey.root, folder, with_parts))
    return text.getvalue()


def _row(case: Case, root: Path, folder: Path, with_parts: bool) -> dict[str, str]:
    labels = {column.heading: _relative(root / path, folder) for column, path in case.labels.items()}
    split = (case.part or "unused") if with_parts else ""
    image = _relative(root / case.image, folder)
    return {"id": case.id, "image": image, **labels, "patient": case.patient, "split": split, "note": case.note}


def _relative(path: Path, folder: Path) -> str:
    """The path from `folder`, with slashes; absolute where there is none (another drive)."""
    try:
        return Path(os.path.relpath(path.absolute(), folder.absolute())).as_posix()
    except ValueError:
        return path.absolute().as_posix()


def choose_name(text: str) -> str:
    """A name for the data set from a file's or folder's; not that of a built-in set."""
    name = safe(text) or "my_set"
    return f"{name}_own" if name.lower() in {each.lower() for each in dataset_names()} else name


def render_description(survey: Survey, name: str, table: str, own_path: str) -> str:
    """The description as JSON5 with comments.

    Args:
        survey: what was found.
        name: of the data set.
        table: file name of the table, next to the description.
        own_path: how the description is named on the command line.
    """
    classes, background = propose_classes(survey)
    parts = [
        _comment(
            f"Draft of a description of {len(survey.cases)} {survey.kind}, written by `frugalseg describe`.",
            "Check the values, rename the classes, then run:",
            f"    frugalseg prepare {own_path} --out data",
            "docs/own_data.md explains every key.",
            indent="",
        ),
        "{",
        _entry("name", name, f"Prepared files are stored in data/{name}/."),
        _entry("kind", survey.kind, _explain_kind(survey)),
        _entry("files", table, "The table of files, one line per case. Edit it in a spreadsheet."),
        *(_scan_entries(survey) if survey.kind == "scans" else _image_entries(survey)),
        _class_entry(survey, classes, background),
        _masks_entry(survey),
        *(_fold_entries(survey) if survey.kind == "scans" else _split_entries(survey)),
        "}",
    ]
    return "\n".join(parts).replace("\n\n}", "\n}") + "\n"


def _explain_kind(survey: Survey) -> str:
    return {
        "scans": "Volumes (3-D); methods work on their slices.",
        "images": "Single pictures (2-D).",
    }[survey.kind]


def _scan_entries(survey: Survey) -> list[str]:
    modality, why = propose_modality(survey)
    grid = propose_grid(survey)
    size = f"size_px: rows and columns after resampling. The median field of view is {grid.field_mm:.0f} mm."
    if grid.size_px == LARGEST_PX and grid.field_mm > LARGEST_PX * grid.spacing_mm[1] * 1.001:
        size += f" {LARGEST_PX} px hold {LARGEST_PX * grid.spacing_mm[1]:.0f} mm of it; the border is cropped."
    elif grid.size_px >= 384:
        size += " Half the size with twice the spacing in y and x trains about four times as fast."
    return [
        _entry("modality", modality, (why and f"Proposed: {why}.") or "MR, CT, ...; nothing in the files tells it."),
        _entry(
            "grid",
            {"size_px": grid.size_px, "spacing_mm": list(grid.spacing_mm), "axis_codes": grid.axis_codes},
            "The grid to which all scans are resampled.",
            size,
            "spacing_mm: (z, y, x): median distance between slices and median pixel size.",
            f"axis_codes: {grid.plane} slices, as most scans were acquired."
            if grid.plane != "axial"
            else "axis_codes: directions in which columns, rows and slices count; LAS: axial slices.",
        ),
        _intensity_entry(modality),
        _entry(
            "foreground_above",
            None,
            "Prepared intensity above which a pixel may be body, for superpixels. null: Otsu's threshold of each scan.",
        ),
    ]


def _intensity_entry(modality: str) -> str:
    if modality == "CT":
        return _entry(
            "intensity",
            {"window": list(CT_WINDOW_HU), "normalise_by": "training_scans"},
            "window: in HU, mapped to 0..255; proposed: soft tissue. Lung: [-1000, 200], bone: [-500, 1300].",
            "normalise_by: mean and standard deviation of all training scans, as Hounsfield units are comparable.",
        )
    return _entry(
        "intensity",
        {"clip_percentile": MR_CLIP_PERCENTILE, "normalise_by": "scan"},
        "clip_percentile: higher intensities of a scan are set to this percentile.",
        "normalise_by: mean and standard deviation of the scan itself. CT: use a window in HU and training_scans.",
    )


def _image_entries(survey: Survey) -> list[str]:
    images = survey.images
    channels = 3 if 2 * sum(facts.channels == 3 for facts in images) >= len(images) else 1
    low, high = (min(min(facts.shape) for facts in images), max(max(facts.shape) for facts in images))
    entries = [
        _entry("modality", "", "photograph, radiograph, ...; a text for tables and reports."),
        _entry("channels", channels, "3: colour; 1: grey. " + _explain_channels(images, channels)),
        _entry(
            "grid",
            {"size_px": propose_image_size(survey), "aspect": "squeeze"},
            f"size_px: images are resized to size_px x size_px pixels (found: {low} to {high}). Fewer train faster.",
            "aspect: images that are not square are squeezed; pad: they keep their shape, with black borders.",
        ),
    ]
    low = float(min(facts.percentiles[0] for facts in images))
    high = float(max(facts.percentiles[-1] for facts in images))
    if any(facts.dtype.startswith("float") for facts in images) and (low < 0 or high > 1):
        comment = "window: stored intensities that become black and white, as the images hold fractions."
        entries.append(_entry("intensity", {"window": [low, max(high, low + 1)]}, comment))
    elif any(facts.dtype != "uint8" for facts in images):
        comment = f"Some images have more than 8 bits; intensities from {low:.0f} to {high:.0f} are kept in 16 bits. To"
        entries.append(
            _comment(comment, "stretch a range to all 16 bits, add: intensity: { window: [LOWEST, HIGHEST] }") + "\n"
        )
    return entries


def _explain_channels(images: list, channels: int) -> str:
    n_colour = sum(facts.channels == 3 for facts in images)
    if 0 < n_colour < len(images):
        return f"{n_colour} of {len(images)} images hold colour."
    return "All images hold colour." if channels == 3 else "No image holds colour, also where stored as RGB."


def _class_entry(survey: Survey, classes: list[ClassDraft], background: Any) -> str:
    if not classes and survey.kind == "scans":
        return _entry("classes", [], "No labels were found. Methods that learn from superpixels need none.")
    comments = ["The structures to segment. The name is used in tables and file names."]
    if names_are_guesses(classes):
        comments.append("TODO: replace the names that were made up (class_1, object).")
    if not any(each.n_cases for each in classes):
        comments.append("No label was found: replace this class, and enter the labels in the table.")
    if any(each.value is not None for each in classes):
        comments.append("value: in your label maps; prepared values are 1, 2, ... in this order")
    if background is not None:
        comments.append("colour: red, green, blue in your masks.")
    if any(column.structure for column in survey.columns):
        comments += [
            "Each class has a column `mask:<name>` in the table; a new name must be entered in both places.",
            "Where a labelled case has no file of a class, the class counts as absent.",
        ]
    lines = [_class_line(each, survey) for each in classes]
    body = "[\n" + "\n".join(lines) + "\n  ]" if lines else "[]"
    entry = _comment(*comments) + f"\n  classes: {body},\n"
    if background and background != BLACK:
        entry += "\n" + _entry("background_colour", list(background), "The most frequent colour: the background.")
    return entry


def _class_line(each: ClassDraft, survey: Survey) -> str:
    values: dict[str, Any] = {"name": each.name}
    if each.value is not None:
        values["value"] = each.value
    if each.colour is not None:
        values["colour"] = list(each.colour)
    values["is_scored"] = True
    if not each.n_cases:
        return f"    {_json5(values)},"
    unit = "voxels" if survey.kind == "scans" else "pixels"
    found = f"{_percent(each.share)} of the {unit}, in {each.n_cases} of {survey.n_labelled} labelled cases"
    if each.share > MOST_SHARE:
        found += "; most of the picture: a field of view, or swapped with the background?"
    rare = "; rare: a typing error?" if each.value and each.n_cases == 1 < survey.n_labelled // 4 else ""
    return f"    {_json5(values)},  // {found}{rare}"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share >= 1e-5 else "< 0.001 %"


def _masks_entry(survey: Survey) -> str:
    comment = '"suspect" if some of the given masks may be wrong (drawn by laypeople, by a program, in a hurry).'
    entry = _entry("masks", "trusted", comment)
    annotators = sorted({column.annotator for column in survey.columns if column.annotator})
    if annotators:
        listed = ", ".join(annotators)
        comment = f"majority: of the annotators {listed} (ties: background); or the name of one of them."
        entry += "\n" + _entry("annotators", "majority", comment)
    return entry


def _fold_entries(survey: Survey) -> list[str]:
    n_patients = len({case.patient or case.id for case in survey.cases if case.labels})
    if n_patients < 2:
        return (
            [_comment("No cross-validation: it needs labelled scans of at least two patients.")] if n_patients else []
        )
    return [
        _entry(
            "folds",
            {"number": min(MOST_FOLDS, n_patients)},
            f"Cross-validation of {survey.n_labelled} labelled scan(s) of {n_patients} patient(s) or cases.",
            "Own folds: fill in the column `fold` of the table (from 0).",
        )
    ]


def _split_entries(survey: Survey) -> list[str]:
    if uses_parts(survey):
        comment = (
            "The parts found in the folders' names (train, validation, test) stand in the column `split` of the table."
        )
        return [_comment(comment)]
    return [
        _entry(
            "split",
            {"test": 0.25, "validation": 0.0, "seed": 0},
            "Fractions of the patients, drawn with this seed. Own split: fill in the column `split` of the table",
            "(train, validation, test, unused). A patient is never divided: check the column `patient`.",
        )
    ]


def _entry(key: str, value: Any, *comments: str) -> str:
    return _comment(*comments) + f"\n  {key}: {_json5(value)},\n"


def _comment(*lines: str, indent: str = "  ") -> str:
    return "\n".join(f"{indent}// {line}" for line in lines if line)


def _json5(value: Any) -> str:
    """A value as JSON5, keys without quotation marks."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key}: {_json5(each)}" for key, each in value.items()) + " }"
    if isinstance(value, Iterable) and not isinstance(value, str):
        return "[" + ", ".join(_json5(each) for each in value) + "]"
    return json.dumps(value, ensure_ascii=False)
