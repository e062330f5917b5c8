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
    back = Framing.from_row(row_of(shape, placement), len(prepared)).to_picture(prepared)
    assert back.dtype == bool
    np.testing.assert_array_equal(back, mask)


def test_the_record_restores_the_placement_and_its_absence_means_squeezed():
    placement = Placement.fit(30, 60, 32, "pad")
    assert Placement.from_row(placement.to_row(), 32) == placement
    assert Placement.from_row({"original_height_px": "5"}, 32) == Placement(32, 32, 32)


def test_label_maps_keep_their_values():
    label = np.array([[0, 2], [3, 1]], np.uint8)
    framing = Framing.from_row({"original_height_px": "4", "original_width_px": "2"}, len(label))
    assert framing.to_picture(label).tolist() == [*([[0, 2]] * 2), *([[3, 1]] * 2)]


def test_values_of_64_bits_do_not_wrap():
    assert resize_nearest(np.array([[500, 70_000]]), 1, 4).tolist() == [[500, 500, 70_000, 70_000]]


def test_values_of_every_type_are_taken_from_the_same_pixels():
    values = np.arange(32 * 17).reshape(32, 17) % 251
    expected = resize_nearest(values.astype(np.uint8), 90, 60)
    deep = resize_nearest((values * 256).astype(np.uint16), 90, 60)
    assert deep.dtype == np.uint16
    np.testing.assert_array_equal(deep // 256, expected)
    np.testing.assert_array_equal(resize_nearest(values > 100, 90, 60), expected > 100)
