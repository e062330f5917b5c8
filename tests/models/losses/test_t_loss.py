import math

import numpy as np
import pytest
import torch

from models.losses.t_loss import NuPlateau, TLoss, TLossConfig, squared_errors, student_t
from util.errors import ConfigError
from util.schema import build

RELEASED, PAPER = 1.0, 0.0
SINGLE, DOUBLE = torch.float32, torch.float64


def random_case(n_classes, dtype=DOUBLE):
    generator = torch.Generator().manual_seed(n_classes)
    logits = torch.randn(2, n_classes, 4, 5, generator=generator, dtype=dtype)
    return logits, torch.randint(n_classes, (2, 4, 5), generator=generator)


# The paper's form is compared less strictly: the reference has no eps at ln nu and at the precision there.
@pytest.mark.parametrize(
    ("log_precision", "form", "dtype", "rtol", "atol_nu"),
    [
        (RELEASED, "", DOUBLE, 1e-12, 1e-9),
        (RELEASED, "", SINGLE, 2e-6, 1e-5),
        (PAPER, "_paper", DOUBLE, 1e-6, 5e-5),
        (PAPER, "_paper", SINGLE, 2e-6, 5e-5),
    ],
)
@pytest.mark.parametrize("nu", [1, 0, -3, 5])
def test_values_and_gradients_equal_the_reference(golden_file, nu, log_precision, form, dtype, rtol, atol_nu):
    golden = golden_file("noisy/tloss.npz")
    p = torch.from_numpy(golden["s16_pred"]).double()
    logits = torch.stack([torch.zeros_like(p), p.logit()], 1).to(dtype).requires_grad_()
    t_loss = TLoss(TLossConfig(nu_init=float(nu), log_precision=log_precision, reduction="none"), 2).to(dtype)
    losses = t_loss(logits, torch.from_numpy(golden["s16_target"]))
    np.testing.assert_allclose(losses.detach(), golden[f"s16_nu{nu}_loss64{form}"], rtol=rtol)
    losses.mean().backward()
    assert t_loss.raw_nu.grad is not None
    assert logits.grad is not None
    assert t_loss.raw_nu.grad.item() == pytest.approx(float(golden[f"s16_nu{nu}_gradnu64{form}"]), abs=atol_nu)
    np.testing.assert_allclose(logits.grad[:, 1] / (p * (1 - p)), golden[f"s16_nu{nu}_gradpred64{form}"], atol=1e-6)
    torch.testing.assert_close(logits.grad[:, 0], -logits.grad[:, 1])


@pytest.mark.parametrize(("log_precision", "column"), [(RELEASED, 1), (PAPER, 2)])
def test_nu_settles_where_the_reference_does(golden_file, log_precision, column):
    table = torch.from_numpy(golden_file("noisy/tloss.npz")["stationary_nu_table"]).T
    n_pixels = 256 * 256
    squared_error = table[:1] * n_pixels
    low, high = torch.full_like(table[0], -10.0), torch.full_like(table[0], 10.0)
    for _ in range(50):
        middle = ((low + high) / 2).requires_grad_()
        loss = student_t(squared_error, n_pixels, middle, torch.full_like(table[0], log_precision), eps=0.0)
        (slope,) = torch.autograd.grad(loss.sum(), middle)
        low, high = torch.where(slope < 0, middle, low).detach(), torch.where(slope < 0, high, middle).detach()
    torch.testing.assert_close(low, table[column], rtol=0.0, atol=1e-6)


def test_density_integrates_to_one():
    errors = torch.linspace(-400, 400, 400_001, dtype=DOUBLE)
    zero = torch.zeros(1, dtype=DOUBLE)
    for log_precision in (zero, zero + 1):
        density = (-student_t(errors.square()[:, None], 1, zero + 1, log_precision)).exp()[:, 0]
        assert torch.trapezoid(density, errors).item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_gradients_are_those_of_the_values(n_classes):
    logits, label = random_case(n_classes)
    nu = torch.linspace(-1, 1, n_classes - 1, dtype=DOUBLE)

    def loss(logits, raw_nu, log_precision):
        return student_t(squared_errors(logits, label), 20, raw_nu, log_precision)

    assert torch.autograd.gradcheck(loss, [t.clone().requires_grad_() for t in (logits, nu, nu / 2)])


