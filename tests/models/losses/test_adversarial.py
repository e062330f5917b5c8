"""Losses of segmentation network and discriminators against reference values."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.losses.adversarial import discriminator_loss, segmentor_loss

MAIN, AUXILIARY = 0.1, 0.02  # published weights
N_SETS = 3


def batch_of(logits):
    """(task, data set, image, 1, h, w) as (B, T, h, w), annotated tasks, and data sets; task t is known in set t."""
    tasks, sets, images = logits.shape[:3]
    source = torch.arange(sets).repeat_interleave(images)
    flat = torch.from_numpy(logits[:, :, :, 0]).flatten(1, 2).transpose(0, 1)
    return flat.contiguous(), source[:, None] == torch.arange(tasks), source


@pytest.fixture(scope="module")
def golden(golden_file):
    return golden_file("partial/adversarial.npz")


def test_both_players_equal_the_reference(golden):
    for name, head, weight in (("", "main", MAIN), ("aux_", "aux", AUXILIARY)):
        batch = batch_of(golden[f"{name}disc_logits"])
        found = weight * segmentor_loss(*batch, N_SETS).sum()
        assert found.item() == pytest.approx(golden[f"gen_adv_{head}"].item(), abs=1e-9)
        losses = discriminator_loss(*batch, N_SETS)
        np.testing.assert_allclose(losses, golden[f"{name}disc_loss_per_task"], atol=1e-9)
        assert losses.sum().item() == pytest.approx(golden[f"{name}disc_loss"].item(), abs=1e-9)


def test_the_sum_of_all_terms_equals_the_reference(golden):
    """Supervised, adversarial and pseudo-labelled parts, the auxiliary head at 0.4."""
    supervised = golden["sup_main"].sum() + 0.4 * golden["sup_aux"].sum()
    pseudo = (golden["semi_weight"] * (golden["semi_main"] + 0.4 * golden["semi_aux"])).sum()
    assert pseudo == pytest.approx(golden["semi_total"])
    main, auxiliary = (
        segmentor_loss(*batch_of(golden[f"{name}disc_logits"]), N_SETS).sum().item() for name in ("", "aux_")
    )
    total = supervised + MAIN * main + AUXILIARY * auxiliary + pseudo
    assert total == pytest.approx(golden["generator_total"].item(), abs=1e-9)


def test_the_order_of_the_images_does_not_matter(golden):
    logits, is_known, source = batch_of(golden["disc_logits"])
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
    for loss in (segmentor_loss, discriminator_loss):
        shuffled = loss(logits[order], is_known[order], source[order], N_SETS)
        torch.testing.assert_close(shuffled, loss(logits, is_known, source, N_SETS))


def test_data_sets_count_alike_whatever_their_number_of_images():
    logits = torch.randn(6, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    source = torch.tensor([0, 1, 1, 1, 2, 3])
    is_known = torch.tensor([[1], [0], [0], [0], [0], [1]]).bool()
    ones, zeros = torch.ones_like(logits), torch.zeros_like(logits)

    def mean_of(target, *images):
        return F.binary_cross_entropy_with_logits(logits[list(images)], target[list(images)])

    fooled = mean_of(ones, 1, 2, 3) + mean_of(ones, 4)
    torch.testing.assert_close(segmentor_loss(logits, is_known, source, 4)[0], fooled)
    known = (mean_of(ones, 0) + mean_of(ones, 5)) / 2
    unknown = (mean_of(zeros, 1, 2, 3) + mean_of(zeros, 4)) / 2
    torch.testing.assert_close(discriminator_loss(logits, is_known, source, 4)[0], (known + unknown) / 2)


def test_known_maps_get_no_gradient_from_the_segmentor_loss(golden):
    logits, is_known, source = batch_of(golden["disc_logits"])
    segmentor_loss(logits.requires_grad_(), is_known, source, N_SETS).sum().backward()
    assert logits.grad is not None
    assert (logits.grad[is_known] == 0).all()
    assert (logits.grad[~is_known] < 0).all()


def test_a_task_known_everywhere_or_nowhere_has_a_finite_loss():
    logits, source = torch.zeros(2, 2, 1, 1), torch.tensor([0, 1])
    is_known = torch.tensor([[True, False], [True, False]])
    assert segmentor_loss(logits, is_known, source, 2).tolist() == pytest.approx([0, 2 * np.log(2)])
    assert discriminator_loss(logits, is_known, source, 2).tolist() == pytest.approx([np.log(2) / 2] * 2)
