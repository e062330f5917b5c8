"""DICOM series: order, geometry, intensities, and what is said of damaged ones."""

import re
import shutil

import numpy as np
import pydicom
import pytest

from dataloaders.io.dicom import read_dicom_series, read_dicom_slices
from util.errors import DataError

ARRAY = np.arange(4 * 3 * 5, dtype=np.uint16).reshape(4, 3, 5)
# An oblique plane: columns, rows and normal are orthonormal and no patient axis.
ACROSS = np.array([2.0, 1.0, 2.0]) / 3
DOWN = np.array([1.0, 2.0, -2.0]) / 3
NORMAL = np.cross(ACROSS, DOWN)


def voxel_in_ras(affine, column, row, z):
    return (affine @ [column, row, z, 1])[:3]


def test_an_axial_series_lies_where_its_headers_say(tmp_path, write_dicom):
    write_dicom(tmp_path, ARRAY)
    volume = read_dicom_series(tmp_path)
    np.testing.assert_array_equal(volume.array, ARRAY)
    assert volume.array.dtype == np.int16
    # From LPS to RAS: x and y change sign. 2 mm between columns, 1.5 mm between rows, 8 mm between slices.
    np.testing.assert_allclose(
        volume.affine, [[-2, 0, 0, 40], [0, -1.5, 0, 30], [0, 0, 8, 100], [0, 0, 0, 1]], atol=1e-9
    )
    assert volume.spacing_mm == pytest.approx((8, 1.5, 2))  # SliceThickness says 3


def test_an_oblique_series_keeps_every_pixel_in_place(tmp_path, write_dicom):
    origin = np.array([12.0, -7.0, 30.0])
    write_dicom(tmp_path, ARRAY, ACROSS, DOWN, 4 * NORMAL, origin)
    volume = read_dicom_series(tmp_path)
    expected = origin + 4 * 2.0 * ACROSS + 2 * 1.5 * DOWN + 3 * 4 * NORMAL
    np.testing.assert_allclose(voxel_in_ras(volume.affine, 4, 2, 3), expected * [-1, -1, 1], atol=1e-6)
    np.testing.assert_array_equal(volume.array, ARRAY)


def test_slices_are_sorted_along_their_normal_not_by_name(tmp_path, write_dicom):
    write_dicom(tmp_path, ARRAY, step=(0, 0, -8))
    series = read_dicom_slices(tmp_path)
    np.testing.assert_array_equal(series.volume.array, ARRAY[::-1])
    np.testing.assert_allclose(voxel_in_ras(series.volume.affine, 0, 0, 0), [40, 30, 100 - 24], atol=1e-9)
    assert [each.path.name[-5] for each in series.slices] == list("4321")
    assert [each.instance_number for each in series.slices] == [4, 3, 2, 1]


def test_a_tilted_gantry_stays_in_the_affine(tmp_path, write_dicom):
    write_dicom(tmp_path, ARRAY, step=(0, 2, 8))
    affine = read_dicom_series(tmp_path).affine
    np.testing.assert_allclose(affine[:3, 2], [0, -2, 8], atol=1e-9)


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype"), [("1", "-1024", np.int16), ("2", "5000.0", np.int16), ("0.25", "0", np.float32)]
)
def test_rescale_is_applied_and_whole_numbers_stay_integers(tmp_path, write_dicom, slope, intercept, dtype):
    write_dicom(tmp_path, ARRAY, RescaleSlope=slope, RescaleIntercept=intercept)
    array = read_dicom_series(tmp_path).array
    assert array.dtype == dtype
    np.testing.assert_array_equal(array, ARRAY * float(slope) + float(intercept))


def test_large_intensities_do_not_wrap(tmp_path, write_dicom):
    write_dicom(tmp_path, ARRAY + np.uint16(65000))
    assert read_dicom_series(tmp_path).array.max() == 65059


