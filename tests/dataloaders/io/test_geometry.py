"""Grids: whatever is flipped, cut or resampled, voxels keep their place, and masks find back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import aff2axcodes
from scipy.spatial.transform import Rotation

from dataloaders.io.geometry import (
    Grid,
    corner_distance_mm,
    crop_or_pad,
    interpolate_to,
    paste_back,
    remove_border,
    reorient,
    resample_image,
    resample_label,
)
from dataloaders.samples import Volume
from dataloaders.scans.preprocess import PrepareParameters, prepare_image, prepare_label
from util.errors import DataError


def affine_of(angles_deg, spacing_xyz, flips_xyz=(1, 1, 1), origin=(31.0, -72.0, 410.0)):
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", angles_deg, degrees=True).as_matrix() * spacing_xyz * flips_xyz
    affine[:3, 3] = origin
    return affine


def millimetres(volume):
    """Volumes (D, H, W) of each voxel's x, y and z in RAS millimetres."""
    z, y, x = np.indices(volume.array.shape)
    return np.tensordot(volume.affine[:3], np.stack([x, y, z, np.ones_like(x)]), axes=1)


def ramp(volume, axis):
    """The volume with each voxel's own coordinate as its intensity: linear, so interpolation must not change it."""
    return Volume(millimetres(volume)[axis], volume.affine)


AFFINES = {
    "straight": affine_of((0, 0, 0), (1.4, 1.4, 8.0)),
    "LPS": affine_of((0, 0, 0), (1.4, 1.6, 8.0), (-1, -1, 1)),
    "flipped": affine_of((0, 0, 0), (1.4, 1.6, 5.0), (-1, 1, -1)),
    "oblique": affine_of((12, -25, 8), (0.9, 1.6, 5.0), (-1, 1, 1)),
    "coronal": affine_of((90, 4, 3), (1.1, 1.3, 4.0)),
    "sheared": affine_of((5, 0, 0), (1.0, 1.2, 4.0))
    @ np.array([[1, 0, 0, 0], [0, 1, 0.4, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
}
every_affine = pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES.keys())


@every_affine
@pytest.mark.parametrize("axis", range(3))
def test_every_step_keeps_voxels_in_place(affine, axis):
    volume = ramp(Volume(np.zeros((7, 11, 10)), affine), axis)
    steps = [
        reorient(volume, "LAS"),
        remove_border(volume, 0.2),
        crop_or_pad(volume, 7, 0.0),
        crop_or_pad(volume, 6, 0.0),
    ]
    for step in steps:
        np.testing.assert_allclose(step.array, millimetres(step)[axis], atol=1e-5)


@every_affine
def test_resampling_keeps_voxels_in_place(affine):
    volume = ramp(Volume(np.zeros((7, 11, 10)), affine), 1)
    resampled = resample_image(volume, (3.1, 1.7, 0.8))
    assert resampled.spacing_mm == pytest.approx((3.1, 1.7, 0.8))
    inner = (
        slice(0, -2),
    ) * 3  # the outermost samples may lie beyond the last voxel's centre, where values stop rising
    np.testing.assert_allclose(resampled.array[inner], millimetres(resampled)[1][inner], atol=1e-5)


@pytest.mark.parametrize(("n", "size_px"), [(4, 3), (5, 4), (5, 2), (4, 7), (3, 6)])
def test_the_central_row_and_column_stay_central(n, size_px):
    array = np.zeros((1, n, n + 1), np.uint8)
    array[0, n // 2, (n + 1) // 2] = 1
    cropped = crop_or_pad(Volume(array, np.eye(4)), size_px, 0.0).array
    assert np.argwhere(cropped).tolist() == [[0, size_px // 2, size_px // 2]]


def test_padding_keeps_voxels_in_place():
    volume = ramp(Volume(np.zeros((3, 5, 4)), AFFINES["oblique"]), 2)
    padded = crop_or_pad(volume, 9, np.nan)
    known = ~np.isnan(padded.array)
    assert known.sum() == volume.array.size
    np.testing.assert_allclose(padded.array[known], millimetres(padded)[2][known], atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 9)] * 3),
    flips=st.tuples(*[st.sampled_from([-1, 1])] * 3),
)
def test_the_way_through_millimetres_and_back_is_exact(angles, spacing, flips):
    volume = Volume(np.zeros((4, 5, 6), np.uint8), affine_of(angles, spacing, flips))
    turned = crop_or_pad(reorient(volume, "LAS"), 3, 0.0)
    voxels = np.array([[0, 0, 0, 1], [2, 2, 3, 1], [1, 0, 2, 1]], float).T
    there = np.linalg.inv(volume.affine) @ turned.affine @ voxels
    assert np.abs(there - np.rint(there)).max() < 1e-9  # flips, swaps and crops go from voxel to voxel
    back = turned.affine @ np.linalg.inv(turned.affine) @ volume.affine @ there
    np.testing.assert_allclose(back, volume.affine @ there, atol=1e-5)


def test_reorient_moves_values_not_only_headers():
    array = np.arange(8).reshape(2, 2, 2)
    turned = reorient(Volume(array, np.diag([1.0, 1.0, 1.0, 1.0])), "LPS")
    np.testing.assert_array_equal(turned.array, array[:, ::-1, ::-1])
    np.testing.assert_array_equal(turned.affine[:3, 3], [1, 1, 0])


@pytest.mark.parametrize("name", ["LPS", "flipped", "coronal"])
def test_reorient_reaches_the_asked_axes(name):
    assert aff2axcodes(reorient(Volume(np.zeros((2, 3, 4)), AFFINES[name]), "LAS").affine) == ("L", "A", "S")


@pytest.mark.parametrize(
    ("size_rule", "shape"), [("clean", (4, 4, 4)), ("reference", (5, 5, 5))], ids=["clean", "reference"]
)
def test_the_clean_size_has_no_sample_outside_the_scan(size_rule, shape):
    # 8 samples 1 mm apart, then 2 mm: 0, 2, 4, 6 lie within; the reference adds 8, beyond the outer face at 7.5.
    resampled = resample_image(Volume(np.ones((8, 8, 8), np.float32), np.eye(4)), (2.0, 2.0, 2.0), size_rule)
    assert resampled.array.shape == shape
    assert (resampled.array == 0).any() == (size_rule == "reference")


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 40), old=st.floats(0.3, 9), new=st.floats(0.3, 9))
def test_no_rule_but_the_reference_adds_empty_slices(n, old, new):
    resampled = resample_image(Volume(np.ones((n, 2, 2), np.float32), np.diag([1.0, 1.0, old, 1.0])), (new, 1.0, 1.0))
    assert (resampled.array > 0).all()
    assert abs(len(resampled.array) * new - n * old) <= new + 0.5 * old


