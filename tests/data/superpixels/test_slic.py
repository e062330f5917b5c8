"""Superpixels of single images, and their quality worked by hand."""

import math

import numpy as np
import pytest
from skimage.color import rgb2lab
from skimage.segmentation import slic

from data.superpixels.slic import majority_mask, measure_quality, segment_slic, under_segmentation_error
from dataloaders.images.folder import SuperpixelConfig

# Three pieces of 4, 3 and 5 pixels.
PIECES = np.array([[0, 0, 1, 2], [0, 0, 1, 2], [2, 2, 1, 2]])
RGB, GREY = SuperpixelConfig("rgb", 25, 10.0), SuperpixelConfig("gray", 25, 10 / 255)


def scene(low=0, high=255, size=40):
    """Two grey blocks on a ramp, over the whole range from `low` to `high`."""
    ramp = np.linspace(0, 0.4, size)[:, None] * np.ones(size)
    ramp[5:20, 8:30] = 1.0
    ramp[24:36, 3:18] = 0.7
    return (low + (high - low) * ramp).round().astype(np.uint8)


def in_colour(grey):
    return np.stack([grey, grey // 2, 255 - grey], axis=-1)


def test_under_segmentation_worked_by_hand():
    mask = np.zeros((3, 4), bool)
    mask[:2, 1:3] = True  # 2 of 4 pixels of piece 0, 2 of 3 of piece 1: touched 7, object 4
    assert under_segmentation_error(PIECES, mask) == 3 / 4
    assert under_segmentation_error(PIECES, PIECES == 2) == 0
    assert math.isnan(under_segmentation_error(PIECES, np.zeros((3, 4), bool)))


def test_a_majority_is_more_than_half():
    mask = np.zeros((3, 4), bool)
    mask[:2, 1:3] = True
    np.testing.assert_array_equal(majority_mask(PIECES, mask), PIECES == 1)  # half of piece 0 is not enough
    mask[0, 0] = True
    np.testing.assert_array_equal(majority_mask(PIECES, mask), PIECES <= 1)
    assert not majority_mask(PIECES, np.zeros((3, 4), bool)).any()


def test_quality_worked_by_hand():
    mask = np.zeros((3, 4), bool)
    mask[:2, 1:3] = True
    quality = measure_quality(PIECES, {"some": mask, "none": np.zeros((3, 4), bool)})
    assert quality.n_segments == 3
    assert quality.under_segmentation["some"] == 0.75
    assert quality.majority_dice["some"] == 2 * 2 / (3 + 4)
    assert math.isnan(quality.under_segmentation["none"])
    assert math.isnan(quality.majority_dice["none"])


def test_ids_may_have_gaps():
    mask = PIECES == 1
    assert under_segmentation_error(5 * PIECES + 2, mask) == 0
    np.testing.assert_array_equal(majority_mask(5 * PIECES + 2, mask), mask)
    assert measure_quality(5 * PIECES + 2, {}).n_segments == 3


@pytest.mark.parametrize(("image", "config"), [(in_colour(scene()), RGB), (scene(), GREY)], ids=["rgb", "gray"])
def test_objects_with_sharp_edges_are_followed(image, config):
    ids = segment_slic(image, config)
    assert ids.min() == 0
    assert 15 <= len(np.unique(ids)) == ids.max() + 1 <= 35
    for mask in (scene() == 255, (scene() > 170) & (scene() < 190)):
        assert measure_quality(ids, {"block": mask}).majority_dice["block"] == 1


@pytest.mark.parametrize("contrast", [(0, 255), (100, 160)])
def test_compactness_weighs_against_values_as_they_are(contrast):
    """SLIC minimises (colour / compactness)^2 + (position / step)^2: only colour by compactness counts."""
    image = scene(*contrast)
    ids = segment_slic(image, GREY)
    low, high = image.min() / 255, image.max() / 255
    stretched = (image / 255 - low) / (high - low)
    expected = slic(stretched, 25, 10 / 255 / (high - low), sigma=0, start_label=0, channel_axis=None, max_num_iter=10)
    np.testing.assert_array_equal(ids, expected)
    lab = rgb2lab(in_colour(image))
    rgb = slic((lab - lab.min()) / np.ptp(lab), 25, 10 / np.ptp(lab), start_label=0, channel_axis=-1, convert2lab=False)
    np.testing.assert_array_equal(segment_slic(in_colour(image), RGB), rgb)


def test_a_full_range_image_is_cut_as_by_scikit_image_alone():
    image = in_colour(scene())
    image[0, 0], image[-1, -1] = 0, 255
    np.testing.assert_array_equal(segment_slic(image, RGB), slic(image, 25, 10.0, start_label=0, channel_axis=-1))


def test_a_probability_is_as_good_as_an_edge():
    flat = np.full((40, 40), 77, np.uint8)
    mask = scene() == 255
    config = SuperpixelConfig("gray+prob", 25, 10 / 255)
    assert (majority_mask(segment_slic(flat, config, mask.astype(float)), mask) == mask).all()
    assert (majority_mask(segment_slic(flat, GREY), mask) != mask).any()


def test_equalising_raises_faint_edges():
    image, mask = scene(100, 106), scene() == 255
    compact = SuperpixelConfig("gray", 25, 0.1)
    plain, equal = (segment_slic(image, compact, equalised=equalised) for equalised in (False, True))
    assert under_segmentation_error(equal, mask) < under_segmentation_error(plain, mask)


def test_a_flat_image_gives_a_grid():
    ids = segment_slic(np.zeros((40, 40), np.uint8), GREY)
    assert len(np.unique(ids)) == 25
    assert 7 * 7 <= np.bincount(ids.ravel()).min() <= np.bincount(ids.ravel()).max() <= 9 * 9


def test_an_unresolved_configuration_is_a_mistake():
    with pytest.raises(ValueError, match="expected a resolved configuration"):
        segment_slic(scene(), SuperpixelConfig("gray"))
