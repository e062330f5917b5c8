"""Fundus cameras: black surroundings, fields that are cut off, colour casts."""

import numpy as np
import pytest

from data.phantom.devices.fundus_camera import FundusCamera
from dataloaders.images.field_of_view import crop_field, field_mask


def photograph(camera, size_px=80):
    frame = camera.frame(size_px)
    points, scene = frame.points(), np.full((*frame.shape, 3), 0.6, np.float32)
    return camera.photograph(scene, frame, points, np.random.default_rng(0)), camera.field(points)


@pytest.mark.parametrize("camera", [FundusCamera(1.0, 0.9), FundusCamera(1.5, 1.2, vignette=0.4)])
def test_the_field_of_view_is_found_in_the_picture(camera):
    image, field = photograph(camera)
    found = field_mask(image)
    assert 2 * (found & field).sum() > 0.98 * (found.sum() + field.sum())
    assert image[~field].max() < 60
    assert np.median(image[~field]) < 10


def test_a_wide_field_is_cut_off_at_the_longer_sides():
    crop = crop_field(photograph(FundusCamera(1.5, 1.2))[0])
    assert (crop.crop_top_px, crop.crop_height_px) == (0, 80)
    assert 92 <= crop.crop_width_px <= 100  # 1.2 x 80, and the dilation


def test_casts_change_the_colour():
    red, blue = (photograph(FundusCamera(1.0, 0.9, cast))[0] for cast in ((1.2, 0.8, 0.5), (0.8, 1.0, 1.2)))
    middle = (slice(35, 45), slice(35, 45))
    assert red[middle][..., 0].mean() > 1.8 * red[middle][..., 2].mean()
    assert blue[middle][..., 2].mean() > 1.2 * blue[middle][..., 0].mean()