def test_a_grid_of_absurd_size_is_not_made():
    volume = Volume(np.ones((4, 5, 6), np.float32), np.diag([900.0, 900.0, 900.0, 1.0]))
    with pytest.raises(DataError, match=r"\(4, 5, 6\) voxels \(D, H, W\) of 900 x 900 x 900 mm would become .*unit"):
        resample_image(volume, (1.0, 1.0, 1.0))
    with pytest.raises(DataError, match=r"would become \(4, 50000, 50000\); expected at most"):
        crop_or_pad(volume, 50_000, 0.0)


def test_labels_need_more_than_half():
    label = np.zeros((1, 1, 4), np.uint8)
    label[..., 1] = 7
    label[..., 2:] = 9
    resampled = resample_label(Volume(label, np.eye(4)), (1.0, 1.0, 0.25))
    # Between 0 and 1 the mask of 7 rises: 0.25, 0.5 stay background; between 1 and 2 it falls as that of 9 rises.
    assert resampled.array[0, 0].tolist() == [0, 0, 0, 7, 7, 7, 0, 9, 9, 9, 9, 9, 9, 9]


@every_affine
@pytest.mark.parametrize("interpolation", ["linear", "nearest"])
def test_pasting_back_onto_the_same_patient(affine, interpolation):
    original = Volume(np.zeros((9, 30, 28), np.uint8), affine)
    centre = (affine @ [13.5, 14.5, 4, 1])[:3]
    distance = np.linalg.norm(millimetres(original) - centre[:, None, None, None], axis=0)
    ball = Volume((distance < 11).astype(np.uint8), affine)
    half = Volume(ball.array + (ball.array * (millimetres(original)[0] > centre[0])).astype(np.uint8), affine)
    parameters = PrepareParameters("LAS", None, None, 0.05, (2.0, 0.8, 0.8), 48, "clean")
    back = paste_back(prepare_label(half, parameters), half.array.shape, affine, interpolation)
    assert back.array.dtype == np.uint8
    for value in (1, 2):
        overlap = 2 * ((back.array == value) & (half.array == value)).sum()
        assert overlap / ((back.array == value).sum() + (half.array == value).sum()) > 0.9


