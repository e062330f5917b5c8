import json
import logging

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image

from data.phantom import make_patient, write_phantom
from data.phantom.__main__ import main
from data.phantom.bodies.build import Build
from data.phantom.writers.chaos import GREY_OF_LABEL
from data.phantom.writers.sabs import FILE_NUMBERS
from dataloaders.io.nifti import read_nifti
from util.errors import ConfigError, UserError

SIZE = 32


@pytest.fixture(scope="module")
def chaos(tmp_path_factory):
    out = tmp_path_factory.mktemp("chaos")
    write_phantom("chaost2", out, n_scans=4, size_px=SIZE)
    return out


@pytest.fixture(scope="module")
def sabs(tmp_path_factory):
    out = tmp_path_factory.mktemp("sabs")
    write_phantom("sabs", out, n_scans=4, size_px=SIZE)
    return out


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def nifti_scans(folder):
    return {path.name: read_nifti(path) for path in sorted(folder.rglob("*.nii.gz"))}


def slices_of(out, scan_id):
    files = sorted((out / "MR" / str(scan_id) / "T2SPIR" / "DICOM_anon").iterdir())
    return [pydicom.dcmread(path) for path in files]


def test_chaos_layout_is_the_published_one(chaos):
    assert {path.name for path in (chaos / "MR").iterdir()} == {"1", "2", "3", "5"}
    folder = chaos / "MR" / "5" / "T2SPIR"
    dicom, ground = (sorted(path.name for path in (folder / name).iterdir()) for name in ("DICOM_anon", "Ground"))
    assert dicom[0] == "IMG-0001-00001.dcm"
    assert [name.replace(".dcm", ".png") for name in dicom] == ground
    assert 20 <= len(dicom) <= 40


def test_dicom_slices_equal_the_scan_in_memory(chaos):
    image, label = make_patient("chaost2", 1, size_px=SIZE)
    slices = slices_of(chaos, 2)
    np.testing.assert_array_equal(np.stack([each.pixel_array for each in slices]), image.array)
    assert [int(each.InstanceNumber) for each in slices] == list(range(1, len(slices) + 1))
    assert len({each.SOPInstanceUID for each in slices}) == len(slices)
    assert len({each.SeriesInstanceUID for each in slices}) == 1
    pngs = sorted((chaos / "MR" / "2" / "T2SPIR" / "Ground").iterdir())
    stack = np.stack([np.asarray(Image.open(path)) for path in pngs])
    assert stack.dtype == np.uint8
    assert set(np.unique(stack)) == {0, 63, 126, 189, 252}
    np.testing.assert_array_equal(stack, GREY_OF_LABEL[label.array])


@pytest.mark.parametrize(("scan_index", "scan_id"), [(1, 2), (3, 5)])
def test_dicom_geometry_matches_the_affine(chaos, scan_index, scan_id):
    image, _ = make_patient("chaost2", scan_index, size_px=SIZE)
    for z, each in enumerate(slices_of(chaos, scan_id)):
        column, row = 7, 11
        along_row, along_column = np.array(each.ImageOrientationPatient, float).reshape(2, 3)
        row_mm, column_mm = (float(value) for value in each.PixelSpacing)
        position = np.array(each.ImagePositionPatient, float)
        lps = position + column * column_mm * along_row + row * row_mm * along_column
        ras = (image.affine @ [column, row, z, 1])[:3]
        np.testing.assert_allclose(lps * [-1, -1, 1], ras, atol=1e-6)


def test_slices_are_oblique_and_thinner_than_their_spacing(chaos):
    slices = slices_of(chaos, 1)
    along_row, along_column = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    assert abs(along_row @ along_column) < 1e-9
    assert 0.9 < along_row[0] < 0.9999
    positions = np.array([each.ImagePositionPatient for each in slices], float)
    steps = np.diff(positions, axis=0)
    np.testing.assert_allclose(steps - steps[0], 0, atol=1e-6)
    distance = np.linalg.norm(steps[0])
    assert 7 <= distance <= 9
    assert float(slices[0].SliceThickness) < 0.8 * distance


def test_some_scans_number_slices_from_head_to_foot(chaos):
    heights = {scan: [float(each.ImagePositionPatient[2]) for each in slices_of(chaos, scan)] for scan in (1, 5)}
    assert heights[1] == sorted(heights[1])
    assert heights[5] == sorted(heights[5], reverse=True)


def test_sabs_files_equal_the_scans_in_memory(sabs):
    assert {path.name for path in sabs.iterdir()} == {"img", "label", "phantom.json"}
    for index in (0, 3):
        number = f"{FILE_NUMBERS[index]:04d}"
        for path, expected in zip(
            (sabs / f"img/img{number}.nii.gz", sabs / f"label/label{number}.nii.gz"),
            make_patient("sabs", index, size_px=SIZE),
            strict=True,
        ):
            found = read_nifti(path)
            assert found.array.dtype == expected.array.dtype
            np.testing.assert_array_equal(found.array, expected.array)
            np.testing.assert_allclose(found.affine, expected.affine, rtol=1e-5, atol=1e-3)


def test_every_fourth_sabs_scan_is_flipped_with_a_matching_affine(sabs):
    signs = []
    for number in FILE_NUMBERS[:4]:
        label = read_nifti(sabs / f"label/label{number:04d}.nii.gz")
        signs.append(tuple(np.sign(np.diag(label.affine)[:2]).astype(int)))
        z, y, x = np.mean(np.nonzero(label.array == 6), axis=1)
        liver_right_mm, *_ = label.affine @ [x, y, z, 1]
        assert liver_right_mm > 20
    assert signs == [(-1, 1)] * 3 + [(1, 1)]


