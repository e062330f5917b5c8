import typing

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from models.losses import LOSSES, LossConfig, LossName, build_loss
from models.losses.base import SegmentationLoss
from util.errors import ConfigError


def case(n_classes, scale=1.0):
    generator = torch.Generator().manual_seed(n_classes)
    logits = scale * torch.randn(2, n_classes, 6, 8, generator=generator)
    return logits.requires_grad_(), torch.randint(n_classes, (2, 6, 8), generator=generator)


def test_every_loss_can_be_chosen():
    assert typing.get_args(LossName) == tuple(LOSSES)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_lower_for_better_logits_and_reaches_all(name, n_classes):
    loss = build_loss(name, LossConfig(), n_classes)
    logits, label = case(n_classes)
    value = loss(logits, label)
    assert value.shape == ()
    assert value.dtype == torch.float32
    value.backward()
    assert logits.grad is not None
    assert (logits.grad.abs().amax((0, 2, 3)) > 0).all()
    assert all(parameter.grad is not None for parameter in loss.parameters())
    step = 0.1 / logits.grad.abs().max()
    assert loss(logits.detach() - step * logits.grad, label) < value


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("name", LOSSES)
def test_extreme_logits_under_autocast_stay_finite_and_in_full_precision(name, n_classes):
    loss = build_loss(name, LossConfig(), n_classes)
    for scale in (1e4, 1e-4):
        logits, label = case(n_classes, scale)
        low = logits.detach().bfloat16().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            value = loss(low, label)
        value.backward()
        assert low.grad is not None
        assert torch.isfinite(value)
        assert torch.isfinite(low.grad).all()
        torch.testing.assert_close(value, loss(low.detach().float(), label))


def test_autocast_ends_where_a_loss_begins():
    class Product(SegmentationLoss):
        def loss(self, logits, label):
            return logits[0, 0] @ logits[0, 1]

    with torch.autocast("cpu", torch.bfloat16):
        assert Product(2)(torch.randn(1, 2, 4, 4), torch.zeros(1, 4, 4, dtype=torch.int64)).dtype == torch.float32


@pytest.mark.parametrize("name", ["ce", "ngce", "dice", "nrdice", "tloss"])
def test_images_without_foreground_and_without_background(name):
    loss = build_loss(name, LossConfig(), 2)
    for value in (0, 1):
        logits, label = case(2)
        result = loss(logits, torch.full_like(label, value))
        result.backward()
        assert logits.grad is not None
        assert torch.isfinite(result)
        assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", ["ce", "dice", "nrdice", "tloss"])
@pytest.mark.parametrize(
    ("logits", "label", "message"),
    [
        ((2, 3, 6, 8), (2, 6, 8), r"logits \(2, 3, 6, 8\); expected \(B, 2, H, W\)"),
        ((2, 6, 8), (2, 6, 8), r"expected \(B, 2, H, W\)"),
        ((2, 2, 6, 8), (2, 2, 6, 8), r"labels torch.int64 \(2, 2, 6, 8\)"),
        ((2, 2, 6, 8), (2, 1, 6, 8), r"expected integers \(B, H, W\)"),
        ((2, 2, 6, 8), (1, 6, 8), r"expected integers \(B, H, W\)"),
        ((2, 2, 6, 8), (2, 8, 6), r"expected integers \(B, H, W\)"),
    ],
)
def test_nothing_is_broadcast(name, logits, label, message):
    with pytest.raises(ValueError, match=message):
        build_loss(name, LossConfig(), 2)(torch.zeros(logits), torch.zeros(label, dtype=torch.int64))


def test_labels_are_integers():
    with pytest.raises(ValueError, match=r"labels torch\.float32"):
        build_loss("tloss", LossConfig(), 2)(torch.zeros(1, 2, 4, 4), torch.zeros(1, 4, 4))


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ConfigError, match="loss='focus': unknown loss; expected one of ce, bce"):
        build_loss("focus", LossConfig(), 2)


@pytest.mark.parametrize(
    ("field", "value"),
    [("gce_q", 0.0), ("ngce_q", 1.5), ("sce_alpha", -0.1), ("focal_gamma", -1.0), ("nrdice_gamma", 0.5)],
)
def test_impossible_settings_are_named(field, value):
    with pytest.raises(ConfigError, match=f"{field}={value}: expected"):
        LossConfig(**{field: value})


# MONAI's Dice counts axes in a tensor, on the host.
@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("dice", "cedice")])
def test_no_loss_waits_for_the_device(name, n_classes):
    """Tensors without values would betray any read-back and any shape that depends on values."""
    with FakeTensorMode():
        logits = torch.randn(2, n_classes, 6, 8, requires_grad=True)
        loss = build_loss(name, LossConfig(), n_classes)(logits, torch.zeros(2, 6, 8, dtype=torch.int64))
        loss.backward()
        with pytest.raises(DataDependentOutputException):
            loss.item()
