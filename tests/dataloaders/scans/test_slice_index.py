"""The index of slices: numbers, frames, and pixel sizes along the prepared rows and columns."""

import numpy as np

from dataloaders.catalog import dataset
from dataloaders.io.geometry import Grid
from dataloaders.scans.manifest import Manifest
from dataloaders.scans.slice_index import COLUMNS, FILE_NAME, slice_rows, write_slice_index
from util.csv_files import read_csv

MMS = dataset("MMS")


def entry(shape=(2, 40, 60), spacing=(9.0, 1.5, 0.8), **further):
    z, y, x = spacing
    original, prepared = Grid(shape, np.diag([x, y, z, 1.0])), Grid((shape[0], 300, 300), np.eye(4))
    return {"original": original.to_json(), "prepared": prepared.to_json(), **further}


def manifest(axis_codes="stored", **scans):
    return Manifest("MMS", {"normalise": {"axis_codes": axis_codes}}, scans)


def test_every_slice_of_every_frame_has_a_line():
    scan = entry(frames=3, labelled_frames={"2": "ES", "0": "ED"}, patient="p", domain="B", centre="2")
    rows = list(slice_rows(manifest(b=scan, a=entry(is_labelled=False), other={"statistics": {}}), MMS))
    assert [row["scan"] for row in rows] == ["a"] * 2 + ["b"] * 6
    assert [(row["frame"], row["phase"], row["z"], row["has_label"]) for row in rows] == [
        *((0, "", 0, 0), (0, "", 1, 0)),
        *((0, "ED", 0, 1), (0, "ED", 1, 1), (1, "", 0, 0), (1, "", 1, 0), (2, "ES", 0, 1), (2, "ES", 1, 1)),
    ]
    assert rows[0] | {"z": 0} == {
        **{"scan": "a", "patient": "a", "domain": "", "vendor": "", "centre": "", "frame": 0, "phase": "", "z": 0},
        **{"has_label": 0, "height_px": 40, "width_px": 60, "spacing_y_mm": "1.5", "spacing_x_mm": "0.8"},
    }
    assert [rows[2][name] for name in ("patient", "domain", "vendor", "centre")] == ["p", "B", "Philips", "2"]


def test_a_scan_without_time_may_have_a_label_and_a_phase():
    (row, _) = slice_rows(manifest(a=entry(phase="ED")), MMS)
    assert (row["frame"], row["phase"], row["has_label"]) == (0, "ED", 1)


def test_sizes_follow_the_rows_and_columns_of_the_prepared_slices():
    (row, *_) = slice_rows(manifest("PRS", a=entry()), MMS)  # columns of the prepared slices are rows of the scan
    assert (row["height_px"], row["width_px"], row["spacing_y_mm"], row["spacing_x_mm"]) == (60, 40, "0.8", "1.5")


def test_the_file_is_written_only_when_it_changes(tmp_path):
    write_slice_index(tmp_path, manifest(a=entry()), MMS)
    written_ns = (tmp_path / FILE_NAME).stat().st_mtime_ns
    write_slice_index(tmp_path, manifest(a=entry()), MMS)
    assert (tmp_path / FILE_NAME).stat().st_mtime_ns == written_ns
    rows = read_csv(tmp_path / FILE_NAME, COLUMNS)
    assert tuple(rows[0]) == COLUMNS
    assert [row["z"] for row in rows] == ["0", "1"]
