"""`slices.csv` of a prepared folder: one line per slice of every scan, with its origin, frame and pixel size."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dataloaders.description import DatasetSpec
from dataloaders.io.geometry import Grid, reorient_grid
from dataloaders.samples import Origin
from dataloaders.scans.manifest import Manifest
from util.files import write_text
from util.ids import natural_key

FILE_NAME = "slices.csv"
COLUMNS = (
    *("scan", "patient", "domain", "vendor", "centre", "frame", "phase", "z", "has_label"),
    *("height_px", "width_px", "spacing_y_mm", "spacing_x_mm"),
)


def slice_rows(manifest: Manifest, spec: DatasetSpec) -> Iterator[dict[str, Any]]:
    """The lines of the index, for every scan that the manifest knows the grid of.

    Slice `frame * Z + z` of the prepared file is slice z of the frame, where Z is the number of slices of a frame.
    `vendor` is the domain's name in the description. `height_px`, `width_px` and the spacings are those of the scan as
    it was supplied, along the rows and columns of the prepared slices; `has_label` is 1 or 0.

    Args:
        manifest: of the prepared folder.
        spec: the data set.
    """
    axis_codes = manifest.parameters.get("normalise", {}).get("axis_codes", spec.grid.axis_codes)
    for scan in sorted(manifest.scans, key=natural_key):
        entry = manifest.scans[scan]
        if "original" not in entry or "prepared" not in entry:
            continue
        origin = Origin.read(entry)
        grid = reorient_grid(Grid.from_json(entry["original"]), axis_codes)
        _, spacing_y_mm, spacing_x_mm = grid.spacing_mm
        shared = {"scan": scan, "patient": origin.patient or scan, "domain": origin.domain, "centre": origin.centre}
        shared |= {"vendor": spec.domains.get(origin.domain, "")}
        shared |= {"height_px": grid.shape[1], "width_px": grid.shape[2]}
        shared |= {"spacing_y_mm": f"{spacing_y_mm:.6g}", "spacing_x_mm": f"{spacing_x_mm:.6g}"}
        for frame, phase, has_label in _frames(entry, origin.phase):
            for z in range(entry["prepared"]["shape"][0]):
                yield shared | {"frame": frame, "phase": phase, "z": z, "has_label": int(has_label)}


def _frames(entry: dict[str, Any], phase: str) -> Iterator[tuple[int, str, bool]]:
    """Number, phase and whether it has a label, of every frame of a scan."""
    if "frames" not in entry:
        yield 0, phase, entry.get("is_labelled", True)
        return
    labelled = entry.get("labelled_frames", {})
    for frame in range(entry["frames"]):
        yield frame, labelled.get(str(frame), ""), str(frame) in labelled


def write_slice_index(folder: Path, manifest: Manifest, spec: DatasetSpec) -> None:
    """Writes the index, unless it is up to date.

    Raises:
        UserError: the folder cannot be written to.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(slice_rows(manifest, spec))
    path = folder / FILE_NAME
    if not path.exists() or path.read_text(encoding="utf-8") != text.getvalue():
        write_text(path, text.getvalue())
