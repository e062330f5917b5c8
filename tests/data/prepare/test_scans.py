"""Preparation from raw files to prepared folders: content, manifest, resuming, and messages."""

import json
import logging

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image
from PIL import Image

from data.check import check_folder
from data.prepare import scans as prepare
from data.prepare.__main__ import main
from data.prepare.scans import convert, normalise
from data.sources.chaos import PNG_VALUES
from dataloaders.catalog import dataset
from dataloaders.io.geometry import Grid, paste_back, reorient
from dataloaders.io.nifti import read_nifti, write_nifti
from dataloaders.samples import StoredGeometry, Volume
from dataloaders.scans.manifest import Manifest, statistics_of
from dataloaders.scans.preprocess import PrepareParameters, parameters_of, prepare_image, prepare_label
from util.errors import DataError, FailedItemsError, UserError
from util.files import file_sha256
from util.schema import build

CHAOST2 = dataset("CHAOST2")
SABS = dataset("SABS")

SIZE = 32


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.fixture
def raw_chaos(tmp_path, write_dicom, rng):
    """Two patients; slice z carries label z % 5 in its upper left quarter."""
    for patient in (2, 10):
        base = tmp_path / "raw" / "MR" / str(patient) / "T2SPIR"
        image = rng.integers(0, 400, (6, 24, 20)).astype(np.uint16)
        write_dicom(base / "DICOM_anon", image, step=(0.0, 0.4, -9.0), pixel_mm=(2.5, 3.0))
        (base / "Ground").mkdir()
        for z in range(6):
            grey = np.zeros((24, 20), np.uint8)
            grey[:12, :10] = PNG_VALUES[z % 5]
            Image.fromarray(grey).save(base / "Ground" / f"IMG-0001-{z + 1:05d}.png")
    return tmp_path / "raw"


@pytest.fixture
def raw_sabs(tmp_path, rng):
    affine = np.diag([-0.8, 0.8, 3.0, 1.0])
    for number in (1, 21):
        image = rng.integers(-1000, 1000, (4, 64, 64)).astype(np.int16)
        write_nifti(tmp_path / "raw" / "img" / f"img{number:04d}.nii.gz", Volume(image, affine))
        label = np.repeat(np.arange(4, dtype=np.uint8), 64 * 64).reshape(image.shape)
        write_nifti(tmp_path / "raw" / "label" / f"label{number:04d}.nii.gz", Volume(label, affine))
    return tmp_path / "raw"


@pytest.fixture
def small():
    return parameters_of(CHAOST2, size_px=SIZE)


def prepared(root, spec=CHAOST2):
    return root / spec.prepared_folder()


