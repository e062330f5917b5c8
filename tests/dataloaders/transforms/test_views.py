"""Views: where their pixels come from, what is outside, and what strong views change."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tvf

from dataloaders.transforms import views
from dataloaders.transforms.views import VIEW_PRESETS, ViewConfig
from util.errors import ConfigError

SIDE = 24
STILL = VIEW_PRESETS["none"]


def config(**changes):
    return ViewConfig(**{**vars(STILL), **changes})


def generators(n=1, seed=0):
    return [np.random.default_rng([seed, number]) for number in range(n)]


def image(n=1, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).random((n, 3, SIDE, SIDE), np.float32))


def test_without_changes_the_whole_image_is_seen_as_it_is():
    drawn = views.draw(generators(), STILL, SIDE, SIDE)
    moved, inside = views.move(image(), drawn)
    assert inside.all()
    torch.testing.assert_close(moved, image(), atol=1e-5, rtol=0)
    strong = views.draw(generators(), STILL, SIDE, SIDE, is_strong=True)
    disturbed, kept = views.disturb(moved, strong, ViewConfig())
    assert kept.all()
    torch.testing.assert_close(disturbed, moved, atol=1e-5, rtol=0)


def test_a_crop_is_a_part_of_the_image_and_every_part_is_drawn():
    places = set()
    whole = image()
    for number in range(60):
        moved, inside = views.move(whole, views.draw(generators(seed=number), STILL, SIDE, SIDE - 2))
        found = [
            (y, x)
            for y in range(3)
            for x in range(3)
            if (moved[0] - whole[0, :, y : y + SIDE - 2, x : x + SIDE - 2]).abs().max() < 1e-4
        ]
        assert inside.all()
        assert len(found) == 1
        places |= set(found)
    assert len(places) == 9


@pytest.mark.parametrize(("key", "axis"), [("mirror_columns_p", -1), ("mirror_rows_p", -2)])
def test_mirrors(key, axis):
    drawn = views.draw(generators(), config(**{key: 1.0}), SIDE, SIDE)
    torch.testing.assert_close(views.move(image(), drawn)[0], image().flip(axis), atol=1e-5, rtol=0)
    strong = views.draw(generators(), config(**{key: 1.0}), SIDE, SIDE, is_strong=True)
    expected = image().flip(axis) if axis == -1 else image()
    torch.testing.assert_close(views.move(image(), strong)[0], expected, atol=1e-5, rtol=0)


def test_every_image_can_have_a_probability_of_its_own_to_be_mirrored():
    own = np.array([1.0, 0.0, 1.0])
    drawn = views.draw(generators(3), STILL, SIDE, SIDE, mirror_columns_p=own)
    expected = torch.stack([each.flip(-1) if p else each for each, p in zip(image(3), own, strict=True)])
    torch.testing.assert_close(views.move(image(3), drawn)[0], expected, atol=1e-5, rtol=0)


def test_a_quarter_turn_and_its_labels():
    drawn = views.draw(generators(), config(rotations_deg=(90.0,)), SIDE, SIDE)
    expected = torch.rot90(image(), 1, (2, 3))
    moved = views.move(image(), drawn)[0]
    if (moved - expected).abs().max() > 1e-4:
        expected = torch.rot90(image(), -1, (2, 3))
    torch.testing.assert_close(moved, expected, atol=1e-4, rtol=0)
    labels = (image() * 2**20).long()
    torch.testing.assert_close(views.move_labels(labels, drawn).float() / 2**20, expected, atol=1e-4, rtol=0)
    still = views.draw(generators(), config(rotations_deg=(90.0,)), SIDE, SIDE, is_strong=True)
    torch.testing.assert_close(views.move(image(), still)[0], image(), atol=1e-5, rtol=0)


def test_half_the_scale_shows_twice_as_much_and_a_margin_does_not_count():
    drawn = views.draw(generators(), config(scale=(0.5, 0.5)), SIDE, SIDE)
    ramp = torch.arange(SIDE).float().expand(1, 1, SIDE, SIDE)
    moved, inside = views.move(ramp, drawn)
    assert inside.sum() == (SIDE // 2) ** 2
    assert inside[0, SIDE // 4 : 3 * SIDE // 4, SIDE // 4 : 3 * SIDE // 4].all()
    row = moved[0, 0, SIDE // 2, SIDE // 4 : 3 * SIDE // 4]
    torch.testing.assert_close(row, torch.arange(SIDE // 2) * 2 + 0.5, atol=1e-4, rtol=0)
    assert not views.move_labels(torch.ones(1, 1, SIDE, SIDE, dtype=torch.int32), drawn)[0, 0][~inside[0]].any()


def test_colours_change_as_torchvision_changes_them():
    strong = config(colour_p=1.0, brightness=0.3, contrast=0.3, saturation=0.3, hue=0.0)
    drawn = views.draw(generators(4), strong, SIDE, SIDE, is_strong=True)
    plain = 0.3 + 0.3 * image(4)  # so that nothing is clipped
    found, _ = views.disturb(plain, drawn, ViewConfig())
    for one, own, factors in zip(found, plain, drawn.factors.tolist(), strict=True):
        expected = tvf.adjust_saturation(
            tvf.adjust_contrast(tvf.adjust_brightness(own, factors[0]), factors[1]), factors[2]
        )
        torch.testing.assert_close(one, expected, atol=2e-3, rtol=0)
    assert len(set(drawn.factors.flatten().tolist())) == 12


def test_a_third_of_the_circle_permutes_the_channels_and_grey_stays():
    drawn = views.draw(generators(), STILL, SIDE, SIDE, is_strong=True)
    turned = views.disturb(image(), replace(drawn, hue=torch.tensor([1 / 3])), ViewConfig())[0]
    found = [order for order in (1, 2) if (turned - image().roll(order, 1)).abs().median() < 1e-3]
    assert found
    grey = image().mean(1, keepdim=True).expand(-1, 3, -1, -1)
    torch.testing.assert_close(
        views.disturb(grey, replace(drawn, hue=torch.tensor([0.2])), ViewConfig())[0],
        grey,
        atol=1e-5,
        rtol=0,
    )
    gone = views.disturb(image(), replace(drawn, grey=torch.ones(1)), ViewConfig())[0]
    assert (gone.amax(1) - gone.amin(1)).max() < 1e-5


def test_holes_have_their_share_do_not_count_and_are_filled_with_noise():
    drawn = views.draw(generators(50), config(hole_p=1.0), SIDE, SIDE, is_strong=True)
    flat = torch.full((50, 3, SIDE, SIDE), 0.5)
    found, kept = views.disturb(flat, drawn, ViewConfig())
    share = (~kept).float().mean((1, 2))
    assert 0.01 < share.min() < 0.1
    assert 0.3 < share.max() < 0.45
    assert torch.equal((found != 0.5).any(1), ~kept)
    assert found.min() >= 0
    assert found.max() <= 1
    never = views.draw(generators(50), config(hole_p=0.0), SIDE, SIDE, is_strong=True)
    assert views.disturb(flat, never, ViewConfig())[1].all()


def test_blur_spares_what_was_not_drawn():
    drawn = views.draw(generators(40), config(blur_p=0.5), SIDE, SIDE, is_strong=True)
    found, _ = views.disturb(image(40), drawn, ViewConfig())
    is_blurred = drawn.sigma_px > 0
    assert 10 < is_blurred.sum() < 30
    changed = (found - image(40)).abs().amax((1, 2, 3)) > 1e-3
    assert not changed[~is_blurred].any()
    assert changed[drawn.sigma_px > 0.5].all()


def test_the_kernel_is_as_large_as_the_largest_blur_needs():
    wide = config(blur_p=1.0, blur_sigma_px=(5.0, 5.0))
    drawn = views.draw(generators(), wide, SIDE, SIDE, is_strong=True)
    point = torch.zeros(1, 3, SIDE, SIDE)
    point[..., SIDE // 2, SIDE // 2] = 1.0
    found = views.disturb(point, drawn, wide)[0][0, 0]
    assert found[SIDE // 2, SIDE // 2 + 9] > 0
    assert found[SIDE // 2, SIDE // 2 + 5] / found[SIDE // 2, SIDE // 2] == pytest.approx(math.exp(-0.5), rel=1e-3)


def test_grey_images_have_no_colour_to_change():
    drawn = views.draw(generators(2), ViewConfig(), SIDE, SIDE, is_strong=True)
    assert views.disturb(image(2)[:, :1], drawn, ViewConfig())[0].shape == (2, 1, SIDE, SIDE)


def test_a_view_depends_on_its_own_generator_alone():
    together = views.draw(generators(3), ViewConfig(), SIDE, 16, is_strong=True)
    alone = views.draw(generators(3)[1:2], ViewConfig(), SIDE, 16, is_strong=True)
    for name in ("matrix", "factors", "hue", "sigma_px", "hole", "seeds"):
        assert torch.equal(getattr(together, name)[1:2], getattr(alone, name)), name


@pytest.mark.parametrize(
    "changes",
    [{"scale": (0.0, 1.0)}, {"scale": (2.0, 1.0)}, {"rotations_deg": ()}, {"hole_area": (0.1, 1.5)}, {"hue": 0.7}],
)
def test_impossible_ranges_are_refused(changes):
    with pytest.raises(ConfigError, match=f"aug.{next(iter(changes))}"):
        config(**changes)
