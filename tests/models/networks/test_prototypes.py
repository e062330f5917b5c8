import numpy as np
import pytest
import torch

from models.networks.alp import ALPHead
from models.networks.prototypes import MAX_TEMPERATURE, Prototypes, assignment, cosine_scores, extract

CASES = {"c0_32_train_big": 4, "c1_32_val2_big": 2, "c2_32_train_tiny": 4, "c5_32_train_2shot": 4}
MODES = {"mask": (False, False), "gridconv": (True, False), "gridconv+": (True, True)}


@pytest.fixture(scope="module")
def golden(golden_file):
    return golden_file("fewshot/alp_module.npz")


def support_of(golden, case, side):
    features = torch.from_numpy(golden[f"{case}/support"])[None]
    mask = torch.from_numpy(golden[f"{case}/fg_mask"])[None]
    return features, mask if side == "fg" else 1 - mask


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("side", ["fg", "bg"])
@pytest.mark.parametrize("mode", MODES)
def test_scores_and_assignments_equal_the_reference(golden, case, side, mode):
    key = f"{case}/{side}_{mode}"
    features, mask = support_of(golden, case, side)
    local, with_global = MODES[mode]
    window = CASES[case]
    prototypes = extract(features, mask[:, None], window, 0.95, torch.tensor([[local]]), torch.tensor([with_global]))
    if f"{key}_score" not in golden:  # the reference raises here: no cell above the threshold
        assert prototypes.is_valid[0, 0].nonzero().tolist() == [[prototypes.is_valid.shape[2] - 1]]
        return
    query = torch.from_numpy(golden[f"{case}/query"])[None, None]
    np.testing.assert_allclose(cosine_scores(query, prototypes, 20.0)[0, 0, 0], golden[f"{key}_score"], atol=1e-4)
    if f"{key}_assign" in golden:
        valid = prototypes.is_valid[0, 0].nonzero().flatten().numpy()
        position = np.searchsorted(valid, assignment(query, prototypes)[0, 0, 0].numpy())
        np.testing.assert_array_equal(position, golden[f"{key}_assign"])


def test_no_covered_cell_falls_back_to_the_masked_average_and_is_counted():
    features = torch.randn(2, 1, 8, 16, 16)
    foreground = torch.zeros(2, 1, 16, 16)
    foreground[0] = 1  # nothing left of the background
    foreground[1, 0, :5, :5] = 1
    prototypes, fallback = ALPHead().prototypes(features, foreground, 4, 4)
    assert fallback.tolist() == [True, False]
    assert prototypes.is_valid[0, 0].nonzero().flatten().tolist() == [18]  # the mean of the averages alone
    scores = cosine_scores(features, prototypes, 20.0)
    assert scores.isfinite().all()
    assert torch.equal(scores[0, 0, 0], torch.zeros(16, 16))  # an empty mask resembles nothing


def test_prototypes_of_a_batch_are_those_of_its_episodes():
    features, foreground = torch.randn(3, 2, 8, 16, 16), (torch.rand(3, 2, 16, 16) > 0.3).float()
    foreground[1, :, 4:13, 4:13] = 1
    head = ALPHead()
    together, _ = head.prototypes(features, foreground, 4, 4)
    query = torch.randn(3, 2, 8, 16, 16)
    scores = head.scores(query, together)
    for episode in range(3):
        alone, _ = head.prototypes(features[episode : episode + 1], foreground[episode : episode + 1], 4, 4)
        for image in range(2):
            single = head.scores(query[episode : episode + 1, image : image + 1], alone)
            torch.testing.assert_close(single[0, 0], scores[episode, image])


def test_classes_together_score_as_each_alone():
    torch.manual_seed(0)
    features, masks = torch.randn(2, 3, 8, 16, 16), (torch.rand(2, 4, 3, 16, 16) > 0.01).float()
    use_local = torch.tensor([[True, False, True, True], [False, True, True, False]])
    with_global = torch.tensor([True, False, False, True])
    query = torch.randn(2, 1, 8, 16, 16)
    together = extract(features, masks, 4, 0.95, use_local, with_global)
    scores = cosine_scores(query, together, 20.0)
    cells, averages = together.is_valid.split([48, 16], 2)
    assert torch.equal(cells.any(2), use_local)  # enough of every mask's cells are covered
    joined, means = averages.unflatten(2, (4, 4)).split([3, 1], 2)  # by shot and class
    assert torch.equal(means[:, :, 0], torch.diag_embed(~use_local))
    assert torch.equal(joined, torch.diag_embed(use_local & with_global)[:, :, None].expand(-1, -1, 3, -1))
    for one in (slice(each, each + 1) for each in range(4)):
        alone = extract(features, masks[:, one], 4, 0.95, use_local[:, one], with_global[one])
        chosen = [*range(48), *range(48 + one.start, 64, 4)]
        assert torch.equal(alone.is_valid, together.is_valid[:, one, chosen])
        torch.testing.assert_close(cosine_scores(query, alone, 20.0), scores[:, :, one])
        position = torch.tensor(chosen)[assignment(query, alone)]
        assert torch.equal(position, assignment(query, together)[:, :, one])


def test_groups_score_as_each_alone():
    torch.manual_seed(0)
    features, masks = torch.randn(3, 2, 8, 16, 16), (torch.rand(3, 2, 2, 16, 16) > 0.02).float()
    of_three = extract(features, masks, 4, 0.95, torch.rand(3, 2) > 0.3, torch.tensor([False, True]))
    query = torch.randn(1, 2, 8, 16, 16)
    groups = Prototypes(of_three.direction[None], of_three.is_valid[None])
    scores, nearest = cosine_scores(query, groups, 20.0), assignment(query, groups)
    assert scores.shape == nearest.shape == (1, 2, 3, 2, 16, 16)
    for one in range(3):
        alone = Prototypes(of_three.direction[one : one + 1], of_three.is_valid[one : one + 1])
        torch.testing.assert_close(scores[:, :, one], cosine_scores(query, alone, 20.0))
        assert torch.equal(nearest[:, :, one], assignment(query, alone))


@pytest.mark.parametrize("cosine", [-1.0, 1.0])
def test_scores_reach_both_ends_of_their_range(cosine):
    direction = torch.nn.functional.normalize(torch.randn(1, 1, 8), dim=2)
    prototypes = Prototypes(direction, torch.ones(1, 1, 1, dtype=torch.bool))
    query = (7 * cosine * direction).view(1, 1, 8, 1, 1).expand(-1, -1, -1, 2, 2)
    scores = cosine_scores(query, prototypes, MAX_TEMPERATURE)
    torch.testing.assert_close(scores, torch.full((1, 1, 1, 2, 2), MAX_TEMPERATURE * cosine))


def test_scores_do_not_depend_on_the_order_of_shots():
    features, foreground = torch.randn(1, 3, 8, 16, 16), (torch.rand(1, 3, 16, 16) > 0.02).float()
    query = torch.randn(1, 1, 8, 16, 16)
    head = ALPHead()
    order = torch.tensor([2, 0, 1])
    one = head.scores(query, head.prototypes(features, foreground, 4, 4)[0])
    other = head.scores(query, head.prototypes(features[:, order], foreground[:, order], 4, 4)[0])
    torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
