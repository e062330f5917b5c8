from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from dataloaders.transforms import dense
from dataloaders.transforms.dense import DENSE_PRESETS, DenseAugmentConfig
from util.errors import ConfigError

IDENTITY = DENSE_PRESETS["none"]
ALWAYS = replace(DENSE_PRESETS["nnunet"], **{f.name: 1.0 for f in fields(IDENTITY) if f.name.endswith("_p")})


def generators(count, seed=0):
    return [np.random.default_rng([seed, index]) for index in range(count)]


def batch(count=4, channels=3, rows=32, columns=32):
    random = torch.Generator().manual_seed(1)
    image = torch.rand(count, channels, rows, columns, generator=random) * 2 - 1
    label = torch.randint(0, 3, (count, rows, columns), generator=random)
    superpixel = torch.arange(rows)[:, None] // 4 * 10 + torch.arange(columns) // 4
    return image, (label, superpixel.expand(count, -1, -1).clone())


def augmented(config, count=4, seed=0, **sizes):
    image, labels = batch(count, **sizes)
    return dense.apply(image, labels, dense.draw(generators(count, seed), config, image.shape[1:]), config)


def assert_same(one, other, atol=0.0):
    torch.testing.assert_close(one[0], other[0], atol=atol, rtol=0)
    for mine, yours in zip(one[1], other[1], strict=True):
        assert torch.equal(mine, yours)


@pytest.mark.parametrize("config", [*DENSE_PRESETS.values(), ALWAYS])
def test_augmentation_is_reproducible(config):
    assert_same(augmented(config), augmented(config))


@pytest.mark.parametrize("seed", range(3))
def test_a_sample_does_not_depend_on_its_batch(seed):
    image, labels = batch()
    together = augmented(ALWAYS, seed=seed)
    for k in range(4):
        drawn = dense.draw(generators(4, seed)[k : k + 1], ALWAYS, image.shape[1:])
        alone = dense.apply(image[k : k + 1], tuple(x[k : k + 1] for x in labels), drawn, ALWAYS)
        assert_same(alone, (together[0][k : k + 1], tuple(x[k : k + 1] for x in together[1])), atol=1e-5)


def test_no_step_shifts_the_draws_of_another():
    quiet = replace(ALWAYS, zoom_p=0.0, noise_p=0.0, blur_channel_p=0.0)
    one = dense.draw(generators(5), ALWAYS, (3, 32, 32))
    other = dense.draw(generators(5), quiet, (3, 32, 32))
    assert len(other.zoomed.index) == len(other.noisy.index) == len(other.blurred.index) == 0
    for name in ("brightness", "contrast", "low_resolution", "negative_gamma", "gamma"):
        assert torch.equal(getattr(one, name).index, getattr(other, name).index)
        assert torch.equal(getattr(one, name).value, getattr(other, name).value)


def test_preset_none_is_the_identity_and_arguments_are_not_modified():
    assert_same(augmented(IDENTITY), batch())
    image, labels = batch()
    changed, _ = dense.apply(image, labels, dense.draw(generators(4), ALWAYS, (3, 32, 32)), ALWAYS)
    assert_same((image, labels), batch())
    assert (changed != image).flatten(1).any(1).all()


def test_planes_without_a_step_stay_bit_identical():
    image, labels = batch(64, rows=16, columns=16)
    config = replace(ALWAYS, rotation_p=0.0, zoom_p=0.5, mirror_p=0.0, low_resolution_p=0.3)
    config = replace(config, **{f"{name}_p": 0.1 for name in ("noise", "blur", "brightness", "contrast", "gamma")})
    config = replace(config, negative_gamma_p=0.1)
    drawn = dense.draw(generators(64), config, (3, 16, 16))
    changed, (label, superpixel) = dense.apply(image, labels, drawn, config)
    touched_samples, touched = torch.zeros(64, dtype=torch.bool), torch.zeros(64 * 3, dtype=torch.bool)
    touched_samples[drawn.zoomed.index] = True
    for name in ("noisy", "blurred", "brightness", "contrast", "low_resolution", "negative_gamma", "gamma"):
        touched[getattr(drawn, name).index] = True
    touched = touched.view(64, 3) | touched_samples[:, None]
    assert 0 < touched.sum() < touched.numel()
    assert torch.equal((changed != image).flatten(2).any(2), touched)
    assert torch.equal(label[~touched_samples], labels[0][~touched_samples])
    assert torch.equal(superpixel[~touched_samples], labels[1][~touched_samples])