def test_squared_errors_of_two_classes_are_those_of_the_softmax():
    logits, label = random_case(2)
    expected = (logits.softmax(1)[:, 1] - label).square().sum((1, 2))
    torch.testing.assert_close(squared_errors(logits, label)[:, 0], expected)


def test_every_foreground_class_has_its_own_nu():
    logits, label = random_case(4)
    t_loss = TLoss(TLossConfig(reduction="none"), 4).double()
    t_loss.raw_nu.data.copy_(torch.tensor([-1.0, 0.5, 2.0]))
    one, p = torch.ones(1, dtype=DOUBLE), logits.softmax(1)
    single = [
        student_t((p[:, c] - (label == c).double()).square().sum((1, 2))[:, None], 20, t_loss.raw_nu[c - 1 : c], one)
        for c in (1, 2, 3)
    ]
    torch.testing.assert_close(t_loss(logits, label), torch.cat(single, 1).mean(1))


def test_all_foreground_classes_can_form_one_vector():
    logits, label = random_case(4)
    t_loss = TLoss(TLossConfig(nu_init=0.5, reduction="none", per_class=False), 4).double()
    assert t_loss.raw_nu.shape == (1,)
    squared_error = squared_errors(logits, label).sum(1, keepdim=True)
    one = torch.ones(1, dtype=DOUBLE)
    torch.testing.assert_close(t_loss(logits, label), student_t(squared_error, 60, one / 2, one)[:, 0])


def test_reductions():
    logits, label = random_case(2)
    losses = TLoss(TLossConfig(reduction="none"), 2)(logits, label)
    assert losses.shape == (2,)
    torch.testing.assert_close(TLoss(TLossConfig(), 2)(logits, label), losses.mean())
    torch.testing.assert_close(TLoss(TLossConfig(reduction="sum"), 2)(logits, label), losses.sum())
    torch.testing.assert_close(TLoss(TLossConfig(divide_by_pixels=True), 2)(logits, label), losses.mean() / 20)


def test_a_learnable_precision_starts_as_the_released_one_and_learns():
    logits, label = random_case(2)
    t_loss = TLoss(TLossConfig(log_precision="learnable"), 2)
    loss = t_loss(logits, label)
    torch.testing.assert_close(loss, TLoss(TLossConfig(), 2)(logits, label))
    loss.backward()
    assert t_loss.log_precision.grad is not None
    assert t_loss.log_precision.grad.item() != 0


def test_a_badly_fitting_image_counts_less():
    label = torch.zeros(2, 64, 64, dtype=torch.int64)
    p = torch.tensor([0.1, 0.4], dtype=DOUBLE).view(2, 1, 1).expand(2, 64, 64)
    logits = torch.stack([torch.zeros_like(p), p.logit()], 1).requires_grad_()
    TLoss(TLossConfig(nu_init=-3.0), 2)(logits, label).backward()
    assert logits.grad is not None
    pull = logits.grad[:, 1, 0, 0] / (p * (1 - p))[:, 0, 0]
    assert (pull[0] / pull[1]).item() == pytest.approx(4, rel=0.01)  # inversely to the error, not along with it


@pytest.mark.parametrize("scale", [1e-6, 1e4])
@pytest.mark.parametrize("is_right", [True, False])
def test_extreme_errors_under_autocast(scale, is_right):
    label = torch.zeros(2, 32, 32, dtype=torch.int64)
    label[:, 8:20] = 1
    margin = torch.where((label == 1) == is_right, scale, -scale)
    logits = torch.stack([-margin, margin], 1).bfloat16().requires_grad_()
    t_loss = TLoss(TLossConfig(nu_init=-3.0), 2)
    with torch.autocast("cpu", torch.bfloat16):
        loss = t_loss(logits, label)
    loss.backward()
    assert loss.dtype == SINGLE
    assert t_loss.raw_nu.grad is not None
    assert logits.grad is not None
    assert all(torch.isfinite(t).all() for t in (loss, t_loss.raw_nu.grad, logits.grad))
    squared_error = squared_errors(logits.detach().double(), label)
    exact = student_t(squared_error, 1024, t_loss.raw_nu.double(), torch.ones(1, dtype=DOUBLE)).mean()
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)


