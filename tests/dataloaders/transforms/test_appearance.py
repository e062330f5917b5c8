import pytest
import torch

from dataloaders.transforms.appearance import N_APPEARANCE, AppearanceConfig, change_appearance
from util.errors import ConfigError

NEVER, ALWAYS = 0.9, 0.1  # a number above and below the probability


def numbers(**amounts):
    """Numbers of one image whose named changes happen with these amounts, 0 to 1."""
    places = {"gain": 0, "gamma": 2, "blur": 4, "noise": 6}
    uniform = torch.full((1, N_APPEARANCE), NEVER)
    for name, amount in amounts.items():
        uniform[0, places[name]], uniform[0, places[name] + 1] = ALWAYS, amount
    return uniform


@pytest.fixture
def image():
    torch.manual_seed(0)
    return torch.rand(1, 2, 24, 20)


def test_images_stay_where_nothing_happens(image):
    torch.testing.assert_close(change_appearance(image, numbers(), AppearanceConfig()), image, atol=1e-5, rtol=1e-5)
    assert change_appearance(image, numbers(gain=1.0), AppearanceConfig(probability=0.0)) is image


def test_each_change_by_hand(image):
    config = AppearanceConfig(gain=(0.5, 2.0), gamma=(0.5, 2.0), blur_sigma_px=(1.0, 1.0), noise_sd=(0.2, 0.2))
    for amount, factor in ((0.0, 0.5), (0.5, 1.0), (1.0, 2.0)):
        torch.testing.assert_close(
            change_appearance(image, numbers(gain=amount), config), factor * image, atol=1e-4, rtol=1e-4
        )
    low, high = image.min(), image.max()
    expected = low + (high - low) * ((image - low) / (high - low)) ** 2
    torch.testing.assert_close(change_appearance(image, numbers(gamma=1.0), config), expected, atol=1e-4, rtol=1e-4)
    blurred = change_appearance(image, numbers(blur=0.5), config)
    assert blurred.std() < 0.5 * image.std()
    assert blurred.mean() == pytest.approx(image.mean().item(), abs=0.02)
    noise = change_appearance(image, numbers(noise=0.5), config) - image
    assert noise.std().item() == pytest.approx(0.2, rel=0.1)
    assert (noise[0, 0] - noise[0, 1]).abs().max() > 0.1  # each channel has its own


def test_an_image_does_not_depend_on_its_batch(image):
    uniform = torch.rand(3, N_APPEARANCE, generator=torch.Generator().manual_seed(2))
    images = torch.cat([image, image.flip(2), image.flip(3)])
    together = change_appearance(images, uniform, AppearanceConfig())
    for i in range(3):
        alone = change_appearance(images[i : i + 1], uniform[i : i + 1], AppearanceConfig())
        torch.testing.assert_close(alone[0], together[i])
    assert together.isfinite().all()


@pytest.mark.parametrize("values", [{"probability": 1.5}, {"gain": (0.0, 1.0)}, {"gamma": (2.0, 1.0)}], ids=str)
def test_impossible_changes_are_refused(values):
    with pytest.raises(ConfigError, match=f"appearance.{next(iter(values))}"):
        AppearanceConfig(**values)
