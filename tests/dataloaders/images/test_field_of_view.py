"""Field of view of fundus photographs: found, cut to a square, pasted back."""

import numpy as np
import pytest

from dataloaders.images.field_of_view import SquareCrop, crop_field, field_mask
from util.errors import DataError

FIELD = (70, 100)  # of the picture
CENTRE, RADIUS = (40, 55), 24


def photograph(with_strip=False, dtype=np.uint8, n_channels=3):
    """A disc of grey 100 with a dark spot; optionally a long strip above it."""
    rows, columns = np.indices(FIELD)
    image = np.zeros(FIELD, dtype)
    scale = 257 if dtype == np.uint16 else 1
    image[np.hypot(rows - CENTRE[0], columns - CENTRE[1]) <= RADIUS] = 100 * scale
    image[38:42, 50:54] = 0
    if with_strip:
        image[2:7, 5:95] = 200 * scale
    return np.repeat(image[..., None], 3, -1) if n_channels == 3 else image


@pytest.mark.parametrize("rule", ["largest", "legacy"])
def test_box_and_padding_equal_the_reference(golden_file, rule):
    golden = golden_file("partial/fov_crop.npz")
    image = golden["circle/image"][..., ::-1]  # stored as BGR; with a bright speck outside the field
    crop = crop_field(image, rule)
    box = (crop.crop_left_px, crop.crop_top_px, crop.crop_width_px, crop.crop_height_px)
    assert box == tuple(golden["circle/box_xywh"])
    assert crop.side_px == golden["circle/out_side"]
    bottom = crop.side_px - crop.crop_height_px - crop.pad_top_px
    right = crop.side_px - crop.crop_width_px - crop.pad_left_px
    assert (crop.pad_top_px, bottom, crop.pad_left_px, right) == tuple(golden["circle/pad_tblr"])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_box_by_hand_for_every_kind_of_image(dtype, n_channels):
    """Rows 16 to 64 and columns 31 to 79, and 2 px of dilation on each side."""
    crop = crop_field(photograph(dtype=dtype, n_channels=n_channels))
    assert crop == SquareCrop(70, 100, 14, 29, 53, 53)


def test_only_the_legacy_rule_takes_a_long_strip_for_the_field():
    image = photograph(with_strip=True)
    assert crop_field(image).crop_width_px == 53
    assert crop_field(image, "legacy").crop_width_px == 94


def test_an_odd_difference_pads_more_at_the_bottom_and_right():
    flat, tall = SquareCrop(9, 9, 1, 2, 2, 5), SquareCrop(9, 9, 1, 2, 6, 1)
    assert (flat.side_px, flat.pad_top_px, flat.pad_left_px) == (5, 1, 0)
    assert (tall.side_px, tall.pad_top_px, tall.pad_left_px) == (6, 0, 2)
    square = flat.to_square(np.ones((9, 9), np.uint8), fill=255)
    assert square[:, 0].tolist() == [255, 1, 1, 255, 255]


def test_a_whole_picture_is_only_padded():
    crop = SquareCrop.whole(2056, 2124)
    assert (crop.side_px, crop.pad_top_px, crop.pad_left_px) == (2124, 34, 0)


@pytest.mark.parametrize(
    "crop", [SquareCrop(9, 12, 1, 2, 4, 7), SquareCrop(9, 12, 0, 3, 9, 2), SquareCrop.whole(9, 12)]
)
@pytest.mark.parametrize("channels", [(), (3,)])
def test_a_map_returns_to_its_place(crop, channels):
    picture = np.random.default_rng(0).random((9, 12, *channels))
    back = crop.to_picture(crop.to_square(picture), fill=-1)
    inside = np.zeros((9, 12), bool)
    inside[crop.in_picture] = True
    np.testing.assert_array_equal(back[inside], picture[inside])
    assert (back[~inside] == -1).all()


def test_the_record_restores_the_crop():
    crop = SquareCrop(9, 12, 1, 2, 4, 7)
    assert SquareCrop.from_row(crop.to_row()) == crop
    assert SquareCrop.from_row({"original_height_px": "9", "original_width_px": "12"}) == SquareCrop.whole(9, 12)


def test_the_mask_is_the_field_with_its_dark_spots():
    rows, columns = np.indices(FIELD)
    disc = np.hypot(rows - CENTRE[0], columns - CENTRE[1]) <= RADIUS
    mask = field_mask(photograph())
    assert mask[38:42, 50:54].all()
    assert (disc & ~mask).sum() == 0
    assert (mask & ~disc).sum() <= 8  # closing fills steps of the outline


def test_an_image_without_a_field_is_an_error():
    with pytest.raises(DataError, match=r"brightest grey value is 20 of 255; expected .* above 20"):
        crop_field(np.full((30, 40, 3), 20, np.uint8))
    speck = np.zeros((90, 120), np.uint8)
    speck[40:42, 50:52] = 255
    with pytest.raises(DataError, match=r"bright region is 6 x 6 px in a picture of 90 x 120; expected .* 10% of each"):
        field_mask(speck)


def test_other_arrays_are_errors():
    with pytest.raises(DataError, match=r"shape \(5, 5, 4\) and type uint8; expected \(H, W\)"):
        crop_field(np.zeros((5, 5, 4), np.uint8))
    with pytest.raises(DataError, match="expected a box of at least one pixel within the picture"):
        SquareCrop(9, 9, 5, 0, 5, 5)
    with pytest.raises(DataError, match="a picture of 3 x 4 px; expected 9 x 9"):
        SquareCrop.whole(9, 9).to_square(np.zeros((3, 4)))
    with pytest.raises(DataError, match="a map on the square of 3 x 3 px; expected 9 x 9"):
        SquareCrop.whole(9, 9).to_picture(np.zeros((3, 3)))
