import pytest
import torch

from models.training.average import AverageConfig, MovingAverage
from util.errors import ConfigError


def averages_of(values, decay, every=1):
    model = torch.nn.Linear(1, 1, bias=False)
    averaged = MovingAverage(model, AverageConfig(decay, every))
    for value in values:
        model.weight.data.fill_(value)
        averaged.update(model)
    return averaged.module.get_parameter("weight").item()


def test_the_average_by_hand():
    # the first update copies; the second and third weigh the old by min(decay, 2/11) and min(decay, 3/12)
    assert averages_of([1.0, 2.0], 0.999) == pytest.approx(2 / 11 + 2 * 9 / 11)
    second = 2 / 11 + 2 * 9 / 11
    assert averages_of([1.0, 2.0, 4.0], 0.999) == pytest.approx(second * 0.25 + 4 * 0.75)
    assert averages_of([1.0, 2.0], 0.1) == pytest.approx(0.1 + 1.8)


def test_the_start_is_soon_forgotten_and_the_window_is_bounded():
    assert averages_of([100.0] + [0.0] * 200, 0.999) < 1e-3
    late = averages_of([0.0] * 3000 + [1.0] * 50, 0.99)
    assert late == pytest.approx(1 - 0.99**50, abs=0.01)


def test_every_tenth_step_moves_the_average_by_as_much_as_ten_do():
    assert averages_of([3.0], 0.9, every=10) == 3.0
    assert averages_of([3.0] + [5.0] * 8, 0.9, every=10) == 3.0
    assert averages_of([3.0] + [5.0] * 9, 0.9, every=10) == pytest.approx(5 - 2 * (10 / 19) ** 10)
    late = [0.0] * 1000 + [1.0] * 100
    assert averages_of(late, 0.99, every=10) == pytest.approx(averages_of(late, 0.99), rel=1e-4)
    drifting = [step / 1000 for step in range(3000)]
    assert averages_of(drifting, 0.99, every=10) == pytest.approx(averages_of(drifting, 0.99), abs=0.006)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"decay": 1.0}, r"ema\.decay=1\.0: expected a value in \[0, 1\)"),
        ({"decay": -0.1}, r"ema\.decay=-0\.1"),
        ({"every": 0}, r"ema\.every=0: expected 1 or more"),
    ],
)
def test_impossible_averages_are_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        AverageConfig(**wrong)


def test_buffers_are_averaged_too_and_counts_are_copied():
    model = torch.nn.BatchNorm1d(1, momentum=1.0)
    averaged = MovingAverage(model, AverageConfig(0.5, 1))
    for value in (1.0, 3.0):
        model(torch.tensor([[value], [value]]))  # the running mean becomes the value
        averaged.update(model)
    assert averaged.module.get_buffer("running_mean").item() == pytest.approx(2 / 11 + 3 * 9 / 11)
    assert averaged.module.get_buffer("num_batches_tracked").item() == 2


def test_another_model_can_be_followed():
    one, other = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    averaged = MovingAverage(one, AverageConfig(0.0, 1))
    for model in (one, other):
        averaged.update(model)
        assert averaged.module.get_parameter("weight").equal(model.weight)
