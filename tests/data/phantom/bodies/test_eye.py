"""The eye phantom: a connected tree of vessels, nested disc and cup, lesions where they belong."""

import numpy as np
import pytest
from scipy import ndimage
from skimage import measure

from data.phantom.bodies.eye import FIELD_MM, LESIONS, STRUCTURES, draw_eye
from data.phantom.devices.pictures import Frame

FRAME = Frame(160, FIELD_MM)
POINTS = FRAME.points()


@pytest.fixture(scope="module")
def eyes():
    """Seed -> eye and its masks."""
    drawn = {seed: draw_eye(np.random.default_rng(seed)) for seed in range(6)}
    return {seed: (eye, eye.masks(POINTS)) for seed, eye in drawn.items()}


def test_every_eye_shows_all_structures(eyes):
    for _, masks in eyes.values():
        assert tuple(masks) == STRUCTURES
        assert all(mask.any() for mask in masks.values())


def test_the_cup_is_within_the_disc(eyes):
    for _, masks in eyes.values():
        assert not (masks["cup"] & ~masks["disc"]).any()
        assert 0.1 < masks["cup"].sum() / masks["disc"].sum() < 0.5


def test_vessels_are_one_tree_from_the_disc(eyes):
    for _, masks in eyes.values():
        tree = masks["vessel"] | masks["disc"]
        sizes = np.array([part.area for part in measure.regionprops(np.asarray(measure.label(tree)))])
        assert len(sizes) < 12  # thin branches fall between pixels
        assert sizes.max() > 0.9 * tree.sum()


def test_trunks_have_two_to_four_pixels_at_96(eyes):
    pixel_mm = FIELD_MM / 96
    for eye, _ in eyes.values():
        widths_px = sorted(2 * piece.radius_mm / pixel_mm for piece in eye.vessels)
        assert 2 < widths_px[-4] < 4


def test_lesions_are_away_from_the_disc(eyes):
    for eye, masks in eyes.values():
        near = np.asarray(ndimage.distance_transform_edt(~masks["disc"])) * FRAME.pixel_mm < 0.1
        assert not any((masks[kind] & near).any() for kind in LESIONS)
        rows, columns = np.nonzero(masks["EX"])
        middle = POINTS[:, rows, columns].mean(axis=1)
        assert np.hypot(*(middle - eye.fovea)) < 1.5


def test_an_eye_without_a_kind_of_lesion_is_otherwise_the_same():
    with_all, without = (draw_eye(np.random.default_rng(3), lacks).masks(POINTS) for lacks in ((), ("SE",)))
    assert not without["SE"].any()
    for name in STRUCTURES:
        if name != "SE":
            np.testing.assert_array_equal(with_all[name], without[name])
