import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from dataloaders.images.labels import LabelStore
from dataloaders.samples import DenseBatch, ImageCase
from models.losses import LOSSES
from models.losses.t_loss import TLossConfig
from models.methods.supervised import Supervised, SupervisedConfig, UpperBound
from models.networks.unet import UNetConfig
from models.training.optim import OptimConfig, Optimisers
from util.errors import ConfigError
from util.schema import build

UNET = UNetConfig(in_channels=1, n_classes=2, halvings=(2, 2), base_features=4, max_features=16)


def method(loss: Any = "ce", n_classes=2, **settings):
    torch.manual_seed(0)
    unet = dataclasses.replace(UNET, n_classes=n_classes)
    return Supervised(SupervisedConfig(unet=unet, loss=loss, **settings))


def batch(n_classes=2):
    generator = torch.Generator().manual_seed(n_classes)
    label = torch.randint(n_classes, (2, 4, 4), generator=generator).repeat_interleave(4, 1).repeat_interleave(4, 2)
    return DenseBatch(label[:, None] + 0.3 * torch.randn(2, 1, 16, 16, generator=generator), label)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_reaches_every_parameter_and_falls(loss, n_classes):
    supervised = method(loss, n_classes).train()
    optim = OptimConfig("adam", 1e-2, weight_decay=0.0, schedule="constant")
    optimisers = Optimisers(supervised.optimisers(optim), n_steps=8)
    values = []
    for step in range(8):
        losses = supervised(batch(n_classes))
        optimisers.zero_grad()
        losses["loss"].backward()
        if step == 0:
            assert all(p.grad is not None and p.grad.any() for p in supervised.parameters())
        optimisers.step(step)
        supervised.after_step(step)
        values.append(losses["loss"].item())
    assert values[-1] < values[0]


def test_class_weights_can_be_left_out():
    weighted, plain = method(), method(class_weighted=False)
    label = batch().label
    label[:, 2:] = 0
    sample = DenseBatch(batch().image, label)
    logits = plain.network(sample.image)
    expected = torch.nn.functional.cross_entropy(logits, label)
    torch.testing.assert_close(plain(sample)["loss"], expected)
    assert (weighted(sample)["loss"] - expected).abs() > 1e-3


def test_the_parameters_of_t_loss_have_an_optimiser_of_their_own():
    supervised = method("tloss", tloss=TLossConfig(lr_nu=2e-3, log_precision="learnable"))
    optim = OptimConfig("adam", 0.1, weight_decay=0.3, schedule="step", step_every=1, warmup_steps=5)
    trained = supervised.optimisers(optim)
    assert trained["main"].optim == optim
    assert trained["loss"].optim == OptimConfig("adam", 2e-3, weight_decay=0.0, schedule="constant", step_every=1)
    assert trained["loss"].optim.factor(3, 10) == 1.0
    assert {id(p) for p in trained["loss"].parameters} == {id(p) for p in supervised.loss.parameters()}
    assert len(trained["loss"].parameters) == 2
    assert {id(p) for p in trained["main"].parameters} == {id(p) for p in supervised.network.parameters()}
    assert set(method("ce").optimisers(optim)) == {"main"}


def test_nu_is_logged_for_each_class():
    assert set(method("ce")(batch())) == {"loss"}
    losses = method("tloss", tloss=TLossConfig(nu_init=1.0))(batch())
    assert losses["nu"].item() == pytest.approx(np.e, rel=1e-5)
    assert not losses["nu"].requires_grad
    assert set(method("tloss", 4)(batch(4))) == {"loss", "nu_1", "nu_2", "nu_3"}


def test_a_settled_nu_lowers_the_learning_rate():
    supervised = method("tloss", tloss=TLossConfig(plateau_floor=0.05))
    for step in range(451):
        assert supervised.learning_rate_factor("main") == 1.0
        supervised.after_step(step)
    assert supervised.learning_rate_factor("main") == pytest.approx(0.1)
    assert supervised.learning_rate_factor("loss") == 1.0
    for without in (method("tloss", tloss=TLossConfig(plateau=False)), method("ce")):
        for step in range(0, 1000, 50):
            without.after_step(step)
        assert without.learning_rate_factor("main") == 1.0


def test_a_state_dict_brings_everything_back():
    source, target = method("tloss", 4), method("tloss", 4)
    for step in range(0, 500, 50):
        source.after_step(step)
    source(batch(4))  # moves the batch norms
    source.loss.get_parameter("raw_nu").data.fill_(1.0)
    assert target.learning_rate_factor("main") == 1.0
    target.load_state_dict(source.state_dict())
    assert target.learning_rate_factor("main") == source.learning_rate_factor("main") < 1
    image = batch(4).image
    torch.testing.assert_close(target.eval().class_probabilities(image), source.eval().class_probabilities(image))
    torch.testing.assert_close(target(batch(4))["loss"], source(batch(4))["loss"])


def test_prediction_is_the_most_probable_class():
    supervised = method("ce", 4).eval()
    image = batch(4).image
    p = supervised.class_probabilities(image)
    assert not p.requires_grad
    torch.testing.assert_close(p.sum(1), torch.ones(2, 16, 16))
    masks = supervised.predict(ImageCase(("a", "b"), (1, 3, 2), image))
    assert masks.shape == (3, 2, 16, 16)
    assert torch.equal(masks, torch.stack([p.argmax(1) == value for value in (1, 3, 2)]))
    found = supervised.probabilities(ImageCase(("a", "b"), (1, 3), image))
    assert torch.equal(found, p[:, [1, 3]].transpose(0, 1))
    binary = method("ce").eval()
    mask = binary.predict(ImageCase(("a", "b"), (1,), image))
    assert torch.equal(mask[0], binary.class_probabilities(image)[:, 1] > 0.5)
    assert 0 < mask.float().mean() < 1


def test_the_upper_bound_differs_in_its_labels_alone():
    assert (Supervised.trains_on, UpperBound.trains_on) == ("given", "clean")
    assert UpperBound.Config is Supervised.Config
    assert not Supervised.needs


def test_settings_come_from_a_dictionary():
    config = build(SupervisedConfig, {"unet": {"halvings": [4, 5]}, "loss": "tloss", "tloss": {"log_precision": 0}})
    assert config.unet.halvings == (4, 5)
    assert config.tloss.log_precision == 0
    with pytest.raises(ConfigError, match="loss='focus': expected one of ce, bce"):
        build(SupervisedConfig, {"loss": "focus"})


def test_a_loss_per_image_cannot_be_trained_with():
    with pytest.raises(ConfigError, match=r"tloss.reduction='none'.*expected 'mean' or 'sum'"):
        method("tloss", tloss=TLossConfig(reduction="none"))


def test_classes_must_be_those_of_the_network():
    with pytest.raises(ConfigError, match=r"unet.n_classes=2: class 2 was requested"):
        method().predict(ImageCase(("a", "b"), (1, 2), batch().image))
    images, labels = np.zeros((2, 16, 16, 1), np.uint8), np.zeros((2, 16, 16), np.uint8)
    store = LabelStore(images, labels, None, None, ("clean", "clean"), n_classes=4)
    with pytest.raises(ConfigError, match=r"unet.n_classes=2: the labels have 4 classes.*set unet.n_classes=4"):
        method().before_training(store)
    method(n_classes=4).before_training(store)
    method().before_training(None)
