"""Losses of partially annotated images against reference values, and what no annotation must not do."""

import numpy as np
import pytest
import torch
from monai.losses.dice import DiceLoss

from models.losses.partial_labels import binary_cross_entropy, binary_dice, known_tasks, task_means

TASKS = (1, 4, 2)  # vessel, lesions, disc and cup
N_CLASSES = sum(TASKS)


def masks_of(labels, task):
    """Class values (B, H, W) as masks (B, K, H, W): the disc is rim or cup, all else is exclusive."""
    labels = torch.as_tensor(labels)
    if task == "odoc":
        return torch.stack([(labels == 1) | (labels == 2), labels == 2], 1)
    return torch.stack([labels == value for value in range(1, 2 if task == "vessel" else 5)], 1)


@pytest.fixture(scope="module")
def disjoint(golden_file):
    """Logits, masks and availability per class of three images, each annotated for another task."""
    golden = golden_file("partial/partial_mask.npz")
    target = torch.cat([masks_of(golden[f"labels_{task}"], task) for task in ("vessel", "lesion", "odoc")], 1)
    is_known = torch.from_numpy(golden["availability"]).bool().repeat_interleave(torch.tensor(TASKS), 1)
    return golden, torch.from_numpy(golden["logits"]), target, is_known


@pytest.mark.parametrize("task", ["vessel", "odoc"])
@pytest.mark.parametrize("smooth", [1e-5, 1.0])
def test_dice_equals_the_reference(golden_file, task, smooth):
    golden, key = golden_file("partial/binary_dice.npz"), f"{task}/s{smooth}"
    logits = torch.from_numpy(golden[f"{task}/logits"]).requires_grad_()
    labels = torch.from_numpy(golden[f"{task}/labels"])
    target = masks_of(labels, task)
    is_known = torch.ones(target.shape[:2], dtype=torch.bool)
    as_background = binary_dice(logits, target, is_known, smooth=smooth)
    np.testing.assert_allclose(as_background.detach(), golden[f"{key}/per_sample_class"], atol=1e-9)
    loss = task_means(as_background, is_known, [target.shape[1]])
    assert loss.item() == pytest.approx(golden[f"{key}/loss_255_background"].item(), abs=1e-9)
    loss.sum().backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad, golden[f"{key}/grad_255_background"], atol=1e-12)
    ignored = binary_dice(logits, target, is_known, (labels != 255)[:, None], smooth)
    expected = golden[f"{key}/loss_255_ignored"].item()
    assert ignored.mean().item() == pytest.approx(expected, abs=1e-9)


def test_dice_equals_another_implementation():
    logits = torch.randn(2, 3, 8, 9, generator=torch.Generator().manual_seed(0))
    target = logits.roll(1, 3) > 0.3
    loss = binary_dice(logits, target, torch.ones(2, 3, dtype=torch.bool), smooth=1.0).mean()
    other = DiceLoss(sigmoid=True, squared_pred=True, smooth_nr=1.0, smooth_dr=1.0)(logits, target.float())
    torch.testing.assert_close(loss, other)


def test_disjoint_tasks_equal_the_reference(disjoint):
    golden, logits, target, is_known = disjoint
    logits = logits.clone().requires_grad_()
    losses = task_means(binary_dice(logits, target, is_known), is_known, TASKS)
    np.testing.assert_allclose(losses.detach(), golden["task_losses"], atol=1e-9)
    assert losses.sum().item() == pytest.approx(golden["total"].item(), abs=1e-9)
    losses.sum().backward()
    assert logits.grad is not None
    np.testing.assert_allclose(logits.grad, golden["grad"], atol=1e-12)


@pytest.mark.parametrize("loss", [binary_dice, binary_cross_entropy])
def test_what_is_not_annotated_has_exactly_no_gradient_whatever_its_value(disjoint, loss):
    _, logits, target, is_known = disjoint
    valid = torch.ones(3, 1, *logits.shape[2:], dtype=torch.bool)
    valid[:, :, :5] = False
    counts = is_known[:, :, None, None] & valid
    finite = task_means(loss(logits, target, is_known, valid), is_known, TASKS)
    broken = torch.where(counts, logits, torch.nan).requires_grad_()
    losses = task_means(loss(broken, target | ~counts, is_known, valid), is_known, TASKS)
    torch.testing.assert_close(losses, finite, rtol=0, atol=0)
    losses.sum().backward()
    assert broken.grad is not None
    assert (broken.grad[~counts] == 0).all()
    assert (broken.grad[counts] != 0).all()


def test_valid_pixels_of_each_class_are_as_good_as_a_crop():
    logits = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(1))
    target, is_known = logits.roll(1, 3) > 0, torch.ones(2, 3, dtype=torch.bool)
    valid = torch.zeros(2, 3, 6, 7, dtype=torch.bool)
    valid[:, 1, 2:, :4] = True
    for loss in (binary_dice, binary_cross_entropy):
        whole = loss(logits, target, is_known, valid)
        cropped = loss(logits[..., 2:, :4], target[..., 2:, :4], is_known)
        torch.testing.assert_close(whole[:, 1], cropped[:, 1])
        assert whole[:, [0, 2]].tolist() == [[0, 0], [0, 0]]


def test_cross_entropy_by_hand():
    logits = torch.zeros(1, 1, 1, 2)
    logits[..., 0] = 2.0
    target = torch.tensor([[[[True, False]]]])
    known = torch.tensor([[True]])
    expected = (np.log1p(np.exp(-2)) + np.log(2)) / 2
    assert binary_cross_entropy(logits, target, known).item() == pytest.approx(expected)
    only_first = torch.tensor([[[[True, False]]]])
    assert binary_cross_entropy(logits, target, known, only_first).item() == pytest.approx(np.log1p(np.exp(-2)))


def test_means_by_hand():
    """Task 0: images 0 and 1; task 1: one class of image 0, both of image 2; task 2: no image."""
    loss = torch.tensor([[1.0, 2.0, 9.0, 9.0], [3.0, 9.0, 9.0, 9.0], [torch.nan, 4.0, 8.0, 9.0]], requires_grad=True)
    known = torch.tensor([[1, 1, 0, 0], [1, 0, 0, 0], [0, 1, 1, 0]]).bool()
    means = task_means(loss, known, (1, 2, 1))
    assert means.tolist() == [2, 4, 0]
    means.sum().backward()
    assert loss.grad is not None
    assert loss.grad.tolist() == [[0.5, 0.5, 0, 0], [0.5, 0, 0, 0], [0, 0.25, 0.25, 0]]
    assert known_tasks(known, (1, 2, 1)).tolist() == [[True, False, False], [True, False, False], [False, True, False]]


def test_half_precision_is_computed_in_full():
    logits = torch.randn(1, 2, 64, 64, generator=torch.Generator().manual_seed(2)).bfloat16()
    target, known = logits.float() > 0.5, torch.ones(1, 2, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        for loss in (binary_dice, binary_cross_entropy):
            found = loss(logits, target, known)
            assert found.dtype == torch.float32
            torch.testing.assert_close(found, loss(logits.float(), target, known), rtol=0, atol=0)


def test_tasks_of_other_classes_are_an_error():
    with pytest.raises(ValueError, match=r"tasks of \(1, 2\) classes, values of 4"):
        task_means(torch.zeros(1, 4), torch.ones(1, 4, dtype=torch.bool), (1, 2))