def test_channels_last_gives_the_same_result():
    image, labels = batch()
    drawn = dense.draw(generators(4), ALWAYS, image.shape[1:])
    other = dense.apply(image.contiguous(memory_format=torch.channels_last), labels, drawn, ALWAYS)
    assert_same(dense.apply(image, labels, drawn, ALWAYS), other, atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        replace(IDENTITY, rotation_p=1.0),
        replace(IDENTITY, mirror_p=0.7),
        replace(IDENTITY, rotation_p=0.5, mirror_p=0.5),
    ],
)
def test_image_and_labels_are_rotated_and_mirrored_together(config):
    label = torch.arange(64).view(1, 8, 8).repeat(20, 1, 1)
    image, (rotated, second) = dense.apply(
        label[:, None].float(), (label, label + 5), dense.draw(generators(20), config, (1, 8, 8)), config
    )
    assert torch.equal(image[:, 0].long(), rotated)
    assert torch.equal(second, rotated + 5)
    assert len(rotated.unique(dim=0)) >= 3  # 90, 180 and 270 degrees; none, one or both axes


def test_image_and_labels_are_zoomed_together():
    config = replace(IDENTITY, zoom_p=1.0, zoom=(0.85, 0.9))
    disc = ((torch.arange(40)[:, None] - 14) ** 2 + (torch.arange(40) - 22) ** 2 < 10**2).long().repeat(5, 1, 1)
    drawn = dense.draw(generators(5), config, (1, 40, 40))
    image, (label, second) = dense.apply(disc[:, None].float(), (disc, disc + 3), drawn, config)
    assert ((image[:, 0] > 0.5) != (label == 1)).float().mean() < 0.003
    assert torch.equal(second, label + 3)
    assert (label.sum((1, 2)) > 1.15 * disc.sum((1, 2))).all()  # 1 / 0.9 ** 2 = 1.23


def test_rotation_of_a_small_array():
    config = replace(IDENTITY, rotation_p=1.0)
    drawn = dense.draw(generators(12), config, (1, 2, 2))
    label = torch.tensor([[1, 2], [3, 4]]).repeat(12, 1, 1)
    _, (rotated,) = dense.apply(label[:, None].float(), (label,), drawn, config)
    expected = ([[2, 4], [1, 3]], [[4, 3], [2, 1]], [[3, 1], [4, 2]])  # counter-clockwise by 90, 180, 270 degrees
    for samples, corners in zip(drawn.rotated, expected, strict=True):
        assert len(samples)
        assert all(rotated[k].tolist() == corners for k in samples)


@pytest.mark.parametrize(
    ("config", "shape"),
    [(replace(ALWAYS, only_half_turns=True), (1, 8, 8)), (ALWAYS, (1, 8, 12)), (DENSE_PRESETS["nnunet180"], (1, 8, 8))],
)
def test_half_turns_only_if_configured_or_not_square(config, shape):
    quarter, half, three_quarter = dense.draw(generators(50), config, shape).rotated
    assert len(quarter) == len(three_quarter) == 0
    assert len(half) > 0


def test_non_square_images_pass_every_step():
    image, (label, superpixel) = augmented(ALWAYS, channels=1, rows=24, columns=56)
    assert image.shape == (4, 1, 24, 56)
    assert image.isfinite().all()
    assert set(label.unique().tolist()) == {0, 1, 2}
    assert set(superpixel.unique().tolist()) <= {10 * row + column for row in range(6) for column in range(14)}


def test_mirroring_of_a_small_array():
    config = replace(IDENTITY, mirror_p=1.0)
    label = torch.tensor([[[1, 2, 3], [4, 5, 6]]])
    _, (mirrored,) = dense.apply(label[:, None].float(), (label,), dense.draw(generators(1), config, (1, 2, 3)), config)
    assert mirrored.tolist() == [[[6, 5, 4], [3, 2, 1]]]


