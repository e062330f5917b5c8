"""DICOM series: order, geometry, intensities, and what is said of damaged ones."""

import re
import shutil

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

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
@pytest.mark.parametrize("value", [None, ""])
def test_missing_geometry_is_named(tmp_path, write_dicom, tag, value):
    write_dicom(tmp_path, ARRAY, **{tag: value})
    expect_error(tmp_path, "IMG-0001-00001.dcm", f"{tag} is missing or empty", "Export or copy the series")


@pytest.mark.parametrize(
    ("tag", "value", "found", "expected"),
    [
        ("PixelSpacing", b"8.0", "'8.0'", "2 numbers"),
        ("PixelSpacing", b"0,75\\0,75", "'0,75\\0,75'", "2 numbers"),
        ("PixelSpacing", b"0\\0 ", "'0\\0'", "positive distances"),
        ("PixelSpacing", b"1\\nan ", "'1\\nan'", "2 numbers"),
        ("PixelSpacing", b"1\\", "'1\\'", "2 numbers"),
        ("ImagePositionPatient", b"1\\2 ", "'1\\2'", "3 numbers"),
        ("ImagePositionPatient", b"a\\b\\c ", "'a\\b\\c'", "3 numbers"),
        ("ImageOrientationPatient", b"1\\0\\0\\1\\0\\0 ", "'1\\0\\0\\1\\0\\0'", "perpendicular"),
        ("RescaleSlope", b"one ", "'one'", "a number"),
        ("RescaleIntercept", b"1e999 ", "'1e999'", "a number"),
    ],
)
def test_impossible_values_are_shown(tmp_path, write_dicom, tag, value, found, expected):
    path = write_dicom(tmp_path, ARRAY)[1]
    write_raw(path, tag, value)
    if tag.startswith("Rescale"):
        for other in tmp_path.iterdir():
            write_raw(other, tag, value if other == path else b"1 ")
    expect_error(tmp_path, f"{path}: {tag} is {found}; expected", expected)


def write_raw(path, tag, value):
    """Stores the bytes of a value as they are, without pydicom's checks."""
    header = pydicom.dcmread(path)
    header[tag] = RawDataElement(Tag(tag), "DS", len(value), value, 0, False, True)
    header.save_as(path)


def test_a_radiograph_is_no_slice(tmp_path, write_dicom):
    write_dicom(tmp_path, ARRAY, Modality="DX", ImageOrientationPatient=None)
    expect_error(tmp_path, "ImageOrientationPatient is missing", "A picture (Modality DX)", "export it as PNG")


def test_a_projection_is_told_from_a_slice(tmp_path, write_dicom):
    write_dicom(tmp_path, ARRAY, PixelSpacing=None, ImagerPixelSpacing=[0.2, 0.2])
    expect_error(tmp_path, "PixelSpacing is missing", "ImagerPixelSpacing is the distance on the detector")


def test_two_series_are_told_apart(tmp_path, write_dicom):
    write_dicom(tmp_path, ARRAY[:2])
    for path in write_dicom(tmp_path / "other", ARRAY[:1], series="9.8.7"):
        shutil.copy(path, tmp_path / "extra.dcm")
    expect_error(
        tmp_path, str(tmp_path), "2 DICOM series", "SeriesNumber 1 (2 slices", "1 (1 slices, e.g. extra", "Move"
    )


def test_a_missing_slice_is_named_by_its_neighbours(tmp_path, write_dicom):
    write_dicom(tmp_path, ARRAY)[1].unlink()
    expect_error(tmp_path, "16.000 mm", "IMG-0001-00001.dcm", "IMG-0001-00003.dcm", "8.000 mm", "copy the series")


@pytest.mark.parametrize("spacing", [0.75, 0.3, 8.0, 1.23])
def test_positions_rounded_to_a_tenth_are_even(tmp_path, write_dicom, spacing):
    paths = write_dicom(tmp_path, np.concatenate([ARRAY] * 5))
    for number, path in enumerate(paths):
        change_header(path, ImagePositionPatient=[0, 0, round(number * spacing, 1)])
    volume = read_dicom_series(tmp_path)
    assert volume.spacing_mm[0] == pytest.approx(spacing, abs=0.006)


@pytest.mark.parametrize("n_slices", [3, 4, 8, 20])
@pytest.mark.parametrize("spacing", [0.3, 0.75, 2.0])
def test_a_missing_slice_is_found_among_rounded_positions(tmp_path, write_dicom, spacing, n_slices):
    paths = write_dicom(tmp_path, np.concatenate([ARRAY] * 5)[:n_slices])
    for number, path in enumerate(paths):
        change_header(path, ImagePositionPatient=[0, 0, round((number + (number > n_slices / 2)) * spacing, 1)])
    expect_error(tmp_path, "expected even steps", "missing")


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
    ],
)
def test_a_slice_unlike_the_others_is_named(tmp_path, write_dicom, tags, found):
    path = write_dicom(tmp_path, ARRAY)[3]
    change_header(path, **tags)
    expect_error(tmp_path, str(path), found, "Move")


def test_mixed_orientations_are_named(tmp_path, write_dicom):
    path = write_dicom(tmp_path, ARRAY)[3]
    change_header(path, ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    expect_error(tmp_path, "2 orientations: 3 axial", "e.g. IMG-0001-00001.dcm", "1 sagittal", path.name, "Move")


def test_frames_without_positions_are_named(tmp_path, write_dicom):
    path = write_dicom(tmp_path, ARRAY)[0]
    change_header(path, NumberOfFrames=3, Rows=1, Columns=5)
    expect_error(tmp_path, str(path), "3 frames, 0 of them with a position", "single-frame")