def test_files_without_a_suffix_are_read_too(tmp_path, write_dicom):
    for path in write_dicom(tmp_path, ARRAY):
        path.rename(path.with_suffix(""))
    (tmp_path / ".DS_Store").write_bytes(b"x")
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array, ARRAY)


def expect_error(folder, *parts):
    with pytest.raises(DataError, match=".*".join(map(re.escape, parts))):
        read_dicom_series(folder)


def test_an_empty_folder_is_named(tmp_path):
    expect_error(tmp_path, str(tmp_path), "no DICOM", "Copy or download")


def test_a_truncated_file_is_named(tmp_path, write_dicom):
    path = write_dicom(tmp_path, ARRAY)[2]
    path.write_bytes(path.read_bytes()[:-10])
    expect_error(tmp_path, str(path), "truncated", "Copy it again")


def test_a_file_cut_within_its_header_is_named(tmp_path, write_dicom):
    path = write_dicom(tmp_path, ARRAY)[2]
    path.write_bytes(path.read_bytes()[:500])
    expect_error(tmp_path, str(path), "truncated", "again")


def test_a_file_that_is_no_dicom_is_named(tmp_path, write_dicom):
    write_dicom(tmp_path, ARRAY)
    (tmp_path / "notes.dcm").write_text("not an image " * 30)
    expect_error(tmp_path, "notes.dcm", "not a readable DICOM", "Copy it again")


@pytest.mark.parametrize("tag", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_missing_geometry_is_named(tmp_path, write_dicom, tag):
    write_dicom(tmp_path, ARRAY, **{tag: None})
    expect_error(tmp_path, "IMG-0001-00001.dcm", tag, "export the series")


def test_two_series_are_told_apart(tmp_path, write_dicom):
    write_dicom(tmp_path, ARRAY[:2])
    for path in write_dicom(tmp_path / "other", ARRAY[:1], series="9.8.7"):
        shutil.copy(path, tmp_path / "extra.dcm")
    expect_error(tmp_path, str(tmp_path), "2 DICOM series", "1.2.3 (2 files)", "9.8.7 (1 files)", "Move")


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path, write_dicom):
    write_dicom(tmp_path, ARRAY)[1].unlink()
    expect_error(tmp_path, "16.000 mm", "IMG-0001-00001.dcm", "IMG-0001-00003.dcm", "8.000 mm", "copy the series")


def test_duplicate_slices_are_named(tmp_path, write_dicom):
    shutil.copy(write_dicom(tmp_path, ARRAY)[1], tmp_path / "again.dcm")
    expect_error(tmp_path, "IMG-0001-00002.dcm", "again.dcm", "same position", "Remove the duplicate")


def test_a_single_slice_has_no_spacing(tmp_path, write_dicom):
    write_dicom(tmp_path, ARRAY[:1])
    expect_error(tmp_path, str(tmp_path), "one DICOM slice", "at least 2")


def change_header(path, **tags):
    header = pydicom.dcmread(path)
    for name, value in tags.items():
        setattr(header, name, value)
    header.save_as(path)


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ({"Rows": 5, "Columns": 3}, "(5, 3) pixels; expected (3, 5)"),
        ({"PixelSpacing": [1, 1]}, "pixel size [1.0, 1.0] mm; expected [2.0, 1.5] mm"),
        ({"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}, "orientation [0.0, 1.0"),
    ],
)
def test_a_slice_unlike_the_others_is_named(tmp_path, write_dicom, tags, found):
    path = write_dicom(tmp_path, ARRAY)[3]
    change_header(path, **tags)
    expect_error(tmp_path, str(path), found, "Move")


def test_a_colour_image_is_named(tmp_path, write_dicom):
    path = write_dicom(tmp_path, ARRAY)[0]
    change_header(path, NumberOfFrames=3, Rows=1, Columns=5)
    expect_error(tmp_path, str(path), "(3, 1, 5)", "single-frame")
