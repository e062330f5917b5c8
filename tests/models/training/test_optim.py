import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from models.training.optim import OptimConfig, Optimisers, Trainable, groups_by_decay
from util.errors import ConfigError

POLYNOMIAL = OptimConfig("adamw", 6e-5, schedule="polynomial", warmup_steps=1500, warmup_factor=1e-6)


def weight(value=1.0):
    return torch.nn.Parameter(torch.tensor(value))


def learning_rates(optimisers, name):
    return [group["lr"] for group in optimisers[name].param_groups]


def test_a_polynomial_with_warmup_is_the_recorded_one(golden_file):
    golden = golden_file("partial/poly_lr.npz")
    found = [POLYNOMIAL.lr * POLYNOMIAL.factor(int(step), 60_000) for step in golden["iteration"]]
    np.testing.assert_allclose(found, golden["gen_lr_60k"], rtol=1e-12)


def test_the_default_rule_is_that_of_ssl_alpnet():
    factors = [OptimConfig().factor(step, 100_100) for step in (0, 999, 1000, 2000)]
    assert factors == pytest.approx([1, 1, 0.95, 0.95**2])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (OptimConfig(schedule="constant"), [1, 1, 1]),
        (OptimConfig(schedule="step", step_every=2, step_gamma=0.5), [1, 1 / 4, 1 / 32]),
        (OptimConfig(schedule="polynomial", power=2.0, end_factor=0.1), [1, 0.1 + 0.9 * 0.36, 0.1]),
        (OptimConfig(schedule="cosine", end_factor=0.5), [1, 0.75 + 0.25 * np.cos(0.4 * np.pi), 0.5]),
        (OptimConfig(schedule="constant", warmup_steps=5, warmup_factor=0.5), [0.5, 0.9, 1]),
        (OptimConfig(step_every=4, step_gamma=0.5, warmup_steps=8, warmup_factor=0.0), [0, 0.5 * 0.5, 0.25]),
    ],
)
def test_each_rule_at_steps_0_4_and_10_of_10(config, expected):
    assert [config.factor(step, 10) for step in (0, 4, 10)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        (OptimConfig("sgd", 0.1, momentum=0.5), torch.optim.SGD),
        (OptimConfig("adam", 0.1, betas=(0.5, 0.9)), torch.optim.Adam),
        (OptimConfig("adamw", 0.1, betas=(0.5, 0.9), weight_decay=0.2), torch.optim.AdamW),
    ],
)
def test_optimisers_are_fused_and_take_every_setting(config, kind):
    optimiser = config.build([weight()])
    assert type(optimiser) is kind
    (group,) = optimiser.param_groups
    assert group["fused"]
    assert (group["lr"], group["weight_decay"]) == (0.1, config.weight_decay)
    assert group.get("momentum", 0.5) == 0.5
    assert tuple(group.get("betas", (0.5, 0.9))) == (0.5, 0.9)


def test_each_optimiser_has_a_rule_of_its_own():
    slow = OptimConfig("sgd", 0.1, 0.0, weight_decay=0.0, schedule="step", step_every=1, step_gamma=0.5)
    warm = OptimConfig("sgd", 1.0, 0.0, weight_decay=0.0, schedule="constant", warmup_steps=2, warmup_factor=0.0)
    one, other = weight(), weight()
    optimisers = Optimisers({"one": Trainable([one], slow), "other": Trainable([other], warm)}, 10)
    for step, (first, second) in enumerate([(0.1, 0.0), (0.05, 0.5), (0.025, 1.0)]):
        one.grad = other.grad = torch.tensor(1.0)
        before = one.item(), other.item()
        optimisers.step(step)
        assert learning_rates(optimisers, "one") == pytest.approx([first])
        assert learning_rates(optimisers, "other") == pytest.approx([second])
        assert optimisers.learning_rates == {"lr": pytest.approx(first), "lr_other": pytest.approx(second)}
        assert (before[0] - one.item(), before[1] - other.item()) == pytest.approx((first, second))
    optimisers.zero_grad()
    assert one.grad is other.grad is None


def test_groups_keep_their_own_settings_under_the_common_rule():
    groups = [{"params": [weight()]}, {"params": [weight()], "lr": 1.0, "weight_decay": 0.0}]
    config = OptimConfig("sgd", 0.1, weight_decay=0.3, schedule="step", step_every=1, step_gamma=0.5)
    optimisers = Optimisers({"main": Trainable(groups, config)}, 10)
    optimisers.step(2, lambda name: {"main": 0.1}[name])
    assert learning_rates(optimisers, "main") == pytest.approx([0.1 * 0.25 * 0.1, 1.0 * 0.25 * 0.1])
    assert [group["weight_decay"] for group in optimisers["main"].param_groups] == [0.3, 0.0]
    assert optimisers.learning_rates == {"lr": pytest.approx(1.0 * 0.25 * 0.1)}  # the largest


def test_norms_and_tables_of_positions_do_not_decay():
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.GroupNorm(1, 2), nn.BatchNorm2d(2), nn.LayerNorm(2), nn.Linear(2, 2))
    module[4].register_parameter("relative_position_bias_table", nn.Parameter(torch.zeros(3)))
    module[0].bias.requires_grad_(False)
    decayed, free = groups_by_decay(module)
    assert decayed == {"params": [module[0].weight, module[4].weight, module[4].bias]}
    assert [tuple(each.shape) for each in free["params"]] == [(2,)] * 6 + [(3,)]
    assert free["weight_decay"] == 0


def test_a_state_dict_restores_every_optimiser():
    def fresh():
        one, other = weight(), weight(2.0)
        config = OptimConfig("adam", 0.1)
        return one, other, Optimisers({"one": Trainable([one], config), "other": Trainable([other], config)}, 10)

    def run(one, other, optimisers, steps):
        for step in steps:
            one.grad, other.grad = (value.detach().sin() for value in (one, other))
            optimisers.step(step)

    whole, first, second = fresh(), fresh(), fresh()
    run(*whole, range(5))
    run(*first, range(3))
    for there, here in zip(second[:2], first[:2], strict=True):
        there.data.copy_(here)
    second[2].load_state_dict(first[2].state_dict())
    run(*second, range(3, 5))
    assert torch.equal(whole[0], second[0])
    assert torch.equal(whole[1], second[1])


@pytest.mark.parametrize("schedule", ["polynomial", "cosine"])
def test_a_rule_over_the_run_needs_its_length(schedule):
    config = dataclasses.replace(POLYNOMIAL, schedule=schedule)
    with pytest.raises(ConfigError, match=r"n_steps=0: .* need the length of the run"):
        Optimisers({"main": Trainable([weight()], config)}, 0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lr": -1.0}, r"optim\.lr=-1\.0: expected 0 or more"),
        ({"lr": float("nan")}, r"optim\.lr=nan"),
        ({"weight_decay": -0.1}, r"optim\.weight_decay=-0\.1"),
        ({"step_every": 0}, r"optim\.step_every=0: expected 1 or more"),
        ({"warmup_steps": -1}, r"optim\.warmup_steps=-1: expected 0 or more"),
        ({"warmup_factor": 2.0}, r"optim\.warmup_factor=2\.0: expected a value from 0 to 1"),
        ({"end_factor": -0.5}, r"optim\.end_factor=-0\.5"),
        ({"betas": (0.9, 1.0)}, r"optim\.betas\[1\]=1\.0: expected a value in \[0, 1\)"),
        ({"power": 0.0}, r"optim\.power=0\.0: expected a number above 0"),
    ],
)
def test_impossible_settings_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        OptimConfig(**wrong)
