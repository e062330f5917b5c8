import pytest
import torch
import torch.nn.functional as F

from models.losses import LossConfig, build_loss


def random_case(n_classes):
    generator = torch.Generator().manual_seed(n_classes)
    logits = torch.randn(2, n_classes, 5, 6, generator=generator)
    label = torch.randint(n_classes, (2, 5, 6), generator=generator)
    return logits, label, logits.softmax(1)[:, 1:], F.one_hot(label, n_classes).movedim(-1, 1)[:, 1:].float()


@pytest.mark.parametrize("n_classes", [2, 4])
def test_dice_is_the_mean_over_images_and_foreground_classes(n_classes):
    logits, label, p, y = random_case(n_classes)
    expected = 1 - (2 * (p * y).sum((2, 3)) / (p + y).sum((2, 3))).mean().item()
    assert build_loss("dice", LossConfig(), n_classes)(logits, label).item() == pytest.approx(expected, abs=1e-5)
    with_ce = build_loss("cedice", LossConfig(), n_classes)(logits, label).item()
    assert with_ce == pytest.approx(expected + F.cross_entropy(logits, label).item(), abs=1e-5)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("gamma", [1.0, 1.5, 2.0])
def test_noise_robust_dice_sums_over_the_batch(n_classes, gamma):
    logits, label, p, y = random_case(n_classes)
    over_batch = (0, 2, 3)
    expected = ((p - y).abs().pow(gamma).sum(over_batch) / (p**2 + y**2).sum(over_batch)).mean().item()
    loss = build_loss("nrdice", LossConfig(nrdice_gamma=gamma), n_classes)(logits, label)
    assert loss.item() == pytest.approx(expected, abs=1e-5)


def test_with_gamma_two_it_is_dice_of_squares():
    logits, label, p, y = random_case(2)
    dice = 2 * (p * y).sum() / (p**2 + y**2).sum()
    loss = build_loss("nrdice", LossConfig(nrdice_gamma=2.0), 2)(logits, label)
    assert loss.item() == pytest.approx(1 - dice.item(), abs=1e-5)
