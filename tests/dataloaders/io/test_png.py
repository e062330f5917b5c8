"""PNG files of both depths, out and in."""

import numpy as np
import pytest
from PIL import Image

from dataloaders.io.png import read_image, to_8_bit, write_png
from util.errors import DataError


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("shape", [(5, 7), (5, 7, 3)])
def test_images_come_back_as_they_were(tmp_path, dtype, shape):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)
    write_png(tmp_path / "a.png", image)
    found = read_image(tmp_path / "a.png")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, image)


def test_other_kinds_are_refused(tmp_path):
    Image.fromarray(np.zeros((2, 2, 4), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: uint8 of shape \(2, 2, 4\); expected grey or RGB of 8 or 16 bits"):
        read_image(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes(b"none")
    with pytest.raises(DataError, match=r"a\.png: cannot be read as an image"):
        read_image(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"b\.png: no such file"):
        read_image(tmp_path / "b.png")


def test_deep_images_are_shown_from_their_darkest_to_their_brightest_value():
    assert to_8_bit(np.array([[0, 257, 65_535]], np.uint16)).tolist() == [[0, 1, 255]]
    assert to_8_bit(np.array([[95, 2095, 4095]], np.uint16)).tolist() == [[0, 128, 255]]  # 12 bits
    assert to_8_bit(np.full((1, 2), 700, np.uint16)).tolist() == [[0, 0]]
    assert to_8_bit(np.array([[0, 255]], np.uint8)).tolist() == [[0, 255]]
