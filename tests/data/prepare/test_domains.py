"""Sets of several domains, prepared from the raw files: cine scans along z, manifest, index of slices, faults."""

import json
import logging
import shutil

import numpy as np
import pytest

from data.check import check_folder
from data.check.__main__ import main as check
from data.phantom import make_cine, write_phantom
from data.phantom.writers.mms import SHEET, code_of
from data.prepare.__main__ import main
from data.prepare.scans import normalise
from dataloaders.catalog import dataset
from dataloaders.io.geometry import Grid, paste_back
from dataloaders.io.nifti import read_nifti, write_nifti
from dataloaders.samples import Volume
from dataloaders.scans.folder import PreparedFolder
from dataloaders.scans.manifest import Manifest
from dataloaders.scans.preprocess import parameters_of
from dataloaders.scans.slice_index import COLUMNS, FILE_NAME
from util.csv_files import read_csv
from util.errors import ConfigError, FailedItemsError

MMS, SCGM = dataset("MMS"), dataset("SCGM")

SIZE = 48


@pytest.fixture(scope="module")
def raw_of(tmp_path_factory):
    """Raw phantoms; tests that change them take copies."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("mms", "scgm")}
    for name, folder in folders.items():
        write_phantom(name, folder, n_scans=4, size_px=SIZE)
    return folders


@pytest.fixture
def raw(tmp_path):
    folder = tmp_path / "raw"
    write_phantom("mms", folder, n_scans=2, size_px=SIZE)
    return folder


@pytest.fixture(scope="module")
def prepared(raw_of, tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    for name, folder in raw_of.items():
        main([name, "--raw", str(folder), "--out", str(out), "--size-px", str(SIZE)])
    return out


def test_frames_are_stacked_along_z(prepared):
    folder = prepared / "MMS/prepared"
    entry = Manifest.load(folder, "MMS").scans[code_of(1)]
    cine = make_cine("mms", 1, size_px=SIZE)
    depth = cine.frames[0].array.shape[0]
    assert entry["frames"] == 4
    assert entry["labelled_frames"] == {"1": "ED", "3": "ES"}
    assert [entry[name] for name in ("patient", "domain", "centre")] == [code_of(1), "B", "2"]
    assert entry["original"]["shape"] == [depth, SIZE, SIZE]
    assert entry["prepared"]["shape"] == [depth, SIZE, SIZE]
    image, label = (read_nifti(folder / f"{kind}_{code_of(1)}.nii.gz") for kind in ("image", "label"))
    assert image.array.shape == label.array.shape == (4 * depth, SIZE, SIZE)
    assert (image.array.dtype, label.array.dtype) == (np.float32, np.uint8)
    assert image.spacing_mm[1:] == pytest.approx((1.1 * 304 / SIZE,) * 2, rel=1e-5)
    frames = label.array.reshape(4, depth, SIZE, SIZE)
    assert [bool(frame.any()) for frame in frames] == [False, True, False, True]


def test_a_frame_finds_back_to_the_scan(prepared):
    folder = prepared / "MMS/prepared"
    entry = Manifest.load(folder, "MMS").scans[code_of(2)]
    original, grid = Grid.from_json(entry["original"]), Grid.from_json(entry["prepared"])
    label = read_nifti(folder / f"label_{code_of(2)}.nii.gz").array[: grid.shape[0]]
    back = paste_back(Volume(label, grid.affine), original.shape, original.affine).array
    truth = make_cine("mms", 2, size_px=SIZE).labels[0].array
    for value in (1, 2, 3):
        one, other = back == value, truth == value
        assert 2 * np.count_nonzero(one & other) / (one.sum() + other.sum()) > 0.85


def test_slices_are_listed(prepared):
    rows = read_csv(prepared / "MMS/prepared" / FILE_NAME, COLUMNS)
    folder = PreparedFolder(prepared / "MMS/prepared", MMS)
    assert len(rows) == sum(folder.shape(scan)[0] for scan in folder.scan_ids)
    first = rows[0]
    assert (first["domain"], first["vendor"], first["phase"], first["has_label"]) == ("A", "Siemens", "ED", "1")
    assert (first["height_px"], first["width_px"]) == ("38", "48")
    rows = read_csv(prepared / "SCGM/prepared" / FILE_NAME, COLUMNS)
    assert {row["domain"] for row in rows} == set("ABCD")
    assert {(row["frame"], row["has_label"]) for row in rows} == {("0", "1")}


def test_spinal_cords_show_the_same_field_at_every_site(prepared):
    folder = prepared / "SCGM/prepared"
    for scan, entry in Manifest.load(folder, "SCGM").scans.items():
        assert "frames" not in entry
        assert read_nifti(folder / f"image_{scan}.nii.gz").spacing_mm[1:] == pytest.approx((50 / SIZE,) * 2, rel=1e-4)
        assert read_nifti(folder / f"label_{scan}.nii.gz").array.any()


@pytest.mark.parametrize("spec", [MMS, SCGM], ids=["MMS", "SCGM"])
def test_the_folder_passes_the_check_without_superpixels(prepared, spec):
    folder = prepared / spec.prepared_folder()
    assert check_folder(folder, spec, None) == []
    assert check([spec.name, "--data-dir", str(prepared)]) == 0
    assert check([str(folder)]) == 0
    assert not list(folder.glob("superpix-*"))
    assert not (prepared / spec.name / "niis").exists()
    assert set(PreparedFolder(folder, spec).class_slices()[1]) <= set(Manifest.load(folder, spec.name).scans)


def test_a_second_run_prepares_nothing_and_a_changed_sheet_what_it_says(raw, tmp_path, caplog):
    arguments = ["mms", "--raw", str(raw), "--out", str(tmp_path), "--size-px", str(SIZE), "--step", "normalise"]
    caplog.set_level(logging.INFO)
    main(arguments)
    main(arguments)
    assert f"MMS scan {code_of(0)}: already prepared" in caplog.messages
    sheet = (
        (raw / SHEET).read_text().replace("Siemens,A,1,0,2", "Siemens,A,1,2,0").replace("Philips,B,2", "Philips,B,3")
    )
    (raw / SHEET).write_text(sheet)
    caplog.clear()
    main(arguments)
    assert f"MMS scan {code_of(0)}: prepared" in caplog.messages
    assert f"MMS scan {code_of(1)}: already prepared" in caplog.messages
    scans = json.loads((tmp_path / "MMS/prepared/manifest.json").read_text())["scans"]
    assert scans[code_of(0)]["labelled_frames"] == {"0": "ES", "2": "ED"}
    assert scans[code_of(1)]["centre"] == "3"
    assert read_csv(tmp_path / "MMS/prepared" / FILE_NAME, COLUMNS)[0]["phase"] == "ES"


def test_a_patient_who_is_not_in_the_sheet_does_not_stop_the_others(raw, tmp_path):
    lines = (raw / SHEET).read_text().splitlines(keepends=True)
    (raw / SHEET).write_text("".join(lines[:-1]))
    with pytest.raises(FailedItemsError, match=f"no line on patient {code_of(1)}"):
        normalise(MMS, tmp_path, parameters_of(MMS, SIZE), raw=raw)
    manifest = Manifest.load(tmp_path / "MMS/prepared", "MMS")
    assert list(manifest.scans) == [code_of(0)]
    assert list(manifest.failed) == [code_of(1)]
    assert {row["scan"] for row in read_csv(tmp_path / "MMS/prepared" / FILE_NAME, COLUMNS)} == {code_of(0)}


def test_the_folder_of_the_download_must_be_named(tmp_path):
    with pytest.raises(ConfigError, match="MMS: expected the folder of its download"):
        normalise(MMS, tmp_path, parameters_of(MMS, SIZE))


def test_a_label_that_was_corrected_has_no_original_one_any_more(prepared, tmp_path):
    copy = shutil.copytree(prepared / "MMS/prepared", tmp_path / "prepared")
    folder, scan = PreparedFolder(copy, MMS), code_of(1)
    original = folder.original_label(scan)
    assert original is not None
    assert original.any()
    label = read_nifti(folder.path("label", scan))
    label.array[0, :3] = 1
    write_nifti(folder.path("label", scan), label)
    assert not folder.has_original_label(scan)
    assert folder.original_label(scan) is None
