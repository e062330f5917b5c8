"""Pictures of any aspect on the square, and back."""

import numpy as np
import pytest

from dataloaders.images.framing import Framing
from dataloaders.images.geometry import Placement, resize_nearest

SHAPES = [(40, 40), (30, 60), (61, 20), (7, 100), (33, 32)]


def row_of(shape, placement):
    return {"original_height_px": str(shape[0]), "original_width_px": str(shape[1]), **placement.to_row()}


@pytest.mark.parametrize("shape", SHAPES)
def test_padding_keeps_the_aspect_and_centres(shape):
    placement = Placement.fit(shape[0], shape[1], 32, "pad")
    assert max(placement.height_px, placement.width_px) == 32
    assert abs(placement.height_px / placement.width_px / (shape[0] / shape[1]) - 1) < 0.25
    square = placement.pad(np.ones((placement.height_px, placement.width_px, 3), np.uint16))
    assert square.shape == (32, 32, 3)
    assert square.dtype == np.uint16
    assert square[..., 0].sum() == placement.height_px * placement.width_px
    rows, columns = (np.flatnonzero(square[..., 0].any(axis)) for axis in (1, 0))
    assert abs(rows[0] - (31 - rows[-1])) <= 1
    assert abs(columns[0] - (31 - columns[-1])) <= 1


def test_sizes_by_hand():
    assert Placement.fit(48, 64, 32, "pad") == Placement(32, 24, 32, 4, 0)
    assert Placement.fit(64, 33, 32, "pad") == Placement(32, 32, 16, 0, 8)
    assert Placement.fit(48, 64, 32, "squeeze") == Placement(32, 32, 32)


@pytest.mark.parametrize("aspect", ["squeeze", "pad"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_round_trip_at_full_size_loses_nothing(shape, aspect):
    """The square is as large as the longer side, so that padding alone is undone; squeezing is undone by its factor."""
    size = max(shape) if aspect == "pad" else 4 * max(shape)
    mask = np.random.default_rng(0).random(shape) > 0.5
    placement = Placement.fit(shape[0], shape[1], size, aspect)
    prepared = placement.pad(resize_nearest(mask, placement.height_px, placement.width_px))
    framing = Framing.from_row(row_of(shape, placement), len(prepared))
    back = framing.to_picture(prepared[None].astype(np.float32))
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back[0] > 0.5, mask)


def test_the_record_restores_the_placement_and_its_absence_means_squeezed():
    placement = Placement.fit(30, 60, 32, "pad")
    assert Placement.from_row(placement.to_row(), 32) == placement
    assert Placement.from_row({"original_height_px": "5"}, 32) == Placement(32, 32, 32)


def test_probabilities_are_interpolated_at_the_centres_of_pixels():
    shares = np.array([[[0, 1], [0, 1]], [[1, 1], [0, 0]]], np.float32)
    framing = Framing.from_row({"original_height_px": "2", "original_width_px": "4"}, 2)
    first, second = framing.to_picture(shares)
    np.testing.assert_allclose(first, [[0, 0.25, 0.75, 1]] * 2)
    np.testing.assert_allclose(second, [[1] * 4, [0] * 4])


def test_outlines_are_smooth_where_the_prepared_grid_is_coarse():
    """A disc of 160 px, found on a grid of 16 by the share of each pixel that it covers, against nearest pixels."""
    rows, columns = np.mgrid[:320, :320] + 0.5
    disc = np.hypot(rows - 160, columns - 157) < 80
    shares = disc.reshape(16, 20, 16, 20).mean((1, 3), dtype=np.float32)
    framing = Framing.from_row({"original_height_px": "320", "original_width_px": "320"}, 16)
    smooth = framing.to_picture(shares[None])[0] > 0.5
    steps = np.kron(shares > 0.5, np.ones((20, 20), bool))
    assert (smooth != disc).sum() < 0.25 * (steps != disc).sum()


def test_values_of_64_bits_do_not_wrap():
    assert resize_nearest(np.array([[500, 70_000]]), 1, 4).tolist() == [[500, 500, 70_000, 70_000]]


def test_values_of_every_type_are_taken_from_the_same_pixels():
    values = np.arange(32 * 17).reshape(32, 17) % 251
    expected = resize_nearest(values.astype(np.uint8), 90, 60)
    deep = resize_nearest((values * 256).astype(np.uint16), 90, 60)
    assert deep.dtype == np.uint16
    np.testing.assert_array_equal(deep // 256, expected)
    np.testing.assert_array_equal(resize_nearest(values > 100, 90, 60), expected > 100)
