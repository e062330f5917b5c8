import logging

import pytest
import torch

from models.networks.body import BodyBox, BodyConfig, find_body, find_inside, relative_places


def scan(rows=(16, 48), columns=(10, 30), size=64):
    image = torch.zeros(4, 1, size, size)
    image[..., rows[0] : rows[1], columns[0] : columns[1]] = 1
    return image


def test_the_box_leaves_out_the_same_share_on_each_side():
    box = find_body(scan(), BodyConfig(tail=0.25))
    assert box.rows == pytest.approx((23.5, 39.5))  # 32 rows from edge 15.5; a quarter is 8
    assert box.columns == pytest.approx((14.5, 24.5))


@pytest.mark.parametrize(("scale", "offset"), [(1, 0), (0.01, -5), (300, 1000)])
def test_the_box_does_not_depend_on_the_unit_of_intensities(scale, offset):
    image = scan() + 0.1 * torch.rand(4, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    box, other = find_body(image, BodyConfig()), find_body(scale * image + offset, BodyConfig())
    assert other.rows == pytest.approx(box.rows, abs=0.01)
    assert other.columns == pytest.approx(box.columns, abs=0.01)


def test_a_flipped_scan_has_a_flipped_box():
    box, flipped = find_body(scan(), BodyConfig()), find_body(scan().flip(2, 3), BodyConfig())
    assert flipped.rows == pytest.approx((63 - box.rows[1], 63 - box.rows[0]))
    assert flipped.columns == pytest.approx((63 - box.columns[1], 63 - box.columns[0]))


@pytest.mark.parametrize("image", [torch.full((3, 1, 32, 32), 7.0), scan((5, 7), (9, 11), 32)])
def test_without_a_body_the_whole_image_counts(image, caplog):
    with caplog.at_level(logging.WARNING):
        assert find_body(image, BodyConfig(threshold=1.0)) == BodyBox((0.0, 31.0), (0.0, 31.0))
    assert "no body found" in caplog.text


def test_places_are_relative_to_the_box():
    row, column = relative_places(BodyBox((3.5, 11.5), (3.5, 19.5)), (2, 3), 8)
    assert row.tolist() == [0, 1]
    assert column.tolist() == [0, 0.5, 1]


def test_dark_organs_are_inside_and_air_is_not():
    image = scan()
    image[..., 24:32, 14:20] = 0  # a hole, such as bowel gas
    inside = find_inside(image, BodyConfig(), (16, 16))
    assert inside[:, 4:12, 3:7].all()
    around = inside.clone()
    around[:, 3:13, 1:9] = False  # the body with one cell around it
    assert not around.any()


def test_without_a_body_all_cells_are_inside():
    assert find_inside(torch.full((3, 1, 32, 32), 7.0), BodyConfig(), (4, 4)).all()
