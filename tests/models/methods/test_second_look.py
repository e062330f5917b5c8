"""Small structures are looked at again, enlarged."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F

from dataloaders.samples import EvalCase, SupportScan, SupportSet
from models.methods.calibration import CalibrationConfig
from models.methods.encoded_scans import Detail, EncodedScan, EncodedSupport, PlacedSupport
from models.methods.propagation import Propagation, PropagationConfig
from models.methods.second_look import (
    SecondLookConfig,
    cut_out,
    enlarge,
    largest,
    mean_box,
    put_back,
    surroundings,
    whole,
)
from models.networks.body import BodyBox
from models.networks.brightness import BrightnessConfig
from models.networks.displacement import Displacement
from util.errors import ConfigError

CONFIG = SecondLookConfig(below_cells=8.0, surroundings=1.0, surroundings_mm=10.0, enlargement=4.0, size_px=256)
SPACING_MM = (5.0, 2.0, 1.0)


def label_of(rows, columns, value=3):
    label = torch.zeros(4, 96, 96, dtype=torch.uint8)
    label[1:3, rows[0] : rows[1], columns[0] : columns[1]] = value
    return label


def part_of(label, config=CONFIG):
    part = surroundings(label, 3, SPACING_MM, config)
    assert part is not None
    return part


def test_a_small_structure_is_shown_with_its_surroundings():
    box, size = part_of(label_of((40, 50), (30, 34)))
    assert box == BodyBox(
        (29.5, 59.5), (19.5, 43.5)
    )  # its height on each side, and 10 mm, which are more than its width
    assert size == (120, 96)  # four times as large


def test_the_enlarged_part_has_a_largest_size():
    box, size = part_of(label_of((30, 50), (30, 40)), replace(CONFIG, size_px=96))
    assert box == BodyBox((9.5, 69.5), (19.5, 49.5))
    assert size == (96, 48)


def test_small_is_what_has_a_small_mean_area_on_the_slices_that_show_it():
    label = label_of((40, 62), (30, 53))  # 506 pixels, eight cells have 512
    assert surroundings(label, 3, SPACING_MM, CONFIG) is not None
    label[1:3, 62] = label[1:3, 61]
    assert surroundings(label, 3, SPACING_MM, CONFIG) is None


@pytest.mark.parametrize(("value", "below"), [(2, 8.0), (3, 0.0)])
def test_absent_structures_and_switched_off_looks_have_no_part(value, below):
    label = label_of((40, 50), (30, 34))
    assert surroundings(label, value, SPACING_MM, replace(CONFIG, below_cells=below)) is None


def test_a_part_is_enlarged_by_interpolation():
    image = torch.rand(2, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    part, spacing_mm = enlarge(image, SPACING_MM, BodyBox((3.5, 13.5), (5.5, 17.5)), (20, 36))
    known = F.interpolate(image, (40, 72), mode="bilinear", align_corners=False)[..., 8:28, 18:54]
    torch.testing.assert_close(part, known)
    assert spacing_mm == pytest.approx((5.0, 1.0, 1 / 3))


def test_beyond_the_image_its_edge_is_shown():
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    part = cut_out(image, BodyBox((-2.5, 1.5), (-0.5, 3.5)), (4, 4))
    torch.testing.assert_close(part[0, 0], image[0, 0, [0, 0, 0, 1]])


def test_a_part_is_put_back_at_its_place():
    image = torch.rand(2, 1, 20, 24, generator=torch.Generator().manual_seed(0))
    box = BodyBox((3.5, 13.5), (5.5, 17.5))
    there = put_back(cut_out(image, box, (10, 12)), box, (20, 24))
    torch.testing.assert_close(there[..., 4:14, 6:18], image[..., 4:14, 6:18])
    there[..., 4:14, 6:18] = 0
    assert not there.any()


def _scan(box):
    return EncodedScan(torch.zeros(4, 12, 12, 1), torch.zeros(4, 0), box, SPACING_MM, torch.ones(4, 12, 12).bool())


def _placed(box, found):
    support = EncodedSupport(_scan(box), torch.zeros(4, 12, 12, 2), torch.ones(4).bool())
    return PlacedSupport(support, torch.zeros(4), found, None)


def test_a_part_is_looked_for_at_its_place_in_the_body_where_the_structure_was_found():
    own, query = BodyBox((0.0, 100.0), (0.0, 50.0)), _scan(BodyBox((10.0, 60.0), (0.0, 100.0)))
    placed = _placed(own, None)
    detail = Detail(BodyBox((20.0, 40.0), (10.0, 20.0)), (80, 40), placed.support)
    there = detail.box_in(query, placed, 0)
    assert [*there.rows, *there.columns] == pytest.approx([20, 30, 20, 40])
    nothing, twice = torch.zeros(3), torch.tensor([1.0, 2.0, 1.0])
    found = Displacement(
        torch.stack([nothing, torch.tensor([0.0, 0.1, -0.2])]),
        torch.stack([twice, twice]),
        torch.stack([nothing, torch.tensor([0.0, 0.3, 0.3])]),
    )
    there = detail.box_in(query, _placed(own, found), 1)
    assert [*there.rows, *there.columns] == pytest.approx([20, 40, 0, 20])


def test_several_scans_agree_on_a_part():
    boxes = BodyBox((0.0, 4.0), (1.0, 2.0)), BodyBox((2.0, 8.0), (3.0, 5.0))
    assert mean_box(boxes) == BodyBox((1.0, 6.0), (2.0, 3.5))
    details = [Detail(whole(size), size, _placed(whole(size), None).support) for size in ((80, 40), (64, 64))]
    assert largest(details) == (80, 64)


def body(move=0, seed=0, small=4):
    """A scan with a large and a small structure, and its labels."""
    _, y, x = torch.meshgrid(torch.arange(8), torch.arange(128), torch.arange(128), indexing="ij")
    label = torch.zeros(8, 128, 128, dtype=torch.uint8)
    label[(y - 40 - move) ** 2 + (x - 44) ** 2 <= 20**2] = 1
    label[(y - 84) ** 2 + (x - 80 - move) ** 2 <= small**2] = 2
    label[[0, 7]] = 0
    inside = ((y - 64) / 58.0) ** 2 + ((x - 64) / 60.0) ** 2 <= 1
    noise = torch.randn(label.shape, generator=torch.Generator().manual_seed(seed))
    image = inside * (1 + torch.sin(y / 9.0) / 5) + 1.0 * (label == 1) + 2.0 * (label == 2) + 0.05 * noise
    return ((image - image.mean()) / image.std())[:, None], label


def dice_of_both(below_cells, *known, annotation: Literal["all", "labelled", "parts"] = "all"):
    torch.manual_seed(0)
    method = Propagation(
        PropagationConfig(
            "resnet18",
            "none",
            annotation=annotation,
            enlargements=(1.0,),
            brightness=BrightnessConfig(levels=()),
            calibration=CalibrationConfig(copies=0),
            second_look=SecondLookConfig(below_cells=below_cells),
        )
    )
    slices = torch.tensor([[2, 4, 5]] * 2)
    scans = tuple(SupportScan(image, label, (5.0, 1.5, 1.5), slices) for image, label in known)
    empty = torch.zeros(2, 3, len(known), 1, 8, 8)
    support = method.encode_support(SupportSet((1, 2), empty, empty[:, :, :, 0] > 0, scans))
    image, label = body(move=6, seed=1)
    part = torch.zeros(2, len(image), dtype=torch.long)
    case = EvalCase("1", (1, 2), image, part, spacing_mm=(5.0, 1.5, 1.5))
    probabilities = method.probabilities(case, support)
    assert probabilities.min() >= 0
    assert probabilities.sum(0).max() <= 1 + 1e-6
    masks, truth = method.masks(probabilities), torch.stack([label == 1, label == 2])
    return 2 * (masks & truth).sum((1, 2, 3)) / (masks.sum((1, 2, 3)) + truth.sum((1, 2, 3)))


def test_a_small_structure_is_found_by_the_second_look_only():
    plain, again = dice_of_both(0.0, body()), dice_of_both(8.0, body())
    assert plain[1] < 0.3
    assert again[1] > 0.75
    assert again[0] == pytest.approx(plain[0].item(), abs=0.02)


def test_an_enlarged_part_follows_the_image_by_widths_of_structures_of_usual_size(monkeypatch):
    """By its own pixels, which are a quarter as large, thin structures would be smoothed away."""
    seen, inner = [], Propagation._follow_image

    def spy(self, image, maps, spacing_mm):
        seen.append((image.shape[-1], spacing_mm))
        return inner(self, image, maps, spacing_mm)

    monkeypatch.setattr(Propagation, "_follow_image", spy)
    dice_of_both(8.0, body())
    assert len({size for size, _ in seen}) == 2  # the whole slice, and the part
    assert {spacing_mm for _, spacing_mm in seen} == {(5.0, 1.5, 1.5)}


def test_all_structures_may_be_looked_at_again():
    assert dice_of_both(100.0, body()).min() > 0.75


@pytest.mark.parametrize("annotation", ["labelled", "parts"])
def test_a_small_structure_is_found_from_fewer_annotated_slices(annotation):
    assert dice_of_both(8.0, body(), annotation=annotation)[1] > 0.7


def test_annotated_scans_of_which_some_need_no_second_look_and_their_order():
    one, other = body(), body(seed=3, small=14)
    together, exchanged = dice_of_both(8.0, one, other), dice_of_both(8.0, other, one)
    torch.testing.assert_close(together, exchanged, atol=0.01, rtol=0)
    assert together[1] > 0.6


def test_labels_of_slices_that_are_not_annotated_do_not_count():
    image, label = body()
    changed = label.clone()
    changed[3] = 2
    assert torch.equal(
        dice_of_both(8.0, (image, label), annotation="parts"), dice_of_both(8.0, (image, changed), annotation="parts")
    )


@pytest.mark.parametrize("wrong", [{"below_cells": -1.0}, {"enlargement": 0.5}, {"size_px": 8}, {"surroundings": -1.0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"second_look.{next(iter(wrong))}"):
        SecondLookConfig(**wrong)