def test_steps_have_the_configured_probability():
    config, count = DENSE_PRESETS["nnunet"], 4000
    drawn = dense.draw(generators(count), config, (3, 16, 16))
    frequency = lambda index, total=count: pytest.approx(len(index) / total, abs=0.025)  # noqa: E731 - about three standard deviations
    for samples in drawn.rotated:
        assert frequency(samples) == config.rotation_p / 3
    for samples in drawn.mirrored:
        assert frequency(samples) == config.mirror_p
    assert frequency(drawn.zoomed.index) == config.zoom_p
    planes = 3 * count
    assert frequency(drawn.noisy.index, planes) == config.noise_p
    assert frequency(drawn.blurred.index, planes) == config.blur_p * config.blur_channel_p
    assert frequency(drawn.brightness.index, planes) == config.brightness_p
    assert frequency(drawn.contrast.index, planes) == config.contrast_p
    assert frequency(drawn.low_resolution.index, planes) == config.low_resolution_p * config.low_resolution_channel_p
    assert frequency(drawn.negative_gamma.index, planes) == config.negative_gamma_p
    assert frequency(drawn.gamma.index, planes) == config.gamma_p
    assert len(drawn.noise_seeds.unique()) == len(drawn.noisy.index)
    assert len((drawn.blurred.index // 3).unique()) / count == pytest.approx(0.2 * 7 / 8, abs=0.025)


def test_strengths_cover_their_ranges():
    config = DENSE_PRESETS["nnunet"]
    drawn = dense.draw(generators(4000), config, (3, 16, 16))
    for name, (low, high) in {
        "zoomed": config.zoom,
        "noisy": config.noise_sd,
        "blurred": config.blur_sigma_px,
        "brightness": config.brightness,
        "low_resolution": config.low_resolution,
    }.items():
        value = getattr(drawn, name).value
        assert low <= value.min() < low + 0.05 * (high - low)
        assert high >= value.max() > high - 0.05 * (high - low)
        assert value.mean().item() == pytest.approx((low + high) / 2, abs=0.05 * (high - low))
    for name, (low, high) in {"contrast": config.contrast, "gamma": config.gamma}.items():
        value = getattr(drawn, name).value
        assert low <= value.min() < value.max() <= high
        assert (value < 1).float().mean().item() == pytest.approx(0.5, abs=0.04)
        assert value[value > 1].mean().item() == pytest.approx((1 + high) / 2, abs=0.02)
        assert value[value < 1].mean().item() == pytest.approx((1 + low) / 2, abs=0.02)


def test_noise_has_one_strength_per_image_and_a_field_per_channel():
    config = replace(IDENTITY, noise_p=1.0, noise_sd=(0.2, 0.2))
    image, label = torch.zeros(2, 3, 64, 64), torch.zeros(2, 64, 64, dtype=torch.long)
    noisy, _ = dense.apply(image, (label,), dense.draw(generators(2), config, (3, 64, 64)), config)
    torch.testing.assert_close(noisy.std((2, 3)), torch.full((2, 3), 0.2), rtol=0.05, atol=0)
    assert (torch.corrcoef(noisy.flatten(2).flatten(0, 1)) - torch.eye(6)).abs().max() < 0.06
    drawn = dense.draw(generators(2), replace(config, noise_sd=(0.0, 0.1)), (3, 8, 8))
    assert torch.equal(drawn.noisy.value[:3], drawn.noisy.value[0].expand(3))


def test_to_copies_every_parameter():
    drawn = dense.draw(generators(6), ALWAYS, (3, 16, 16))
    moved = drawn.to(torch.device("cpu"))
    assert torch.equal(moved.gamma.value, drawn.gamma.value)
    assert all(torch.equal(one, other) for one, other in zip(moved.rotated, drawn.rotated, strict=True))
    assert drawn.to(torch.device("meta")).mirrored[1].device.type == "meta"
    assert drawn.to(torch.device("meta")).zoomed.value.device.type == "meta"


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"gamma_p": 1.5}, "gamma_p=1.5"),
        ({"noise_sd": (0.2, 0.1)}, "noise_sd"),
        ({"zoom": (0.8, 1.2)}, "zoom"),
        ({"low_resolution": (0.0, 1.0)}, "low_resolution"),
        ({"contrast": (1.1, 1.2)}, "contrast"),
        ({"blur_sigma_px": (0.0, 1.0)}, "blur_sigma_px"),
    ],
)
def test_the_error_names_a_setting_out_of_range(settings, named):
    with pytest.raises(ConfigError, match=f"augmentation {named}.*expected"):
        DenseAugmentConfig(**settings)