def test_constants_are_those_of_the_input():
    config = TLossConfig(nu_init=0.0, eps=0.0, log_precision=PAPER)
    logits, label = torch.full((1, 2, 1, 1), 0.0), torch.ones(1, 1, 1, dtype=torch.int64)
    cauchy = math.log(math.pi * (1 + 0.25))  # one degree of freedom, one pixel, error 1/2
    assert TLoss(config, 2)(logits, label).item() == pytest.approx(cauchy, rel=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_nu": 0}, "lr_nu=0"),
        ({"eps": -1.0}, r"eps=-1\.0"),
        ({"plateau_floor": 0.0}, r"plateau_floor=0\.0: expected a value in \(0, 1\]"),
        ({"plateau_factor": 1.5}, r"plateau_factor=1\.5: expected a value in \(0, 1\]"),
        ({"plateau_every": 0}, "plateau_every=0: expected 1 or more"),
        ({"plateau_window": 10}, r"plateau_window=10: expected from 1 to less than plateau_records=10"),
        ({"log_precision": "map"}, "log_precision='map'"),
        ({"reduction": "median"}, "expected one of none, mean, sum"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(ConfigError, match=message):
        build(TLossConfig, settings)


def run(plateau, values):
    """Shows the rule one value every 50 steps; the factors after each."""
    factors = []
    for index, value in enumerate(values):
        plateau.update(50 * index, torch.as_tensor(value, dtype=SINGLE).reshape(-1))
        factors.append(plateau.factor)
    return factors


def test_a_settled_nu_lowers_the_factor_at_the_tenth_note():
    factors = run(NuPlateau(1, TLossConfig(plateau_floor=0.001)), [-2.0] * 21)
    assert factors == pytest.approx([1.0] * 9 + [0.1] * 10 + [0.01] * 2)


def test_the_factor_ends_at_its_floor():
    assert run(NuPlateau(1, TLossConfig(plateau_floor=0.05)), [-2.0] * 30)[-1] == pytest.approx(0.05)


def test_a_falling_nu_has_not_settled():
    assert run(NuPlateau(1, TLossConfig(plateau_floor=0.01)), [-2e-4 * i for i in range(60)]) == [1.0] * 60
    assert run(NuPlateau(1, TLossConfig(plateau_floor=0.01)), [-0.9e-4 * i for i in range(10)])[-1] == pytest.approx(
        0.1
    )


def test_it_fires_as_soon_as_two_averages_agree():
    falling, flat = [-0.01 * i for i in range(20)], [-0.19] * 5
    factors = run(NuPlateau(1, TLossConfig(plateau_floor=0.01)), falling + flat)
    assert factors.index(pytest.approx(0.1)) == 20 + 4  # the averages of the last five, and of the five before


def test_every_class_must_have_settled():
    values = [(-1.0, 0.01 * i) for i in range(20)]
    assert run(NuPlateau(2, TLossConfig(plateau_floor=0.01)), values) == [1.0] * 20
    assert run(NuPlateau(2, TLossConfig(plateau_floor=0.01)), [(-1.0, 3.0)] * 10)[-1] == pytest.approx(0.1)


def test_only_every_fiftieth_step_counts():
    plateau = NuPlateau(1, TLossConfig(plateau_floor=0.01))
    for step in range(450):
        plateau.update(step, torch.zeros(1))
    assert plateau.factor == 1.0
    plateau.update(450, torch.zeros(1))
    assert plateau.factor == pytest.approx(0.1)


def test_the_rule_has_a_setting_for_each_of_its_numbers():
    config = TLossConfig(
        plateau_every=10, plateau_records=4, plateau_window=2, plateau_tolerance=0.5, plateau_factor=0.5
    )
    plateau = NuPlateau(1, config)
    for index, value in enumerate((0.0, 4.0, 1.0, 4.0)):  # averages 2, 2.5, 2.5
        assert plateau.factor == 1.0
        plateau.update(10 * index, torch.tensor([value]))
    assert plateau.factor == 0.5


def test_a_restored_rule_continues_where_it_was():
    values = [-2.0] * 25
    whole, first, second = (NuPlateau(1, TLossConfig(plateau_floor=0.001)) for _ in range(3))
    expected = run(whole, values)
    run(first, values[:14])
    assert second.factor == 1.0
    second.load_state_dict(first.state_dict())
    assert second.factor == pytest.approx(0.1)
    assert run(second, values[14:]) == expected[14:]
