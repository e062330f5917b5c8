import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from models.losses.noise_rate import break_even_log_odds, break_even_rates, count_log_odds


def two_classes(*foreground):
    """(1, 2, 1, N) probabilities of two classes."""
    probability = torch.tensor(foreground).view(1, 1, 1, -1)
    return torch.cat([1 - probability, probability], 1)


def test_break_even_by_hand():
    """Of the three pixels most probably foreground two are labelled so; of the four others, three background."""
    label = torch.tensor([[[0, 0, 0, 0, 1, 1, 1]]])
    counts = count_log_odds(two_classes(0.1, 0.2, 0.3, 0.7, 0.9, 0.8, 0.4), label)
    assert counts.sum((1, 2)).tolist() == [7, 7]
    assert counts[:, 1].sum(1).tolist() == [4, 3]
    assert break_even_rates(counts).tolist() == pytest.approx([3 / 4, 2 / 3])


def test_as_many_pixels_are_above_the_break_even_point_as_are_labelled():
    generator = torch.Generator().manual_seed(0)
    probability = (3 * torch.randn(2, 3, 32, 32, generator=generator)).softmax(1)
    label = torch.randint(0, 3, (2, 32, 32), generator=generator) // 2  # no class 2
    limits = break_even_log_odds(count_log_odds(probability, label)).view(3, 1, 1)
    predicted = (torch.logit(probability) > limits).sum((0, 2, 3))
    assert predicted.tolist() == pytest.approx(label.flatten().bincount(minlength=3).tolist(), abs=10)


@pytest.mark.parametrize("weight", [0.1, 1.0, 20.0])
def test_class_weights_of_the_loss_do_not_matter(weight):
    label = torch.tensor([[[0, 0, 0, 0, 1, 1, 1]]])
    odds = (
        weight
        * two_classes(0.1, 0.2, 0.3, 0.7, 0.9, 0.8, 0.4)[:, 1]
        / two_classes(0.1, 0.2, 0.3, 0.7, 0.9, 0.8, 0.4)[:, 0]
    )
    foreground = odds / (1 + odds)
    counts = count_log_odds(torch.stack([1 - foreground, foreground], 1), label)
    assert break_even_rates(counts).tolist() == pytest.approx([3 / 4, 2 / 3])


def test_networks_that_say_the_same_everywhere_give_the_share_of_the_class():
    label = torch.tensor([[[0] * 75 + [1] * 25]])
    rates = break_even_rates(count_log_odds(torch.full((1, 2, 1, 100), 0.5), label))
    assert rates.tolist() == pytest.approx([0.75, 0.25])


def test_certain_networks_and_absent_classes():
    label = torch.tensor([[[0, 0, 1]]])
    probability = torch.nn.functional.one_hot(label, 3).movedim(-1, 1).float()
    rates = break_even_rates(count_log_odds(probability, label))
    assert rates.tolist() == [1, 1, 1]
    assert rates.dtype == torch.float64


def test_counts_of_batches_add_up():
    generator = torch.Generator().manual_seed(0)
    probability = torch.rand(4, 3, 8, 8, generator=generator).softmax(1)
    label = torch.randint(0, 3, (4, 8, 8), generator=generator)
    parts = [count_log_odds(probability[[i]], label[[i]]) for i in range(4)]
    assert torch.equal(torch.stack(parts).sum(0), count_log_odds(probability, label))


def test_no_count_waits_for_the_device():
    with FakeTensorMode():
        count_log_odds(torch.rand(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.int64))


def test_right_predictions_recover_the_share_of_correct_labels():
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(8, 32, 32, generator=generator) < 0.2
    label = clean.clone()
    for value in (True, False):  # as many pixels lost as added
        label.flatten()[(clean == value).flatten().nonzero()[:300]] = not value
    probability = torch.stack([~clean, clean], 1).float() * 0.8 + 0.1
    rates = break_even_rates(count_log_odds(probability, label.long()))
    for value in range(2):
        true = (clean == value)[label == value].double().mean().item()
        assert rates[value].item() == pytest.approx(true)
        assert true < 0.96
