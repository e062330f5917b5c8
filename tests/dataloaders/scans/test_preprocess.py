"""Preparation: the published numbers, the rules by hand, and what is said of unusable scans."""

import dataclasses
import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dataloaders.catalog import dataset
from dataloaders.io.geometry import crop_or_pad, resample_image, resample_label
from dataloaders.samples import Volume
from dataloaders.scans.preprocess import (
    PrepareParameters,
    apply_window,
    clip_percentile,
    parameters_of,
    paste_back,
    prepare_frames,
    prepare_image,
    prepare_label,
)
from util.errors import ConfigError, DataError

CHAOST2 = dataset("CHAOST2")
SABS = dataset("SABS")

SPACING = (7.7, 1.25, 1.25)


@pytest.fixture
def golden(golden_file):
    return golden_file("fewshot/preprocess.npz")


@pytest.fixture
def affine():
    affine = np.diag([1.40625, 1.40625, 8.0, 1.0])
    affine[:3, 3] = 3, -4, 5
    return affine


def test_clipping_agrees_with_the_reference(golden):
    clipped = clip_percentile(golden["mr/image_in"], 99.5)
    assert clipped.max() == golden["mr/hist_cut_value"]
    assert clipped.dtype == golden["mr/image_in"].dtype


def test_resampling_agrees_with_the_reference(golden, affine):
    image = resample_image(Volume(clip_percentile(golden["mr/image_in"], 99.5), affine), SPACING, "reference")
    label = resample_label(Volume(golden["mr/label_in"], affine), SPACING, "reference")
    np.testing.assert_array_equal(image.array, golden["mr/image_resampled"])
    np.testing.assert_array_equal(label.array, golden["mr/label_resampled"])


def test_the_clean_rule_only_leaves_out_what_lies_outside(golden, affine):
    expected = golden["mr/image_resampled"]
    image = resample_image(Volume(clip_percentile(golden["mr/image_in"], 99.5), affine), SPACING, "clean").array
    assert image.shape == (6, 81, 79)
    np.testing.assert_array_equal(image, expected[:6, :81])
    assert not expected[6:].any()
    assert not expected[:, 81:].any()


@pytest.mark.parametrize("size_px", [64, 96])
def test_cropping_agrees_with_the_reference(golden, affine, size_px):
    image, label = golden["mr/image_resampled"], golden["mr/label_resampled"]
    cropped = crop_or_pad(Volume(image, affine), size_px, float(image.min()))
    np.testing.assert_array_equal(cropped.array, golden[f"mr/image_crop{size_px}"])
    np.testing.assert_array_equal(
        crop_or_pad(Volume(label, affine), size_px, 0.0).array, golden[f"mr/label_crop{size_px}"]
    )


def test_the_whole_road_of_mr_agrees_with_the_reference(golden, affine):
    parameters = PrepareParameters("RAS", 99.5, None, 0.0, SPACING, 96, "reference")
    image = prepare_image(Volume(golden["mr/image_in"], affine), parameters)
    label = prepare_label(Volume(golden["mr/label_in"], affine), parameters)
    np.testing.assert_array_equal(image.array, golden["mr/image_crop96"])
    np.testing.assert_array_equal(label.array, golden["mr/label_crop96"])
    # Rows: 82 // 2 = 41 comes to 48, so 7 are added before the first; columns: 79 // 2 = 39, so 9.
    np.testing.assert_allclose(image.affine[:3, 3], [3 - 9 * 1.25, -4 - 7 * 1.25, 5])


def test_clipping_truncates_the_limit_of_integers():
    array = np.array([0, 1, 2, 3], np.int16)  # the 75th percentile is 2.25
    assert clip_percentile(array, 75.0).tolist() == [0, 1, 2, 2]
    assert clip_percentile(array.astype(np.float32), 75.0).tolist() == [0, 1, 2, 2.25]


def test_the_window_maps_hounsfield_units_to_bytes():
    windowed = apply_window(np.array([-1000, -125, 75, 275, 3000], np.int16), (-125.0, 275.0))
    assert windowed.tolist() == [0, 0, 127.5, 255, 255]
    assert windowed.dtype == np.float32


