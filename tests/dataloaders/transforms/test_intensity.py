import numpy as np
import pytest
import scipy.ndimage
import skimage.transform
import torch

from dataloaders.transforms import intensity


@pytest.fixture
def planes():
    return torch.rand(3, 24, 30, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_noise_is_white_with_the_given_standard_deviation():
    sd = torch.tensor([0.1, 0.5])
    noise = intensity.add_noise(torch.zeros(2, 128, 128), sd, torch.tensor([3, 4]))
    torch.testing.assert_close(noise.std((1, 2)), sd, rtol=0.02, atol=0)
    assert (noise.mean((1, 2)).abs() < 0.02 * sd).all()
    z = noise / sd[:, None, None]
    assert (z.abs() < 1).float().mean().item() == pytest.approx(0.6827, abs=0.01)
    assert (z.abs() < 2).float().mean().item() == pytest.approx(0.9545, abs=0.005)
    assert abs(torch.corrcoef(torch.stack([z[:, 1:].flatten(), z[:, :-1].flatten()]))[0, 1]) < 0.02
    assert abs(torch.corrcoef(z.flatten(1))[0, 1]) < 0.02


def test_noise_depends_only_on_the_seed():
    plane = torch.zeros(2, 16, 16)
    noise = intensity.add_noise(plane, torch.ones(2), torch.tensor([7, 2**32 - 1]))
    assert torch.equal(noise[1:], intensity.add_noise(plane[:1], torch.ones(1), torch.tensor([2**32 - 1])))
    assert noise.isfinite().all()


def test_blur_equals_scipy(planes):
    sigmas = [0.5, 0.77, 1.0]
    blurred = intensity.blur(planes, torch.tensor(sigmas), radius=4)
    for plane, sigma, result in zip(planes, sigmas, blurred, strict=True):
        expected = scipy.ndimage.gaussian_filter(plane.numpy(), sigma, mode="nearest", radius=4)
        np.testing.assert_allclose(result, expected, atol=1e-6)


def test_brightness_multiplies_each_plane_by_its_factor():
    scaled = intensity.scale_brightness(torch.tensor([[[1.0, -0.5]], [[1.0, -0.5]]]), torch.tensor([0.8, 2.0]))
    torch.testing.assert_close(scaled, torch.tensor([[[0.8, -0.4]], [[2.0, -1.0]]]))


def test_contrast_scales_about_the_mean_and_keeps_the_range():
    plane = torch.tensor([[[0.0, 0.4, 0.6, 1.0]]])  # mean 0.5
    lower = intensity.scale_contrast(plane, torch.tensor([0.5]))
    torch.testing.assert_close(lower, torch.tensor([[[0.25, 0.45, 0.55, 0.75]]]))
    higher = intensity.scale_contrast(plane, torch.tensor([2.0]))
    torch.testing.assert_close(higher, torch.tensor([[[0.0, 0.3, 0.7, 1.0]]]))


@pytest.mark.parametrize("zoom", [0.5, 0.62, 0.9])
def test_low_resolution_equals_two_resizings(planes, zoom):
    ramp = torch.linspace(-1, 1, 24)[:, None] * torch.linspace(0.5, 1, 30)
    smooth = torch.stack([ramp, ramp.flip(0)])
    lowered = intensity.simulate_low_resolution(smooth, torch.full((2,), zoom))
    small = round(24 * zoom), round(30 * zoom)
    for plane, result in zip(smooth.numpy(), lowered.numpy(), strict=True):
        options = {"mode": "edge", "anti_aliasing": False}
        down = skimage.transform.resize(plane, small, order=0, **options)
        expected = skimage.transform.resize(down, plane.shape, order=3, **options)
        assert np.abs(result - expected).mean() < 0.02  # a cubic spline there, cubic convolution here
        assert np.abs(result - plane).mean() > 0.005


def test_low_resolution_at_half_size_interpolates_between_pixels():
    constant_in_blocks = torch.arange(8.0).repeat_interleave(2)[None, :, None].expand(1, 16, 6)
    lowered = intensity.simulate_low_resolution(constant_in_blocks, torch.tensor([0.5]))
    inner = lowered[0, 4:12].mean(1)
    torch.testing.assert_close(inner, torch.arange(1.75, 5.5, 0.5), atol=0.05, rtol=0)


def test_low_resolution_at_full_size_is_the_identity(planes):
    torch.testing.assert_close(intensity.simulate_low_resolution(planes, torch.ones(3)), planes, atol=1e-4, rtol=0)


def test_low_resolution_uses_the_zoom_of_each_plane(planes):
    zoom = torch.tensor([0.5, 0.7, 0.95])
    together = intensity.simulate_low_resolution(planes, zoom)
    for k in range(3):
        torch.testing.assert_close(
            together[k : k + 1], intensity.simulate_low_resolution(planes[k : k + 1], zoom[k : k + 1])
        )


def test_gamma_keeps_mean_and_standard_deviation_but_not_the_histogram(planes):
    for function in (intensity.gamma_retain_stats, intensity.gamma_inverted):
        curved = function(planes, torch.tensor([0.7, 1.0, 1.5]))
        torch.testing.assert_close(curved.mean((1, 2)), planes.mean((1, 2)), atol=1e-5, rtol=0)
        torch.testing.assert_close(curved.std((1, 2)), planes.std((1, 2)), atol=1e-5, rtol=0)
        torch.testing.assert_close(curved[1], planes[1], atol=1e-5, rtol=0)  # exponent 1
        assert (curved[[0, 2]] - planes[[0, 2]]).abs().amax((1, 2)).min() > 0.05


def test_gamma_of_a_small_array():
    plane = torch.tensor([[[0.0, 0.5, 1.0]]])  # squared: 0, 1/4, 1 of mean 5/12 and deviation sqrt(26/144)
    curved = intensity.gamma_retain_stats(plane, torch.tensor([2.0]))
    ratio = np.sqrt(1 / 6) / np.sqrt(26 / 144)
    expected = 0.5 + (np.array([0, 0.25, 1]) - 5 / 12) * ratio
    np.testing.assert_allclose(curved[0, 0], expected, atol=1e-6)
    negative = intensity.gamma_inverted(plane, torch.tensor([2.0]))
    np.testing.assert_allclose(negative[0, 0], 1 - expected[::-1], atol=1e-6)


def test_constant_planes_stay_constant():
    flat = torch.full((1, 8, 8), 0.3)
    one = torch.tensor([0.8])
    for function in (
        intensity.gamma_retain_stats,
        intensity.gamma_inverted,
        intensity.scale_contrast,
        intensity.simulate_low_resolution,
    ):
        torch.testing.assert_close(function(flat, one), flat, atol=1e-5, rtol=0)
