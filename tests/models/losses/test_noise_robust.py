import dataclasses
import math

import pytest
import torch
import torch.nn.functional as F

from models.losses import LossConfig, build_loss, noise_robust

PLAIN = LossConfig(class_weighted=False)
LOW_Q = dataclasses.replace(PLAIN, ngce_q=0.1)


def random_case(n_classes, dtype=torch.float64):
    generator = torch.Generator().manual_seed(n_classes)
    logits = 3 * torch.randn(2, n_classes, 5, 6, generator=generator, dtype=dtype)
    return logits, torch.randint(n_classes, (2, 5, 6), generator=generator)


@pytest.mark.parametrize(
    ("name", "config", "key"),
    [
        ("ce", PLAIN, "CE"),
        ("bce", PLAIN, "CE"),
        ("gce", PLAIN, "GCE_q0.7"),
        ("mae", PLAIN, "MAE"),
        ("rce", PLAIN, "RCE"),
        ("sce", PLAIN, "SCE_a0.1_b1"),
        ("nce", PLAIN, "NCE"),
        ("ngce", PLAIN, "NGCE_q0.7"),
        ("ngce", LOW_Q, "NGCE_q0.1"),
        ("nce_rce", PLAIN, "NCE+RCE_1_1"),
        ("ngce_mae", LOW_Q, "NGCE+MAE_1_1_q0.1"),
        ("ngce_rce", LOW_Q, "NGCE+RCE_1_1_q0.1"),
    ],
)
def test_values_and_gradients_equal_the_reference(golden_file, name, config, key):
    golden = golden_file("noisy/robust_losses.npz")
    logits = torch.from_numpy(golden["k2_logits"]).requires_grad_()
    loss = build_loss(name, config, 2)(logits, torch.from_numpy(golden["k2_labels"]))
    assert loss.item() == pytest.approx(float(golden[f"k2_{key}_value"]), rel=1e-6)
    loss.backward()
    torch.testing.assert_close(logits.grad, torch.from_numpy(golden[f"k2_{key}_grad"]), rtol=1e-5, atol=2e-9)


@pytest.mark.parametrize("n_classes", [2, 4])
def test_definitions(n_classes):
    logits, label = random_case(n_classes)
    p = logits.softmax(1)
    y = F.one_hot(label, n_classes).movedim(-1, 1).double()
    p_y = (p * y).sum(1)
    reverse = -(p * y.clamp(min=1e-4).log()).sum(1)
    normalised = p_y.log() / p.log().sum(1)
    generalised = (1 - p_y**0.3) / (n_classes - (p**0.3).sum(1))
    for loss_map, expected in [
        (noise_robust.cross_entropy(logits, label), -p_y.log()),
        (noise_robust.binary_cross_entropy(logits, label), F.binary_cross_entropy(p, y, reduction="none").mean(1)),
        (noise_robust.generalised_cross_entropy(logits, label, 0.3), (1 - p_y**0.3) / 0.3),
        (noise_robust.mean_absolute_error(logits, label), (p - y).abs().sum(1) / 2),
        (noise_robust.reverse_cross_entropy(logits, label), reverse),
        (noise_robust.symmetric_cross_entropy(logits, label, 0.2, 3.0), -0.2 * p_y.log() + 3 * reverse),
        (noise_robust.normalised_cross_entropy(logits, label), normalised),
        (noise_robust.normalised_generalised_cross_entropy(logits, label, 0.3), generalised),
        (noise_robust.nce_and_rce(logits, label), normalised + reverse),
        (noise_robust.ngce_and_mae(logits, label, 0.3), generalised + 1 - p_y),
        (noise_robust.ngce_and_rce(logits, label, 0.3), generalised + reverse),
        (noise_robust.focal(logits, label, 2.0), -((1 - p_y) ** 2) * p_y.log()),
    ]:
        torch.testing.assert_close(loss_map, expected, rtol=1e-6, atol=1e-9)


def test_with_two_classes_binary_cross_entropy_is_that_of_the_foreground():
    logits, label = random_case(2)
    expected = F.binary_cross_entropy(logits.softmax(1)[:, 1], label.double(), reduction="none")
    torch.testing.assert_close(noise_robust.binary_cross_entropy(logits, label), expected)


def test_by_hand():
    logits = torch.tensor([0.75, 0.25]).log().view(1, 2, 1, 1)
    label = torch.ones(1, 1, 1, dtype=torch.int64)
    assert noise_robust.mean_absolute_error(logits, label).item() == pytest.approx(0.75)
    assert noise_robust.reverse_cross_entropy(logits, label).item() == pytest.approx(0.75 * 9.2103, rel=1e-4)
    assert noise_robust.normalised_cross_entropy(logits, label).item() == pytest.approx(
        math.log(0.25) / (math.log(0.25) + math.log(0.75)), rel=1e-5
    )


def test_powers_of_vanishing_probabilities_are_clipped():
    logits = torch.tensor([80.0, 0.0]).view(1, 2, 1, 1)
    label = torch.ones(1, 1, 1, dtype=torch.int64)
    loss = noise_robust.generalised_cross_entropy(logits, label, 0.1).item()
    assert loss == pytest.approx((1 - 1e-7**0.1) / 0.1, rel=1e-5)


def test_weighting_balances_the_classes():
    logits = torch.zeros(1, 2, 2, 2)
    logits[0, 1, 0, 0] = 20.0  # wrong at one background pixel
    label = torch.tensor([[[0, 0], [0, 1]]])
    wrong_share = build_loss("mae", LossConfig(), 2)(logits, label).item()
    assert wrong_share == pytest.approx((1 + 0.5 + 0.5 + 3 * 0.5) / (3 + 3), rel=1e-5)
    assert build_loss("mae", PLAIN, 2)(logits, label).item() == pytest.approx(2.5 / 4, rel=1e-5)
