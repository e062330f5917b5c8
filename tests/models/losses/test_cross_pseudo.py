import numpy as np
import pytest
import torch

from models.losses.cross_pseudo import (
    CrossConfig,
    Views,
    batch_dice_loss,
    cross_loss,
    disagreement,
    ramp_up,
    teacher_map,
)

FORMS = {
    "loss_code_2022": CrossConfig("scalar", "original", "mean_logit"),
    "loss_pixelwise": CrossConfig("pixel", "original", "mean_logit"),
    "loss_default": CrossConfig(),
    "loss_paper_form": CrossConfig("pixel", "mean_prob", "mean_prob"),
    "loss_vdpl_form": CrossConfig("scalar", "mean_logit", "mean_prob"),
}
VALUES = {"loss_paper_form": 4.477168, "loss_vdpl_form": 4.538712}  # published to six decimals


@pytest.fixture
def golden(golden_file):
    arrays = golden_file("semi_dg/cacps_loss.npz")
    return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays}


def students(golden):
    return [
        Views(*(golden[f"student_{side}{view}"].clone().requires_grad_() for view in ("", "_aug"))) for side in "lr"
    ]


def pseudo_labels(golden, config):
    labels = []
    for side in "lr":
        maps = [
            teacher_map(Views(golden[f"teacher_{side}_{u}"], golden[f"teacher_{side}_{u}_aug"]), config)
            for u in ("u0", "u1")
        ]
        labels.append(torch.lerp(maps[0], maps[1], golden["cutmix_mask"]).argmax(1))
    return labels[0], labels[1]


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_the_loss_equals_the_reference(golden, name):
    config = FORMS[name]
    labels = pseudo_labels(golden, config)
    for side, label in zip("lr", labels, strict=True):
        assert torch.equal(label, golden[f"pseudo_{side}_{config.teacher.replace('mean_', '')}_mean"])
    left, right = students(golden)
    loss = cross_loss(left, right, labels, config)
    assert loss.item() == pytest.approx(float(golden.get(name, VALUES.get(name))), abs=1e-9 if name in golden else 1e-6)


@pytest.mark.parametrize(("name", "key"), [("loss_code_2022", "code_2022"), ("loss_pixelwise", "pixelwise")])
def test_gradients_equal_the_reference(golden, name, key):
    left, right = students(golden)
    cross_loss(left, right, pseudo_labels(golden, FORMS[name]), FORMS[name]).backward()
    for side, views in (("l", left), ("r", right)):
        for view, logits in zip(("", "_aug"), views, strict=True):
            torch.testing.assert_close(logits.grad, golden[f"grad_{key}/student_{side}{view}"], atol=1e-12, rtol=1e-9)


def test_the_disagreement_is_a_divergence(golden):
    for side, views in zip("lr", students(golden), strict=True):
        torch.testing.assert_close(disagreement(views), golden[f"var_{side}"])
        torch.testing.assert_close((-disagreement(views)).exp(), golden[f"conf_{side}"])
        assert (disagreement(views) > 0).all()
        assert not disagreement(Views(views.plain, views.plain)).any()
        assert not disagreement(Views(views.plain, views.plain + 3.0)).abs().gt(1e-12).any()  # equal distributions


def test_a_constant_disagreement_makes_pixels_and_their_mean_equal():
    torch.manual_seed(0)
    steady = torch.randn(1, 3, 1, 1).expand(2, 3, 5, 4)
    views = Views(steady, steady.flip(1))
    labels = torch.randint(0, 3, (2, 5, 4)), torch.randint(0, 3, (2, 5, 4))
    pixel, scalar = (cross_loss(views, views, labels, CrossConfig(weighting)) for weighting in ("pixel", "scalar"))
    torch.testing.assert_close(pixel, scalar)
    plain = cross_loss(views, views, labels, CrossConfig("none"))
    assert plain > pixel - 2 * disagreement(views).mean()


def test_a_constant_confidence_teaches_by_labels_alone(golden):
    left, right = students(golden)
    config = CrossConfig(detach_confidence=True)
    cross_loss(left, right, pseudo_labels(golden, config), config).backward()
    assert left.plain.grad is not None
    assert left.plain.grad.any()
    assert left.augmented.grad is None


def test_half_precision_logits_are_compared_in_single_precision(golden):
    plain, augmented = (each.detach().to(torch.bfloat16) for each in students(golden)[0])
    exact = disagreement(Views(plain.double(), augmented.double()))
    torch.testing.assert_close(disagreement(Views(plain, augmented)).double(), exact, atol=1e-5, rtol=1e-4)


def test_dice_loss_equals_the_reference(golden_file):
    golden = golden_file("semi_dg/dice.npz")
    logits, label = torch.from_numpy(golden["logits"]), torch.from_numpy(golden["labels"])
    per_class = batch_dice_loss(logits, label)
    np.testing.assert_allclose(per_class.numpy(), golden["per_class_loss"], atol=1e-12)
    assert per_class.sum().item() == pytest.approx(float(golden["total_loss"]), abs=1e-9)


def test_the_ramp_rises_to_one():
    assert ramp_up(0, 5) == pytest.approx(np.exp(-5))
    assert [ramp_up(step, 5) for step in (5, 6)] == [1.0, 1.0]
    assert ramp_up(0, 0) == 1.0
    assert ramp_up(2, 5) == pytest.approx(np.exp(-1.8))
