"""Crop, rotation, mirroring and blur of slices with their partners and labels."""

import numpy as np
import pytest
import torch

from dataloaders.transforms.slices import SLICE_PRESETS, SliceAugmentConfig, apply, apply_to_label, draw
from util.errors import ConfigError

NONE = SLICE_PRESETS["none"]


def generators(n, seed=0):
    return [np.random.default_rng([seed, i]) for i in range(n)]


def images(n=3, side=24):
    return torch.from_numpy(np.random.default_rng(3).random((n, 2, side, side), np.float32))


def test_without_augmentation_the_middle_is_cut_out():
    image, label = images(), torch.arange(3 * 24 * 24).view(3, 24, 24) % 5
    drawn = draw(generators(3), NONE, 24, 16, moves_crop=False)
    torch.testing.assert_close(apply(image, drawn), image[..., 4:20, 4:20], rtol=0, atol=1e-5)
    assert torch.equal(apply_to_label(label, drawn), label[:, 4:20, 4:20])


def test_a_moving_crop_stays_within_the_slice_and_reaches_all_of_it():
    ones = torch.ones(200, 1, 20, 20)
    drawn = draw(generators(200), NONE, 20, 16)
    torch.testing.assert_close(apply(ones, drawn), torch.ones(200, 1, 16, 16))
    shifts = {tuple(each) for each in drawn.matrix[:, :, 2].round().int().tolist()}
    assert {x for x, _ in shifts} == {y for _, y in shifts} == {0, 1, 2, 3, 4}


def test_a_quarter_turn_is_exact_for_image_and_label():
    image, label = images(side=16), torch.arange(3 * 256).view(3, 16, 16) % 7
    drawn = draw(generators(3), SliceAugmentConfig((90.0, 90.0), 0.0, (0.0, 0.0)), 16, 16)
    turned = apply(image, drawn)
    candidates = [torch.rot90(image, k, (-2, -1)) for k in (1, 3)]
    errors = [(turned - each).abs().max().item() for each in candidates]
    assert min(errors) < 1e-4
    assert torch.equal(apply_to_label(label, drawn), torch.rot90(label, (1, 3)[int(np.argmin(errors))], (-2, -1)))


def test_mirroring_flips_each_axis_for_about_half_of_the_slices():
    image = images(64, 12)
    drawn = draw(generators(64), SliceAugmentConfig((0.0, 0.0), 0.5, (0.0, 0.0)), 12, 12)
    found = apply(image, drawn)
    flips = [image, image.flip(-1), image.flip(-2), image.flip((-2, -1))]
    which = torch.stack([(found - each).abs().amax((1, 2, 3)) < 1e-4 for each in flips])
    assert which.any(0).all()
    assert (which.sum(1) > 5).all()


def test_the_label_moves_with_the_image():
    label = torch.zeros(8, 32, 32, dtype=torch.long)
    label[:, 8:20, 10:18] = 1
    drawn = draw(generators(8), SliceAugmentConfig((0.0, 90.0), 0.5, (0.0, 0.0)), 32, 28)
    moved = apply(label[:, None].float(), drawn)[:, 0] > 0.5
    assert ((moved != (apply_to_label(label, drawn) == 1)).float().mean((1, 2)) < 0.03).all()


def test_blur_smooths_and_keeps_the_mean():
    image = images(4)
    drawn = draw(generators(4), SliceAugmentConfig((0.0, 0.0), 0.0, (1.0, 1.25)), 24, 24)
    found = apply(image, drawn)
    assert (found.std((2, 3)) < 0.6 * image.std((2, 3))).all()
    torch.testing.assert_close(found.mean((2, 3)), image.mean((2, 3)), rtol=0.05, atol=0)


def test_parameters_belong_to_a_slice():
    both = draw(generators(2), SLICE_PRESETS["mms"], 24, 20)
    second = draw(generators(2)[1:], SLICE_PRESETS["mms"], 24, 20)
    assert torch.equal(both.matrix[1:], second.matrix)
    assert both.sigma_px is not None
    assert second.sigma_px is not None
    assert torch.equal(both.sigma_px[1:], second.sigma_px)


@pytest.mark.parametrize("settings", [{"rotation_deg": (90.0, 0.0)}, {"mirror_p": 1.5}, {"blur_sigma_px": (0.0, 1.0)}])
def test_impossible_ranges_are_refused(settings):
    with pytest.raises(ConfigError, match=r"aug\."):
        SliceAugmentConfig(**settings)
