"""Pictures on their way to the prepared square and back, with and without a field of view that is cut out."""

import numpy as np
import pytest

from dataloaders.images.framing import Framing
from dataloaders.rules import GridRule
from util.errors import ConfigError

FUNDUS = GridRule(size_px=32, aspect="pad", field="largest")


def photograph(height=40, width=60, radius=15, centre=(18, 33)):
    row, column = np.mgrid[:height, :width]
    inside = np.hypot(row - centre[0], column - centre[1]) <= radius
    return (inside[..., None] * np.array([200, 120, 60])).astype(np.uint8), inside


def to_picture(framing, mask):
    return framing.to_picture(mask[None].astype(np.float32))[0] > 0.5


def test_the_field_fills_the_prepared_square():
    picture, inside = photograph()
    framing = Framing.of(picture, FUNDUS, 32)
    image = framing.image_to_square(picture)
    assert image.shape == (32, 32, 3)
    assert image[16, [2, 29], 0].min() > 100
    assert image[[2, 29], 16, 0].min() > 100
    mask = framing.mask_to_square(inside)
    back = to_picture(framing, mask)
    assert back.shape == (40, 60)
    assert (back & inside).sum() > 0.93 * inside.sum()
    assert not back[:, :10].any()


def test_the_manifest_restores_the_way_back():
    picture, inside = photograph()
    for grid in (FUNDUS, GridRule(size_px=32), GridRule(size_px=32, aspect="pad")):
        framing = Framing.of(picture, grid, 32)
        assert Framing.from_row(framing.to_row(grid), 32) == framing
        assert framing.mask_to_square(inside).shape == (32, 32)
        assert to_picture(framing, framing.mask_to_square(inside)).shape == inside.shape


def test_padding_is_background_whatever_a_raw_value_of_0_meant():
    """Class values come before the way to the square, in which 0 is nothing."""
    picture, inside = photograph()
    framing = Framing.of(picture, FUNDUS, 32)
    wide = Framing.of(np.concatenate([picture[:20], picture[20:]], 0), FUNDUS, 32)
    assert wide == framing
    square = framing.mask_to_square(np.where(inside, 2, 1).astype(np.uint8))
    assert set(np.unique(square)) <= {0, 1, 2}


def test_the_field_is_padded_not_squeezed():
    with pytest.raises(ConfigError, match="expected aspect='pad'"):
        GridRule(field="largest")
