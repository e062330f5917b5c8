"""Strong views: image and label map move together, structures and contrast change as told, nothing else does."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from dataloaders.transforms.scan_views import UNKNOWN, ScanViewConfig, apply, draw, to_input
from util.errors import ConfigError

SIZE = 48
OFF = ScanViewConfig(**{each.name: 0.0 for each in fields(ScanViewConfig)})


def generators(*numbers):
    return [np.random.default_rng(number) for number in numbers]


def slices(n_slices=2):
    """Images that are 0 but 0.5 in class 1 and 1 in class 2, the same in three channels; a corner is unknown."""
    label = torch.zeros(n_slices, SIZE, SIZE, dtype=torch.uint8)
    label[:, 8:24, 10:26] = 1
    label[:, 26:40, 20:36] = 2
    image = (label.float() / 2)[:, None].repeat(1, 3, 1, 1)
    label[:, :6, :6] = UNKNOWN
    return image, label


def view(config, *numbers):
    image, label = slices(len(numbers))
    return apply(image, label, draw(generators(*numbers), config, n_classes=3))


def test_without_any_strength_nothing_changes():
    image, label = slices()
    found, moved = view(OFF, 1, 2)
    torch.testing.assert_close(found, image, atol=1e-5, rtol=0)
    assert torch.equal(moved, label)


@pytest.mark.parametrize(
    "geometry",
    [{"rotation_deg": 40.0}, {"scale": 0.4}, {"shear": 0.3}, {"shift": 0.2}, {"elastic": 0.04}],
    ids=lambda given: next(iter(given)),
)
def test_image_and_label_map_move_together(geometry):
    _, label = slices(3)
    found, moved = view(replace(OFF, **geometry), 3, 4, 5)
    assert not torch.equal(moved, label)
    assert not torch.equal(moved[0], moved[1])
    is_known = moved != UNKNOWN
    agree = ((found[:, 0] * 2).round() == moved)[is_known].float().mean()
    assert agree > 0.96  # but at the edges, where the image is a mixture
    assert torch.equal(found[:, 0], found[:, 1])
    assert set(moved.unique().tolist()) <= {0, 1, 2, UNKNOWN}


def test_the_brightness_of_structures_changes_within_them_alone():
    config = replace(OFF, structures=0.5, structures_p=1.0)
    image, label = slices(1)
    found, _ = view(config, 7)
    added = (found - image)[0, 0]
    inside = {value: added[_interior(label[0] == value)] for value in (0, 1, 2)}
    assert inside[0].abs().max() < 1e-5
    assert all(inside[value].std() < 1e-5 for value in (1, 2))
    assert all(inside[value].abs().mean() > 0.01 for value in (1, 2))
    assert abs(inside[1].mean() - inside[2].mean()) > 0.01
    never, _ = view(replace(config, structures_p=0.0), 7)
    torch.testing.assert_close(never, image, atol=1e-5, rtol=0)


def _interior(mask):
    """The pixels of a mask more than two pixels away from its edge."""
    return F.max_pool2d((~mask).float()[None], 5, 1, 2)[0] == 0


def test_contrast_follows_a_rising_curve_whose_ends_stay():
    ramp = torch.linspace(-1.5, 2.0, SIZE)
    image = ramp.expand(1, 1, SIZE, SIZE)
    drawn = draw(generators(8), replace(OFF, contrast=1.0, contrast_p=1.0), n_classes=1)
    found, _ = apply(image, torch.zeros(1, SIZE, SIZE, dtype=torch.uint8), drawn)
    row = found[0, 0, 0]
    assert (row.diff() > 0).all()
    outside = (ramp < -1) | (ramp > 1.5)
    torch.testing.assert_close(row[outside], ramp[outside], atol=1e-4, rtol=0)
    assert (row - ramp).abs().max() > 0.1


@pytest.mark.parametrize("brightness", [{"unevenness": 0.3}, {"gain": 0.2}, {"offset": 0.2}, {"noise": 0.1}])
def test_brightness_leaves_the_label_map_alone(brightness):
    image, label = slices()
    found, moved = view(replace(OFF, **brightness), 1, 2)
    assert torch.equal(moved, label)
    assert 0.001 < (found - image).abs().mean() < 0.3


def test_a_view_depends_on_its_own_generator_alone():
    image, label = view(ScanViewConfig(), 11, 12)
    alone, own = view(ScanViewConfig(), 12)
    torch.testing.assert_close(image[1:], alone)
    assert torch.equal(label[1:], own)
    again, _ = view(ScanViewConfig(), 11, 12)
    assert torch.equal(image, again)


def test_noise_has_the_drawn_standard_deviation():
    config = replace(OFF, noise=0.5)
    drawn = draw(generators(1), config, n_classes=1)
    plain, blank = torch.zeros(1, 3, 200, 200), torch.zeros(1, 200, 200, dtype=torch.uint8)
    found, _ = apply(plain, blank, drawn)
    assert found.std().item() == pytest.approx(drawn.noise.item(), rel=0.02)
    assert not torch.equal(found[:, 0], found[:, 1])


def test_input_has_the_range_of_the_pretraining():
    torch.testing.assert_close(to_input(torch.tensor([-1.4, 0.6, 2.6])), torch.tensor([-1.0, 0.0, 1.0]))


@pytest.mark.parametrize("wrong", [{"gain": 1.0}, {"scale": -0.1}, {"structures_p": 1.5}])
def test_impossible_strengths_are_refused(wrong):
    with pytest.raises(ConfigError, match=f"views.{next(iter(wrong))}"):
        ScanViewConfig(**wrong)