@pytest.mark.parametrize(("scan_index", "axes"), [(0, "LAS"), (3, "RAS"), (7, "LPS")])
def test_orientations_of_sabs_scans(scan_index, axes):
    image, _ = make_patient("sabs", scan_index, size_px=SIZE)
    assert "".join(nib.orientations.aff2axcodes(image.affine)) == axes


def test_files_do_not_depend_on_jobs_or_the_number_of_scans(chaos, tmp_path):
    write_phantom("chaost2", tmp_path, n_scans=2, size_px=SIZE, jobs=2)
    for scan_id in ("1", "2"):
        assert contents(tmp_path / "MR" / scan_id) == contents(chaos / "MR" / scan_id)


def test_another_seed_gives_another_patient():
    (image, _), (other, _) = (make_patient("chaost2", 0, seed=seed, size_px=SIZE) for seed in (0, 1))
    assert image.array.shape != other.array.shape or (image.array != other.array).mean() > 0.5


def test_existing_scans_are_kept_and_missing_ones_added(tmp_path):
    write_phantom("sabs", tmp_path, n_scans=2, size_px=SIZE)
    before = nifti_scans(tmp_path)
    kept, lost = tmp_path / "img/img0001.nii.gz", tmp_path / "label/label0002.nii.gz"
    written_ns = kept.stat().st_mtime_ns
    lost.unlink()
    write_phantom("sabs", tmp_path, n_scans=2, size_px=SIZE)
    assert kept.stat().st_mtime_ns == written_ns
    after = nifti_scans(tmp_path)
    assert before.keys() == after.keys()
    assert all((before[name].array == after[name].array).all() for name in before)


def test_folders_with_other_scans_are_rejected_unchanged(tmp_path):
    real = tmp_path / "MR" / "1" / "T2SPIR" / "DICOM_anon" / "IMG-0004-00001.dcm"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"a patient")
    with pytest.raises(UserError, match=r"contains MR but no phantom\.json.*another --out") as error:
        write_phantom("chaost2", tmp_path, n_scans=1, size_px=SIZE)
    assert str(tmp_path) in str(error.value)
    assert contents(tmp_path) == {str(real.relative_to(tmp_path)): b"a patient"}


def test_other_files_in_the_folder_are_ignored(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    write_phantom("sabs", tmp_path, n_scans=1, size_px=SIZE)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_different_parameters_are_rejected(chaos):
    before = contents(chaos)
    with pytest.raises(UserError, match=r"phantom\.json.*'seed': 0.*'seed': 5.*another --out, or delete MR"):
        write_phantom("chaost2", chaos, n_scans=4, size_px=SIZE, seed=5)
    assert contents(chaos) == before


def test_a_folder_that_is_not_writable_is_an_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        write_phantom("chaost2", blocked / "out", n_scans=1, size_px=SIZE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": "brats"}, "'brats'.*expected one of chaost2, sabs"),
        ({"n_scans": 0}, "scans=0; expected 1 to 20"),
        ({"n_scans": 21}, "scans=21; expected 1 to 20"),
        ({"size_px": 8}, "size_px=8; expected 32 to 512"),
        ({"seed": -1}, "seed=-1; expected 0 to"),
    ],
)
def test_the_error_names_the_invalid_setting(arguments, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        write_phantom(**{"dataset": "chaost2", "out": tmp_path, **arguments})
    assert not list(tmp_path.iterdir())


def test_command_line(tmp_path, monkeypatch, caplog):
    arguments = ["phantom", "sabs", "--out", str(tmp_path), "--scans", "1", "--size-px", str(SIZE), "--seed", "3"]
    monkeypatch.setattr("sys.argv", arguments)
    with caplog.at_level(logging.INFO):
        main()
    record = json.loads((tmp_path / "phantom.json").read_text())
    assert record == {"dataset": "sabs", "n_scans": 1, "size_px": SIZE, "seed": 3, "revision": 1}
    assert "1 scans, seed 3" in caplog.text
    image, _ = make_patient("sabs", 0, seed=3, size_px=SIZE)
    np.testing.assert_array_equal(read_nifti(tmp_path / "img/img0001.nii.gz").array, image.array)


def test_the_build_is_recorded_and_written(tmp_path, monkeypatch):
    arguments = [
        "phantom",
        "chaost2",
        "--out",
        str(tmp_path),
        "--scans",
        "2",
        "--size-px",
        str(SIZE),
        "--build",
        "varied",
    ]
    monkeypatch.setattr("sys.argv", arguments)
    main()
    assert json.loads((tmp_path / "phantom.json").read_text())["build"] == "varied"
    image, _ = make_patient("chaost2", 1, size_px=SIZE, build="varied")
    stack = np.stack([each.pixel_array for each in slices_of(tmp_path, 2)])
    np.testing.assert_array_equal(stack, image.array)
    with pytest.raises(UserError, match=r"phantom\.json.*'build': 'varied'"):
        write_phantom("chaost2", tmp_path, n_scans=2, size_px=SIZE)


def test_a_given_build_is_written(tmp_path):
    build = Build(side_mm=40.0, field_mm=480.0)
    write_phantom("sabs", tmp_path, n_scans=1, size_px=SIZE, build=build)
    assert json.loads((tmp_path / "phantom.json").read_text())["build"]["side_mm"] == 40
    assert read_nifti(tmp_path / "img/img0001.nii.gz").spacing_mm[1:] == pytest.approx([480 / SIZE] * 2)


def test_unknown_builds_and_data_sets_without_them_are_errors(tmp_path):
    with pytest.raises(ConfigError, match=r"phantom mms: .* standard build; those of chaost2, sabs can vary"):
        write_phantom("mms", tmp_path, build="varied")
    with pytest.raises(ConfigError, match=r"scgm: .* standard build"):
        make_patient("scgm", 0, build=Build())
    assert not list(tmp_path.iterdir())
