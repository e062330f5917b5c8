import pytest
import torch

from util.errors import UserError
from util.runtime.meters import RunningMeans


def added(*values):
    means = RunningMeans()
    for value in values:
        means.add({"loss": torch.tensor(value)})
    return means


def test_the_mean_since_the_last_reading():
    means = added(1.0, 2.0, 6.0)
    assert means.read(3) == {"loss": 3.0}
    means.add({"loss": torch.tensor(5.0)})
    assert means.read(4) == {"loss": 5.0}


def test_a_value_that_is_overwritten_later_was_counted_as_it_was():
    """A recorded graph writes each step's losses to the same memory."""
    loss, means = torch.tensor(1.0), RunningMeans()
    for value in (1.0, 3.0):
        loss.fill_(value)
        means.add({"loss": loss})
    assert means.read(2) == {"loss": 2.0}


def test_a_value_of_some_steps_is_averaged_over_these():
    means = added(1.0, 3.0)
    means.add({"loss": torch.tensor(2.0), "adversarial": torch.tensor(7.0)})
    assert means.read(3) == {"loss": 2.0, "adversarial": 7.0}


def test_a_restored_state_continues_where_it_was():
    means, other = added(1.0, 2.0), RunningMeans()
    other.load_state_dict(means.state_dict())
    other.add({"loss": torch.tensor(6.0)})
    assert other.read(3) == {"loss": 3.0}


def test_a_loss_that_is_not_finite_names_its_steps():
    with pytest.raises(UserError, match="between steps 9 and 10"):
        added(1.0, float("nan")).reduce(10)
