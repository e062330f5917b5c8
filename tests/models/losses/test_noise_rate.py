import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from models.losses.noise_rate import count_agreement, estimate_rates

ONES = torch.ones(2)


def two_classes(*foreground):
    """(1, 2, 1, N) probabilities of two classes."""
    probability = torch.tensor(foreground).view(1, 1, 1, -1)
    return torch.cat([1 - probability, probability], 1)


def test_agreement_by_hand():
    label = torch.tensor([[[0, 0, 0, 1, 1]]])
    counts = count_agreement(two_classes(0.1, 0.2, 0.7, 0.9, 0.4), label, ONES)
    assert counts.tolist() == [[2, 3], [1, 2]]
    assert counts.dtype == torch.int64


def test_class_weights_are_divided_out():
    """A weight of 4 in the loss turns a probability of 1/2 into 4/5."""
    probability, label = two_classes(0.75, 0.85), torch.ones(1, 1, 2, dtype=torch.int64)
    assert count_agreement(probability, label, torch.tensor([1.0, 4.0]))[1].tolist() == [1, 2]
    assert count_agreement(probability, label, ONES)[1].tolist() == [2, 2]


def test_counts_of_batches_add_up():
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand(4, 3, 8, 8, generator=generator).softmax(1)
    label = torch.randint(0, 3, (4, 8, 8), generator=generator)
    weights = torch.tensor([1.0, 2.0, 1.5])
    parts = [count_agreement(probability[[i]], label[[i]], weights) for i in range(4)]
    assert torch.equal(torch.stack(parts).sum(0), count_agreement(probability, label, weights))


def test_no_count_waits_for_the_device():
    with FakeTensorMode():
        count_agreement(torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64), torch.ones(3))


def test_rates_are_bounded_and_name_the_classes_below_the_bound():
    rates, too_low = estimate_rates(torch.tensor([[90, 100], [20, 100], [0, 0], [50, 100]]))
    assert rates.tolist() == [0.9, 0.5, 1.0, 0.5]
    assert rates.dtype == torch.float64
    assert too_low == [1]


def test_right_predictions_recover_the_share_of_correct_labels():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(8, 32, 32, generator=generator) < 0.2
    wrong = torch.rand(8, 32, 32, generator=generator) < 0.1
    label = (clean ^ wrong).long()
    probability = torch.stack([~clean, clean], 1).float() * 0.8 + 0.1
    rates, _ = estimate_rates(count_agreement(probability, label, torch.tensor([1.0, 4.0])))
    for value in range(2):
        assert rates[value].item() == pytest.approx((clean == value)[label == value].double().mean().item())
