import pytest
import torch

from models.networks.brightness import with_brightness


def test_each_structure_gets_the_level_and_keeps_its_texture():
    image = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(3, 8, 8, dtype=torch.uint8)
    label[:, 1:3], label[1, 5:7], label[0, 7] = 4, 9, 255
    copied = with_brightness(image, label, (4, 9, 11), 2.0)
    std, mean = torch.std_mean(image, correction=0)
    for value in (4, 9):
        inside = (label == value)[:, None]
        assert copied[inside].mean().item() == pytest.approx(float(mean + 2 * std), abs=1e-5)
        torch.testing.assert_close(copied[inside] - copied[inside].mean(), image[inside] - image[inside].mean())
    others = ~torch.isin(label, torch.tensor([4, 9], dtype=torch.uint8))[:, None]
    assert torch.equal(copied[others], image[others])