@pytest.mark.parametrize(("size_rule", "shape"), [("clean", (3, 16, 16)), ("reference", (4, 17, 17))])
def test_ct_loses_its_border_and_is_scaled_to_size(size_rule, shape):
    array = np.full((3, 32, 32), -1000, np.int16)
    array[:, 2:-2, 2:-2] = 275
    affine = np.diag([0.7, 0.7, 3.0, 1.0]) @ np.diag([-1.0, 1, 1, 1])
    image = prepare_image(Volume(array, affine), parameters_of(SABS, size_px=16, size_rule=size_rule))
    assert image.array.shape == shape
    assert (image.array[:3, :16, :16] == 255).all()  # 2 = 32 / 16 px went on each side, 28 remain for 16
    assert not image.array[3:].any()
    assert image.spacing_mm == pytest.approx((3, 0.7 * 28 / 16, 0.7 * 28 / 16))
    np.testing.assert_allclose(image.affine[:3, 3], [-2 * 0.7, 2 * 0.7, 0])


def test_ct_with_a_spacing_of_its_own_is_cropped():
    volume = Volume(np.arange(3 * 32 * 32, dtype=np.int16).reshape(3, 32, 32) - 1000, np.diag([-1.0, 1, 3, 1]))
    image = prepare_image(volume, parameters_of(SABS, 20, (3.0, 2.0, 2.0)))
    assert image.array.shape == (3, 20, 20)
    assert image.spacing_mm == pytest.approx((3, 2, 2))


def test_mr_is_padded_with_its_minimum_and_labels_with_background():
    volume = Volume(np.full((2, 4, 4), 7, np.int16), np.diag([-1.25, 1.25, 7.7, 1]))
    volume.array[0, 1, 1] = 8
    parameters = dataclasses.replace(parameters_of(CHAOST2), clip_percentile=None)
    assert np.count_nonzero(prepare_image(volume, parameters).array == 7) == 2 * 256 * 256 - 1
    label = prepare_label(Volume(np.ones((2, 4, 4), np.uint8), volume.affine), parameters).array
    assert label.shape == (2, 256, 256)
    assert label.sum() == 2 * 4 * 4


def test_a_scan_is_prepared_alike_however_its_axes_are_stored():
    array = np.random.default_rng(5).integers(0, 500, (5, 20, 22)).astype(np.int16)
    stored = Volume(array, np.diag([-1.4, 1.4, 8.0, 1.0]))
    flipped = Volume(array[:, ::-1], stored.affine @ [[1, 0, 0, 0], [0, -1, 0, 19], [0, 0, 1, 0], [0, 0, 0, 1]])
    turned = Volume(array.transpose(1, 0, 2), stored.affine[:, [0, 2, 1, 3]])
    first, *others = (prepare_image(each, parameters_of(CHAOST2, 32)) for each in (stored, flipped, turned))
    for other in others:
        np.testing.assert_array_equal(other.array, first.array)
        np.testing.assert_allclose(other.affine, first.affine, atol=1e-9)


def test_a_smaller_size_keeps_the_field_of_view():
    assert parameters_of(CHAOST2).spacing_mm == (7.7, 1.25, 1.25)
    assert parameters_of(CHAOST2, size_px=128).spacing_mm == (7.7, 2.5, 2.5)
    assert parameters_of(CHAOST2, 128, (5.0, 1.0, 1.0)).spacing_mm == (5, 1, 1)


MMS = dataset("MMS")


def oblique(shape, spacing_mm):
    """A volume whose slices are oblique to every plane of the patient."""
    z, y, x = spacing_mm
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("zyx", [40, 35, 25], degrees=True).as_matrix() * [x, y, z]
    affine[:3, 3] = 10, -20, 30
    array = np.random.default_rng(3).integers(0, 9, shape).astype(np.int16)
    return Volume(array, affine)


def test_pixels_get_their_size_and_slices_stay_as_stored():
    volume = oblique((3, 40, 60), (9.0, 1.5, 0.8))
    parameters = parameters_of(MMS, size_px=60)  # pixels of 1.1 * 304 / 60 = 5.57 mm: 11 x 9 of them show the scan
    image = prepare_image(volume, parameters)
    assert image.array.shape == (3, 60, 60)
    assert image.array.dtype == np.float32
    assert image.spacing_mm == pytest.approx((9, 1.1 * 304 / 60, 1.1 * 304 / 60))
    directions = [each.affine[:3, :3] / np.linalg.norm(each.affine[:3, :3], axis=0) for each in (volume, image)]
    np.testing.assert_allclose(*directions, atol=1e-9)
    shown = image.array != image.array.min()
    assert shown.any((0, 2)).sum() <= 11
    assert shown.any((0, 1)).sum() <= 9
    assert (image.array % 1).any()  # not truncated


