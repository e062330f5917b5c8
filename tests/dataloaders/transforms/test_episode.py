import numpy as np
import pytest
import torch

from dataloaders.transforms import PRESETS, apply, draw
from dataloaders.transforms.intensity import gamma_correct


def generators(count, seed=0):
    return [np.random.default_rng([seed, index]) for index in range(count)]


def test_gamma_equals_the_reference(golden_file):
    golden = golden_file("fewshot/augmentation.npz")
    image = torch.from_numpy(golden["input"][..., :1]).permute(2, 0, 1)[None]
    corrected = gamma_correct(image, torch.tensor([float(golden["gamma0/gamma"])]))
    np.testing.assert_allclose(corrected[0, 0], golden["gamma0/output"][..., 0], atol=1e-5)


def test_augmentation_is_reproducible_and_independent_of_the_batch():
    config = PRESETS["sabs_aug"]
    image, mask = torch.randn(3, 1, 64, 64), torch.zeros(3, 64, 64, dtype=torch.bool)
    mask[:, 20:40, 20:40] = True
    drawn = draw(generators(3), config, (64, 64))
    images, masks = apply(image, mask, drawn, config)
    again, _ = apply(image, mask, draw(generators(3), config, (64, 64)), config)
    assert torch.equal(images, again)
    single = draw(generators(3)[1:2], config, (64, 64))
    one_image, one_mask = apply(image[1:2], mask[1:2], single, config)
    torch.testing.assert_close(one_image[0], images[1])
    assert torch.equal(one_mask[0], masks[1])


def test_image_and_mask_move_together():
    config = PRESETS["aug_v3"]
    mask = torch.zeros(6, 96, 96, dtype=torch.bool)
    mask[:, 30:60, 35:70] = True
    image = mask[:, None].float() * 3 - 1
    images, masks = apply(image, mask, draw(generators(6), config, (96, 96)), config)
    bright = images[:, 0] > images.amax((1, 2, 3))[:, None, None] * 0.99  # gamma keeps the maximum
    assert (bright & ~masks).sum() == 0
    assert not torch.equal(masks, mask)


@pytest.mark.parametrize("corner", [(slice(0, 2), slice(0, 2)), (slice(62, 64), slice(62, 64)), (slice(5, 6),) * 2])
def test_masks_never_become_empty(corner):
    config = PRESETS["aug_v3"]
    mask = torch.zeros(64, 64, 64, dtype=torch.bool)
    mask[:, *corner] = True
    image = torch.randn(64, 1, 64, 64)
    images, masks = apply(image, mask, draw(generators(64), config, (64, 64)), config)
    assert masks.flatten(1).any(1).all()
    stayed = (masks == mask).flatten(1).all(1)
    assert stayed.any()  # masks that the warp would have removed
    assert not stayed.all()
    assert images.isfinite().all()


def test_preset_none_is_the_identity():
    image, mask = torch.randn(2, 1, 32, 32), torch.rand(2, 32, 32) > 0.5
    config = PRESETS["none"]
    images, masks = apply(image, mask, draw(generators(2), config, (32, 32)), config)
    torch.testing.assert_close(images, image, atol=2e-4, rtol=1e-4)
    assert torch.equal(masks, mask)
