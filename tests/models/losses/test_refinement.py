import numpy as np
import pytest
import torch

from models.losses.refinement import correction_ratio, refine_labels, update_remember_rates
from models.losses.superpixels import superpixel_mean


@pytest.fixture(scope="module")
def golden(golden_file):
    return golden_file("noisy/sp_guided.npz")


@pytest.fixture(scope="module")
def probability(golden):
    """The mean of both networks, as the method computes it."""
    return sum(torch.from_numpy(golden[f"logits{i}"]).softmax(1) for i in (1, 2)) / 2


RATIO = torch.tensor([0.1, 0.2], dtype=torch.float64)


@pytest.mark.parametrize(("confidence", "name"), [(0.0, "nothr"), (0.5, "thr")])
def test_two_classes_equal_the_reference(golden, probability, confidence, name):
    refined = refine_labels(probability, torch.from_numpy(golden["noisy"]).long(), RATIO, confidence)
    np.testing.assert_array_equal(refined, golden[f"refine_pixel_b0.1_f0.2_{name}"])


@pytest.mark.parametrize("style", ["pixel", "mean"])
def test_refinement_raises_the_accuracy_of_the_labels(golden, probability, style):
    clean, noisy = (torch.from_numpy(golden[name]).long() for name in ("clean", "noisy"))
    if style == "mean":
        probability = superpixel_mean(probability, torch.from_numpy(golden["superpixel"]))
        np.testing.assert_allclose(probability[:, 1], golden["avg_prob_sp"], atol=2e-6)
    refined = refine_labels(probability, noisy, RATIO)
    assert (noisy == clean).float().mean() == pytest.approx(0.846, abs=5e-4)
    assert (refined == clean).float().mean() >= 0.93


def two_class_rule(v, label, ratio):
    """The binary rule as it is published: ranks of the foreground probability within each label."""
    refined = label.copy()
    for value, order in ((0, -1), (1, 1)):
        ranked = np.sort(order * v[label == value])
        k = int(ratio[value] * len(ranked))
        if k:
            candidate = (label == value) & (order * v < ranked[k - 1])
            refined[candidate] = v[candidate] > 0.5
    return refined


@pytest.mark.parametrize("seed", range(4))
def test_two_classes_equal_the_binary_rule(seed):
    generator = np.random.default_rng(seed)
    v = generator.permutation(2 * 15 * 15).reshape(2, 15, 15) / 450
    label = (v + generator.normal(0, 0.4, v.shape) > 0.5).astype(np.int64)
    ratio = generator.uniform(0, 0.7, 2)
    probability = torch.from_numpy(np.stack([1 - v, v], 1))
    refined = refine_labels(probability.float(), torch.from_numpy(label), torch.from_numpy(ratio))
    np.testing.assert_array_equal(refined, two_class_rule(v, label, ratio))


def test_four_classes_worked_by_hand():
    """Of the four pixels labelled 2 the two least believed are doubted, strictly: the first becomes 3."""
    own = [0.1, 0.3, 0.6, 0.9]
    probability = torch.tensor([[(1 - p) * 0.2, (1 - p) * 0.1, p, (1 - p) * 0.7] for p in own]).T.view(1, 4, 1, 4)
    label = torch.full((1, 1, 4), 2)
    assert refine_labels(probability, label, torch.full((4,), 0.5).double()).tolist() == [[[3, 2, 2, 2]]]
    assert refine_labels(probability, label, torch.full((4,), 0.75).double()).tolist() == [[[3, 3, 2, 2]]]
    assert refine_labels(probability, label, torch.full((4,), 0.75).double(), 0.6).tolist() == [[[3, 2, 2, 2]]]


def test_without_doubt_nothing_changes():
    probability = torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)).softmax(1)
    label = torch.zeros(2, 6, 6).long()
    assert refine_labels(probability, label, torch.zeros(3).double()).equal(label)


def test_images_are_ranked_together():
    probability = torch.tensor([[0.1, 0.2], [0.3, 0.9]]).view(2, 1, 1, 2)
    probability = torch.cat([probability, 1 - probability], 1)
    label = torch.zeros(2, 1, 2).long()
    ratio = torch.tensor([0.75, 0.0]).double()
    assert refine_labels(probability, label, ratio).flatten().tolist() == [1, 1, 0, 0]
    apart = torch.cat([refine_labels(probability[i : i + 1], label[i : i + 1], ratio) for i in range(2)])
    assert apart.flatten().tolist() == [0, 0, 0, 0]


def test_the_correction_ratio_has_four_digits():
    ratio = correction_ratio(torch.tensor([0.97956, 0.93349]).double(), 0.5)
    assert ratio.tolist() == pytest.approx([0.0102, 0.0333], abs=1e-12)


def test_remember_rates_rise_to_their_ceiling_and_never_fall():
    rates = torch.tensor([0.9644, 0.7, 0.85, 0.95]).double()
    raised = update_remember_rates(rates, torch.tensor([0.99, 0.9, 0.9, 0.9]).double(), 1.1)
    assert raised.tolist() == pytest.approx([0.99, 0.77, 0.9, 0.95])