def test_a_label_on_pixels_of_another_size_finds_back():
    volume = oblique((3, 40, 60), (9.0, 1.5, 0.8))
    label = np.zeros((3, 40, 60), np.uint8)
    label[1:, 10:30, 15:50] = 2
    prepared = prepare_label(Volume(label, volume.affine), parameters_of(MMS))
    assert prepared.array.shape == (3, 304, 304)
    np.testing.assert_allclose(prepared.affine, prepare_image(volume, parameters_of(MMS)).affine)
    back = paste_back(prepared, label.shape, volume.affine).array
    assert (
        2 * np.count_nonzero((back == 2) & (label == 2)) / (back.astype(bool).sum() + label.astype(bool).sum()) > 0.95
    )


def test_frames_are_prepared_alike_and_follow_each_other():
    frames = [oblique((2, 20, 20), (9.0, 2.0, 2.0)) for _ in range(3)]
    frames[1] = Volume(np.zeros_like(frames[1].array), frames[1].affine)  # a frame may be blank, a scan not
    parameters = parameters_of(MMS, size_px=50)
    stack = prepare_frames(frames, parameters)
    assert stack.array.shape == (6, 50, 50)
    inner = slice(24, 27)  # beyond is padding, with the least value of all frames
    alone = prepare_image(frames[2], parameters)
    np.testing.assert_array_equal(stack.array[4:, inner, inner], alone.array[:, inner, inner])
    np.testing.assert_array_equal(stack.array[2:4], 0)
    with pytest.raises(DataError, match="every voxel is 0: no image"):
        prepare_frames(frames[1:2] * 2, parameters)


def test_parameters_of_earlier_folders_say_nothing_of_pixels():
    assert "in_plane_mm" not in parameters_of(CHAOST2).to_json()
    assert parameters_of(MMS).to_json()["in_plane_mm"] == 1.1
    assert parameters_of(MMS, 152).in_plane_mm == pytest.approx(2.2)
    assert parameters_of(MMS, 150, (9.0, 1.0, 1.0)).in_plane_mm is None
    with pytest.raises(ConfigError, match=r"in_plane_mm=1\.1: expected a positive distance, and no spacing_mm"):
        dataclasses.replace(parameters_of(MMS), spacing_mm=(9.0, 1.0, 1.0))


@pytest.mark.parametrize(
    "parameters", [parameters_of(CHAOST2), parameters_of(SABS, 128, None, "reference"), parameters_of(MMS)]
)
def test_parameters_survive_json(parameters):
    assert PrepareParameters.from_json(json.loads(json.dumps(parameters.to_json()))) == parameters


@pytest.mark.parametrize("wrong", [{"size_px": 0}, {"size_px": -3}, {"spacing_mm": (1.0, 0.0, 1.0)}])
def test_impossible_parameters_are_refused(wrong):
    with pytest.raises(ConfigError, match="expected"):
        parameters_of(CHAOST2, **wrong)


def test_unusable_scans_are_refused():
    affine = np.diag([-1.0, 1, 3, 1])
    with pytest.raises(DataError, match=r"NaN or infinite.*Convert or copy"):
        prepare_image(Volume(np.full((2, 8, 8), np.nan, np.float32), affine), parameters_of(CHAOST2))
    with pytest.raises(DataError, match=r"from 300 to 427, none between -125 and 275.*Hounsfield.*rescale"):
        prepare_image(Volume(np.arange(300, 428, dtype=np.int16).reshape(2, 8, 8), affine), parameters_of(SABS))
    with pytest.raises(DataError, match=r"every voxel is 300: no image"):
        prepare_image(Volume(np.full((2, 8, 8), 300, np.int16), affine), parameters_of(CHAOST2))
    rounding = np.full((2, 8, 8), 0.1) + np.arange(128).reshape(2, 8, 8) * 1e-12
    with pytest.raises(DataError, match=r"every voxel lies between 0\.1 and 0\.1\d*: no image"):
        prepare_image(Volume(rounding, affine), parameters_of(CHAOST2))
    with pytest.raises(DataError, match=r"label values 0\.5 in 128 of 128 voxels; expected whole numbers"):
        prepare_label(Volume(np.full((2, 8, 8), 0.5), affine), parameters_of(CHAOST2))
