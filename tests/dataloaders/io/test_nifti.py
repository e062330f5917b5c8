"""Files in and out: equal content, geometry, and what is said of damaged files."""

import gzip
import re
import time

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from nibabel.nifti1 import Nifti1Header, Nifti1Image
from PIL import Image

from dataloaders.io.nifti import read_nifti, voxel_hash, write_nifti
from dataloaders.io.png import png_files, read_png_stack, trailing_number
from dataloaders.samples import Volume
from util.errors import DataError

OBLIQUE = np.array([[-1.2, 0.3, 0.4, 93.7], [0.4, 1.1, -1.1, -120.3], [-0.1, 0.2, 6.9, 511.1], [0, 0, 0, 1]])


def orthogonal_oblique():
    turn = np.linalg.qr(OBLIQUE[:3, :3])[0]
    affine = np.eye(4)
    affine[:3, :3] = turn * [0.7, 1.3, 5.0]
    affine[:3, 3] = OBLIQUE[:3, 3]
    return affine


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.int32, bool])
def test_what_is_written_is_read(tmp_path, rng, dtype):
    array = rng.integers(0, 2, (3, 4, 5)).astype(dtype)
    write_nifti(tmp_path / "a.nii.gz", Volume(array, OBLIQUE))
    volume = read_nifti(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(volume.array, array)
    assert volume.array.dtype == (np.uint8 if dtype is bool else dtype)
    np.testing.assert_allclose(volume.affine, OBLIQUE, rtol=1e-7)


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_axes_are_z_y_x_and_other_programs_agree_on_the_place(tmp_path, rng):
    volume = Volume(rng.normal(size=(3, 4, 5)).astype(np.float32), orthogonal_oblique())
    write_nifti(tmp_path / "a.nii.gz", volume)
    image = sitk.ReadImage(str(tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), volume.array)
    lps = image.TransformContinuousIndexToPhysicalPoint([4.0, 1.0, 2.0])
    np.testing.assert_allclose(np.multiply(lps, [-1, -1, 1]), (volume.affine @ [4, 1, 2, 1])[:3], atol=1e-3)
    header = Nifti1Image.from_filename(tmp_path / "a.nii.gz").header
    assert header["sform_code"] == header["qform_code"] == 1


def test_a_sheared_affine_is_kept_and_not_said_as_a_quaternion(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", Volume(np.zeros((2, 2, 2), np.uint8), OBLIQUE))
    header = Nifti1Image.from_filename(tmp_path / "a.nii.gz").header
    assert (header["sform_code"], header["qform_code"]) == (1, 0)


def test_equal_volumes_give_equal_files(tmp_path, monkeypatch):
    volume = Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), OBLIQUE)
    write_nifti(tmp_path / "a.nii.gz", volume)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    write_nifti(tmp_path / "b.nii.gz", volume)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_the_name_does_not_decide_about_compression(tmp_path):
    volume = Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4), OBLIQUE)
    write_nifti(tmp_path / "a.nii.gz", volume)
    (tmp_path / "plain.nii.gz").write_bytes(gzip.decompress((tmp_path / "a.nii.gz").read_bytes()))
    np.testing.assert_array_equal(read_nifti(tmp_path / "plain.nii.gz").array, volume.array)


def test_big_endian_files_become_native(tmp_path):
    array = np.arange(24, dtype=">i2").reshape(4, 3, 2)
    Nifti1Image(array, np.eye(4), Nifti1Header(endianness=">")).to_filename(tmp_path / "a.nii")
    read = read_nifti(tmp_path / "a.nii").array
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, array.T)


def test_a_fourth_axis_of_length_one_is_dropped(tmp_path):
    Nifti1Image(np.zeros((4, 3, 2, 1), np.uint8), np.eye(4)).to_filename(tmp_path / "a.nii")
    assert read_nifti(tmp_path / "a.nii").array.shape == (2, 3, 4)


def test_voxel_hash_sees_values_shape_and_type():
    array = np.arange(6, dtype=np.int16)
    assert voxel_hash(array) == voxel_hash(np.arange(12, dtype=np.int16)[:6])
    others = [array + 1, array.reshape(2, 3), array.astype(np.uint16)]
    assert len({voxel_hash(each) for each in [array, *others]}) == 4


def expect_error(function, path, *parts):
    with pytest.raises(DataError, match=".*".join(map(re.escape, (str(path), *parts)))):
        function(path)


def test_absent_and_empty_files_are_named(tmp_path):
    expect_error(read_nifti, tmp_path / "a.nii.gz", "no such file", "frugalseg prepare")
    (tmp_path / "b.nii.gz").mkdir()
    expect_error(read_nifti, tmp_path / "b.nii.gz", "a folder")
    (tmp_path / "c.nii.gz").touch()
    expect_error(read_nifti, tmp_path / "c.nii.gz", "an empty file", "again")


def test_nifti_files_of_unusable_shape_or_geometry_are_named(tmp_path):
    path = tmp_path / "a.nii"
    Nifti1Image(np.zeros((4, 3, 2, 2), np.uint8), np.eye(4)).to_filename(path)
    expect_error(read_nifti, path, "(4, 3, 2, 2)", "three dimensions")
    image = Nifti1Image(np.zeros((4, 3, 2), np.uint8), np.eye(4))
    image.set_sform(np.diag([1, 0, 1, 1]), code=1)
    image.to_filename(path)
    expect_error(read_nifti, path, "cannot be inverted", "Convert")


def write_png(folder, name, array):
    folder.mkdir(exist_ok=True)
    Image.fromarray(array).save(folder / name)


def test_png_files_are_stacked_by_number(tmp_path):
    for number in (10, 9, 2):
        write_png(tmp_path, f"IMG-7-{number}.png", np.full((2, 3), number, np.uint8))
    stack = read_png_stack(tmp_path)
    assert stack.shape == (3, 2, 3)
    assert stack[:, 0, 0].tolist() == [2, 9, 10]
    assert [trailing_number(path) for path in png_files(tmp_path)] == [2, 9, 10]


def test_png_rows_keep_their_order(tmp_path):
    write_png(tmp_path, "1.png", np.array([[1, 2], [3, 4]], np.uint8))
    assert read_png_stack(tmp_path).tolist() == [[[1, 2], [3, 4]]]


def test_bad_png_folders_are_named(tmp_path):
    expect_error(read_png_stack, tmp_path, "no *.png", "download")
    grey = np.zeros((2, 2), np.uint8)
    for name, array, parts in (
        ("IMG-0002-00001.png", grey, ("the slice number of IMG-0001-00001.png", "elsewhere")),
        ("overview.png", grey, ("no slice number", "elsewhere")),
        ("IMG-0001-00002.png", np.eye(2, 3, dtype=np.uint8)[None].repeat(2, 0), ("colours", "expected grey codes")),
        ("IMG-0001-00002.png", np.zeros((3, 2), np.uint8), ("(3, 2) pixels; expected (2, 2)", "again")),
    ):
        write_png(tmp_path, "IMG-0001-00001.png", grey)
        write_png(tmp_path, name, array)
        with pytest.raises(DataError, match=".*".join(map(re.escape, (name, *parts)))):
            read_png_stack(tmp_path)
        (tmp_path / name).unlink()
    write_png(tmp_path, "IMG-0001-00001.png", (np.arange(2500) % 251).astype(np.uint8).reshape(50, 50) ** 3)
    whole = (tmp_path / "IMG-0001-00001.png").read_bytes()
    (tmp_path / "IMG-0001-00001.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"IMG-0001-00001\.png.*truncated.*Copy, export or download"):
        read_png_stack(tmp_path)