@every_affine
def test_pasting_back_without_interpolation_is_exact(affine):
    rng = np.random.default_rng(0)
    original = Volume(rng.integers(0, 5, (6, 12, 10)).astype(np.int16), affine)
    turned = crop_or_pad(reorient(original, "LAS"), 20, 0.0)
    for interpolation in ("linear", "nearest"):
        back = paste_back(turned, original.array.shape, affine, interpolation)
        np.testing.assert_array_equal(back.array, original.array)
        np.testing.assert_array_equal(back.affine, affine)


def test_pasting_back_a_bool_mask_leaves_background_outside_it():
    # The mask covers columns 1 and 2 of four; each of its voxels becomes 2 x 2 finer ones.
    mask = Volume(np.ones((1, 1, 2), bool), np.array([[1.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]))
    fine = np.array([[0.5, 0, 0, -0.25], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    back = paste_back(mask, (1, 1, 8), fine)
    assert back.array.dtype == bool
    assert back.array[0, 0].tolist() == [False, False, True, True, True, True, False, False]


@every_affine
def test_values_are_interpolated_through_the_patients_coordinates(affine):
    original = Volume(np.random.default_rng(0).random((6, 12, 10)).astype(np.float32), affine)
    turned = crop_or_pad(reorient(original, "LAS"), 20, 0.0)
    np.testing.assert_allclose(interpolate_to(turned, Grid.of(original)), original.array, atol=1e-4)


def test_between_voxels_values_are_interpolated_and_beyond_them_zero():
    affine = np.array([[2.0, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])
    row = Volume(np.array([[[0.2, 0.6]]], np.float32), affine)
    found = interpolate_to(row, Grid((1, 1, 8), np.diag([1.0, 1, 1, 1])))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0, 0], [0.1, 0.2, 0.4, 0.6, 0.3, 0, 0, 0], atol=1e-6)  # 0 fades in and out
    assert not interpolate_to(Volume(np.zeros((1, 2, 3), np.float32), np.eye(4)), Grid((2, 2, 2), np.eye(4))).any()


def test_a_mask_beside_the_scan_leaves_only_background():
    mask = Volume(np.ones((2, 3, 4), np.uint8), affine_of((0, 0, 0), (1.0, 1.0, 1.0), origin=(500.0, 0.0, 0.0)))
    assert not paste_back(mask, (5, 5, 5), np.eye(4)).array.any()


def test_an_image_and_its_label_end_on_one_grid():
    volume = Volume(np.random.default_rng(1).integers(0, 900, (8, 40, 36)).astype(np.int16), AFFINES["oblique"])
    parameters = PrepareParameters("LAS", 99.5, None, 1 / 16, (3.0, 1.1, 1.3), 32, "clean")
    image, label = prepare_image(volume, parameters), prepare_label(Volume(volume.array % 5, volume.affine), parameters)
    assert corner_distance_mm(Grid.of(image), Grid.of(label)) == 0
    assert image.array.dtype == np.float32
    assert label.array.dtype == np.uint8


def test_grids_are_compared_in_millimetres():
    first = Grid((2, 3, 4), np.eye(4))
    moved, grown = np.eye(4), np.eye(4)
    moved[0, 3] = 0.5
    grown[1, 1] = 2.0
    assert corner_distance_mm(first, Grid((2, 3, 4), moved)) == pytest.approx(0.5)
    assert corner_distance_mm(first, Grid((2, 3, 4), grown)) == pytest.approx(2.0)  # row 2 lies at 4 instead of 2 mm
    assert corner_distance_mm(first, Grid((2, 4, 3), np.eye(4))) == np.inf


def test_a_grid_survives_json():
    grid = Grid((2, 3, 4), AFFINES["oblique"])
    again = Grid.from_json(grid.to_json())
    assert again.shape == grid.shape
    np.testing.assert_array_equal(again.affine, grid.affine)
