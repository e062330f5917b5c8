import numpy as np
import pytest
import torch

from dataloaders.transforms.fourier import FourierConfig, mix_amplitudes
from util.errors import ConfigError


def mixed(image, partner, share, config):
    shape = (1, 1, *image.shape[-2:])
    x, y = (torch.from_numpy(np.asarray(each)).reshape(shape) for each in (image, partner))
    return mix_amplitudes(x, y, torch.tensor([share], dtype=x.dtype), config).numpy()[0, 0]


def test_the_mix_equals_the_reference(golden_file):
    golden = golden_file("semi_dg/fourier_mix.npz")
    n_compared = 0
    for key in golden:
        case, _, rest = key.partition("/")
        window, _, rest = rest.partition("/")
        share, _, direction = rest.partition("/")
        x, y = golden[f"{case}/x"], golden[f"{case}/y"]
        if not direction:
            if window.startswith("L") and rest == "box":
                top, bottom, left, right = FourierConfig(window=float(window[1:])).bounds(*x.shape)
                assert (top, bottom, left, right) == tuple(golden[key])
            continue
        image, partner = (x, y) if direction == "x_in_y" else (y, x)
        config = (
            FourierConfig("blend", blend_area=float(window.removeprefix("full_ratio")))
            if window.startswith("full")
            else FourierConfig(window=float(window[1:]))
        )
        np.testing.assert_allclose(mixed(image, partner, float(share[3:]), config), golden[key], atol=1e-10)
        single = mixed(image.astype(np.float32), partner.astype(np.float32), float(share[3:]), config)
        assert single.dtype == np.float32
        np.testing.assert_allclose(single, golden[key], atol=2e-5)
        n_compared += 1
    assert n_compared > 20


def test_nothing_of_the_partner_or_the_image_itself_changes_nothing():
    torch.manual_seed(0)
    image, partner = torch.rand(2, 3, 3, 20, 17)
    for config in (FourierConfig(window=0.2), FourierConfig("blend")):
        torch.testing.assert_close(mix_amplitudes(image, partner, torch.zeros(3), config), image, atol=1e-6, rtol=0)
        torch.testing.assert_close(mix_amplitudes(image, image, torch.ones(3), config), image, atol=1e-6, rtol=0)
    assert mix_amplitudes(image, partner, torch.ones(3), FourierConfig("none")) is image


def test_each_image_of_a_batch_has_its_own_share():
    torch.manual_seed(0)
    image, partner = torch.rand(2, 2, 1, 16, 16)
    config = FourierConfig(window=0.1)
    share = torch.tensor([0.0, 1.0])
    together = mix_amplitudes(image, partner, share, config)
    for n in range(2):
        alone = mix_amplitudes(image[n : n + 1], partner[n : n + 1], share[n : n + 1], config)
        torch.testing.assert_close(together[n : n + 1], alone)


def test_shares_follow_the_mode():
    uniform = torch.tensor([0.0, 0.5, 1.0])
    assert FourierConfig("blend").shares(uniform).tolist() == pytest.approx([0, 0.15, 0.3])
    assert FourierConfig(strength=0.8).shares(uniform).tolist() == pytest.approx([0.8] * 3)


@pytest.mark.parametrize("values", [{"window": 0.6}, {"strength": -0.1}, {"blend_limit": 2.0}, {"blend_area": 0.0}])
def test_impossible_settings_are_refused(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        FourierConfig(**values)


@pytest.mark.parametrize("shape", [(40, 56), (41, 57)])
def test_few_frequencies_are_mixed_as_by_transforms_of_the_whole_image(shape, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    image, partner = torch.rand(2, 2, 3, *shape, dtype=torch.float64, generator=generator)
    share, config = torch.tensor([0.3, 1.0], dtype=torch.float64), FourierConfig(window=0.05)
    found = mix_amplitudes(image, partner, share, config)
    assert not (found - image).sum((2, 3)).abs().lt(1e-9).any()
    monkeypatch.setattr("dataloaders.transforms.fourier._FEW", 100)
    torch.testing.assert_close(found, mix_amplitudes(image, partner, share, config), atol=1e-12, rtol=1e-12)