def state_of(root):
    """Content and time of every file."""
    files = (path for path in root.rglob("*") if path.is_file() and path.name not in ("manifest.json", "dataset.json5"))
    return {path.relative_to(root): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_chaos_becomes_a_prepared_folder(tmp_path, raw_chaos, small):
    convert(CHAOST2, raw_chaos, tmp_path)
    normalise(CHAOST2, tmp_path, small)
    manifest = Manifest.load(prepared(tmp_path), "CHAOST2")
    assert list(manifest.scans) == ["2", "10"]
    assert PrepareParameters.from_json(manifest.parameters["normalise"]) == small
    for scan in (2, 10):
        original = read_nifti(tmp_path / "CHAOST2/niis/T2SPIR" / f"image_{scan}.nii.gz")
        image = read_nifti(prepared(tmp_path) / f"image_{scan}.nii.gz")
        label = read_nifti(prepared(tmp_path) / f"label_{scan}.nii.gz")
        record = manifest.scans[str(scan)]
        assert image.array.dtype == np.float32
        assert label.array.dtype == np.uint8
        assert image.array.shape == label.array.shape == (7, SIZE, SIZE)  # 5 * 9 / 7.7 = 5.8, 5.5 * 9 / 7.7 = 6.4
        assert set(np.unique(label.array)) == {0, 1, 2, 3, 4}
        np.testing.assert_array_equal(image.affine, label.affine)
        assert record["statistics"] == statistics_of(image.array)
        made = manifest.records[f"scan_{scan}"]
        assert set(made.made_from) == {f"T2SPIR/image_{scan}.nii.gz", f"T2SPIR/label_{scan}.nii.gz"}
        names = [f"{kind}_{scan}.nii.gz" for kind in ("image", "label")]
        assert made.made == {name: file_sha256(prepared(tmp_path) / name) for name in names}
        np.testing.assert_array_equal(Grid.from_json(record["original"]).affine, original.affine)
        np.testing.assert_allclose(Grid.from_json(record["prepared"]).affine, image.affine, rtol=1e-6)
        np.testing.assert_array_equal(prepare_image(original, small).array, image.array)  # a user's own scan


def test_a_prepared_label_finds_back_to_the_scan(tmp_path, raw_chaos, small):
    convert(CHAOST2, raw_chaos, tmp_path)
    normalise(CHAOST2, tmp_path, small)
    record = Manifest.load(prepared(tmp_path), "CHAOST2").scans["2"]
    original = read_nifti(tmp_path / "CHAOST2/niis/T2SPIR/label_2.nii.gz")
    grid = Grid.from_json(record["original"])
    back = paste_back(read_nifti(prepared(tmp_path) / "label_2.nii.gz"), grid.shape, grid.affine)
    # Every slice has another label; near 9 mm slices cut at 7.7 mm most voxels must still be right.
    assert (back.array == original.array).mean() > 0.9
    assert (back.array[original.array > 0] == original.array[original.array > 0]).mean() > 0.5


def test_ct_is_windowed_and_numbered(tmp_path, raw_sabs):
    convert(SABS, raw_sabs, tmp_path)
    normalise(SABS, tmp_path, parameters_of(SABS, size_px=SIZE))
    image = read_nifti(prepared(tmp_path, SABS) / "image_10.nii.gz")
    assert image.array.shape == (4, SIZE, SIZE)
    assert (image.array.min(), image.array.max()) == (0, 255)
    assert image.spacing_mm == pytest.approx((3, 0.8 * 56 / SIZE, 0.8 * 56 / SIZE))  # 4 = 64 / 16 px on each side
    label = read_nifti(prepared(tmp_path, SABS) / "label_0.nii.gz")
    assert [np.unique(slice_).tolist() for slice_ in label.array] == [[0], [1], [2], [3]]


def test_a_ct_of_few_columns_gets_the_size_of_the_others(tmp_path, raw_sabs):
    convert(SABS, raw_sabs, tmp_path)
    normalise(SABS, tmp_path, parameters_of(SABS))
    image, label = (read_nifti(prepared(tmp_path, SABS) / f"{kind}_0.nii.gz") for kind in ("image", "label"))
    assert image.array.shape == label.array.shape == (4, 256, 256)
    assert not any("pixels" in finding.text for finding in check_folder(prepared(tmp_path, SABS), SABS, None))


def raw_ct(folder, change):
    """A scan and its label map, with changed intensities."""
    image = np.random.default_rng(2).integers(-1000, 1000, (4, 40, 40)).astype(np.int16)
    affine = np.diag([-0.8, 0.8, 3.0, 1.0])
    write_nifti(folder / "img/img0001.nii.gz", Volume(image, affine))
    nib = Nifti1Image(change(image).T, affine, dtype=change(image).dtype)
    nib.to_filename(folder / "img/img0001.nii.gz")
    write_nifti(folder / "label/label0001.nii.gz", Volume(np.zeros(image.shape, np.uint8), affine))
    return folder


def test_ct_of_64_bits_becomes_the_same_as_of_16(tmp_path):
    images = []
    for dtype in (np.int16, np.int64):
        raw, out = tmp_path / f"raw {dtype.__name__}", tmp_path / f"out {dtype.__name__}"
        convert(SABS, raw_ct(raw, lambda image, dtype=dtype: image.astype(dtype)), out)
        normalise(SABS, out, parameters_of(SABS, SIZE))
        files = (prepared(out, SABS) / "image_0.nii.gz", out / "SABS/niis/image_0.nii.gz")
        images.append([file.read_bytes() for file in files])
    assert images[0] == images[1]


@pytest.mark.parametrize(
    ("change", "found"),
    [(lambda image: image + 1000, "from 0 to 1999"), (lambda image: (image + 1000) // 8, "from 0 to 249")],
    ids=["without rescale", "8 bits"],
)
def test_ct_without_air_is_warned_of_in_preparation_and_check(tmp_path, change, found, caplog):
    convert(SABS, raw_ct(tmp_path / "raw", change), tmp_path)
    normalise(SABS, tmp_path, parameters_of(SABS, SIZE))
    assert f"image_0.nii.gz: intensities {found}, none below -200 HU" in caplog.text
    findings = check_folder(prepared(tmp_path, SABS), SABS, None)
    assert ["none at -125 HU or below" in finding.text for finding in findings].count(True) == 1


def test_ct_scaled_to_one_is_refused(tmp_path):
    convert(SABS, raw_ct(tmp_path / "raw", lambda image: (image / 1000).astype(np.float32)), tmp_path)
    with pytest.raises(DataError, match=r"image_0\.nii\.gz: intensities from -1 to 0\.999: a range of 1\.999"):
        normalise(SABS, tmp_path, parameters_of(SABS, SIZE))


def test_a_label_map_in_place_of_an_image_is_warned_of(tmp_path, raw_chaos, small, caplog):
    convert(CHAOST2, raw_chaos, tmp_path)
    folder = tmp_path / "CHAOST2/niis/T2SPIR"
    (folder / "image_2.nii.gz").write_bytes((folder / "label_2.nii.gz").read_bytes())
    normalise(CHAOST2, tmp_path, small)
    assert "image_2.nii.gz: 5 whole values from 0 to 4 in uniform regions: a label map" in caplog.text


def test_the_header_fields_of_a_scan_are_recorded(tmp_path, raw_chaos, small):
    convert(CHAOST2, raw_chaos, tmp_path)
    path = tmp_path / "CHAOST2/niis/T2SPIR/image_2.nii.gz"
    volume = read_nifti(path)
    stored = StoredGeometry(0, 0, "mm", (1.0, 2.5, 3.0, 9.0), (0.0,) * 3, (0.0,) * 3, ((0.0,) * 4,) * 3)
    for kind in ("image", "label"):
        other = path.with_name(f"{kind}_2.nii.gz")
        write_nifti(other, Volume(read_nifti(other).array, volume.affine, stored))
    normalise(CHAOST2, tmp_path, small)
    entries = Manifest.load(prepared(tmp_path), "CHAOST2").scans
    assert build(StoredGeometry, entries["2"]["stored_geometry"]) == stored
    assert "stored_geometry" not in entries["10"]


def test_a_second_run_touches_nothing(tmp_path, raw_chaos, small, caplog):
    convert(CHAOST2, raw_chaos, tmp_path)
    normalise(CHAOST2, tmp_path, small)
    before = state_of(tmp_path)
    caplog.set_level(logging.INFO)
    convert(CHAOST2, raw_chaos, tmp_path)
    normalise(CHAOST2, tmp_path, small)
    assert state_of(tmp_path) == before
    assert [f"CHAOST2 scan {n}: already converted" in caplog.messages for n in (2, 10)] == [True, True]
    assert [f"CHAOST2 scan {n}: already prepared" in caplog.messages for n in (2, 10)] == [True, True]


def test_two_processes_give_the_same_files(tmp_path, raw_chaos, small):
    for root, jobs in ((tmp_path / "one", 1), (tmp_path / "two", 2)):
        convert(CHAOST2, raw_chaos, root)
        normalise(CHAOST2, root, small, jobs)
    one, two = (
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "one", tmp_path / "two")
    )
    assert one == two
    assert len(one) == 2 * 4 + 4  # converted.json, manifest.json, dataset.json5, slices.csv


def test_a_stopped_run_loses_only_the_scan_in_hand(tmp_path, raw_chaos, small, monkeypatch, caplog):
    convert(CHAOST2, raw_chaos, tmp_path)
    with monkeypatch.context() as patch:
        real, calls = write_nifti, []

        def stop_at_fourth(path, volume):
            calls.append(path)
            if len(calls) == 4:
                raise KeyboardInterrupt
            real(path, volume)

        patch.setattr(prepare, "write_nifti", stop_at_fourth)
        with pytest.raises(KeyboardInterrupt):
            normalise(CHAOST2, tmp_path, small)
    assert list(Manifest.load(prepared(tmp_path), "CHAOST2").scans) == ["2"]
    caplog.set_level(logging.INFO)
    normalise(CHAOST2, tmp_path, small)
    assert "CHAOST2 scan 2: already prepared" in caplog.messages
    assert "CHAOST2 scan 10: prepared" in caplog.messages


def test_only_what_has_changed_is_done_again(tmp_path, raw_chaos, small, caplog):
    convert(CHAOST2, raw_chaos, tmp_path)
    normalise(CHAOST2, tmp_path, small)
    ground = raw_chaos / "MR/10/T2SPIR/Ground/IMG-0001-00001.png"
    Image.fromarray(np.full((24, 20), 63, np.uint8)).save(ground)
    (prepared(tmp_path) / "label_2.nii.gz").unlink()
    caplog.set_level(logging.INFO)
    convert(CHAOST2, raw_chaos, tmp_path)
    assert caplog.messages[-2:] == ["CHAOST2 scan 2: already converted", "CHAOST2 scan 10: converted"]
    normalise(CHAOST2, tmp_path, small)
    assert caplog.messages[-2:] == ["CHAOST2 scan 2: prepared", "CHAOST2 scan 10: prepared"]


def test_a_prepared_image_that_was_altered_is_prepared_again_but_no_label(tmp_path, raw_chaos, small, caplog):
    convert(CHAOST2, raw_chaos, tmp_path)
    normalise(CHAOST2, tmp_path, small)
    image, label = prepared(tmp_path) / "image_2.nii.gz", prepared(tmp_path) / "label_10.nii.gz"
    before = image.read_bytes()
    for path in (image, label):
        volume = read_nifti(path)
        write_nifti(path, Volume(volume.array[::-1], volume.affine))
    corrected = label.read_bytes()
    normalise(CHAOST2, tmp_path, small)
    assert image.read_bytes() == before
    assert label.read_bytes() == corrected
    assert f"{label}: has changed since it was prepared; kept. Delete it to prepare it again." in caplog.messages


def test_scans_converted_by_an_earlier_version_are_converted_again(tmp_path, raw_chaos):
    convert(CHAOST2, raw_chaos, tmp_path)
    folder = tmp_path / "CHAOST2/niis/T2SPIR"
    content = (folder / "image_2.nii.gz").read_bytes()
    write_nifti(folder / "image_2.nii.gz", Volume(np.zeros((2, 2, 2), np.int16), np.eye(4)))
    (folder / "converted.json").write_text('{"2": {"inputs": {"DICOM_anon/a.dcm": "0"}}}')
    convert(CHAOST2, raw_chaos, tmp_path)
    assert (folder / "image_2.nii.gz").read_bytes() == content


def test_other_parameters_prepare_every_scan_again(tmp_path, raw_chaos, small):
    convert(CHAOST2, raw_chaos, tmp_path)
    normalise(CHAOST2, tmp_path, small)
    normalise(CHAOST2, tmp_path, parameters_of(CHAOST2, SIZE, None, "reference"))
    image = read_nifti(prepared(tmp_path) / "image_2.nii.gz")
    assert image.array.shape == (8, SIZE, SIZE)
    assert not image.array[-1].any()
    assert Manifest.load(prepared(tmp_path), "CHAOST2").parameters["normalise"]["size_rule"] == "reference"


def test_images_of_another_converter_are_kept(tmp_path, raw_chaos, small):
    reference = tmp_path / "reference"
    convert(CHAOST2, raw_chaos, reference)
    normalise(CHAOST2, reference, small)
    ours = read_nifti(reference / "CHAOST2/niis/T2SPIR/image_2.nii.gz")
    theirs = tmp_path / "CHAOST2/niis/T2SPIR/image_2.nii.gz"
    write_nifti(theirs, reorient(ours, "LAS"))  # dcm2niix stores rows bottom-up
    before = theirs.read_bytes()
    convert(CHAOST2, raw_chaos, tmp_path)
    normalise(CHAOST2, tmp_path, small)
    assert theirs.read_bytes() == before
    for name in ("image_2.nii.gz", "label_2.nii.gz"):
        again, first = (read_nifti(prepared(root) / name) for root in (tmp_path, reference))
        np.testing.assert_array_equal(again.array, first.array)


def test_an_image_of_another_scan_is_named(tmp_path, raw_chaos, small):
    convert(CHAOST2, raw_chaos, tmp_path)
    path = tmp_path / "CHAOST2/niis/T2SPIR/image_2.nii.gz"
    volume = read_nifti(path)
    write_nifti(path, Volume(volume.array[:, ::-1], volume.affine @ np.diag([1.0, -1, 1, 1])))
    with pytest.raises(DataError, match=r"label_2\.nii\.gz: a grid of \(6, 24, 20\).*image_2\.nii\.gz.*--step convert"):
        normalise(CHAOST2, tmp_path, small)


def test_damaged_scans_are_named(tmp_path, raw_chaos, small):
    convert(CHAOST2, raw_chaos, tmp_path)
    image, label = (tmp_path / "CHAOST2/niis/T2SPIR" / f"{kind}_10.nii.gz" for kind in ("image", "label"))
    volume = read_nifti(image)
    write_nifti(image, Volume(np.full(volume.array.shape, np.inf, np.float32), volume.affine))
    with pytest.raises(DataError, match=r"image_10\.nii\.gz: the scan holds NaN or infinite"):
        normalise(CHAOST2, tmp_path, small)
    write_nifti(image, volume)
    write_nifti(label, Volume(np.full(volume.array.shape, 5, np.uint8), volume.affine))
    with pytest.raises(
        DataError,
        match=r"label_10\.nii\.gz: label value 5 \(2880 voxels\): no class of.*1 LIVER.*--step convert",
    ):
        normalise(CHAOST2, tmp_path, small)
    label.write_bytes(label.read_bytes()[:60])
    with pytest.raises(DataError, match=r"label_10\.nii\.gz: truncated.*again"):
        normalise(CHAOST2, tmp_path, small)
    label.unlink()
    with pytest.raises(FailedItemsError, match=r"1 of 2 failed.*\n.*label_10\.nii\.gz: no such file.*--step convert"):
        normalise(CHAOST2, tmp_path, small)
    assert list(Manifest.load(prepared(tmp_path), "CHAOST2").scans) == ["2"]
    told = [each.text for each in check_folder(prepared(tmp_path), CHAOST2, None) if each.severity == "error"]
    assert any("could not be prepared the last time" in text for text in told)


def test_incomplete_and_foreign_scans_are_reported(tmp_path, raw_chaos, small, caplog):
    write_nifti(prepared(tmp_path) / "image_77.nii.gz", Volume(np.zeros((2, 2, 2), np.uint8), np.eye(4)))
    convert(CHAOST2, raw_chaos, tmp_path)
    normalise(CHAOST2, tmp_path, small)
    assert f"CHAOST2: 2 of the 20 published scans under {raw_chaos}" in caplog.messages
    assert any("holds scans 77, which were not prepared here" in message for message in caplog.messages)


def test_the_command_runs_every_step(tmp_path, raw_chaos):
    main(["chaost2", "--raw", str(raw_chaos), "--out", str(tmp_path), "--size-px", "32", "--numbering", "legacy"])
    folder = prepared(tmp_path)
    assert sorted(path.name for path in folder.glob("*_2.nii.gz")) == [
        "image_2.nii.gz",
        "label_2.nii.gz",
        "superpix-MIDDLE_2.nii.gz",
    ]
    index = json.loads((folder / "classmap_1.json").read_text())
    assert set(index) == set(CHAOST2.class_names)
    assert set(index["LIVER"]) == {"2", "10"}
    records = Manifest.load(folder, "CHAOST2").records
    image = {"image_2.nii.gz": records["scan_2"].made["image_2.nii.gz"]}
    assert records["superpix-MIDDLE_2"].made_from == image
    assert set(records["classmap_1"].made_from) == {"label_2.nii.gz", "label_10.nii.gz"}


def test_one_step_alone_and_a_spacing_of_ones_own(tmp_path, raw_chaos):
    common = ["CHAOST2", "--raw", str(raw_chaos), "--out", str(tmp_path)]
    main([*common, "--step", "convert"])
    assert not prepared(tmp_path).exists()
    main([*common, "--step", "normalise", "--size-px", "20", "--spacing-mm", "9", "3", "3"])
    assert read_nifti(prepared(tmp_path) / "image_2.nii.gz").spacing_mm == pytest.approx((9, 3, 3))


def test_raw_files_are_looked_for_below_the_data_root(tmp_path, raw_chaos):
    raw_chaos.rename(tmp_path / "CHAOST2")
    main(["chaost2", "--out", str(tmp_path), "--step", "convert"])
    assert (tmp_path / "CHAOST2/niis/T2SPIR/image_10.nii.gz").exists()


def test_an_unknown_data_set_is_answered_with_those_that_exist(tmp_path):
    with pytest.raises(UserError, match="expected one of ARIA, CHAOST2, DDR, DRIVE, IDRiD, ISIC2017, JSRT"):
        main(["chaos3", "--out", str(tmp_path)])


def test_labels_take_the_road_of_their_image(small):
    affine = np.diag([-2.0, -2.0, 8.0, 1.0])
    label = np.zeros((4, 30, 30), np.uint8)
    label[1:3, 5:15, 8:20] = 3
    image = prepare_image(Volume(label.astype(np.int16) * 100, affine), small)
    overlap = (prepare_label(Volume(label, affine), small).array == 3) == (image.array > 150)
    assert overlap.mean() > 0.999
