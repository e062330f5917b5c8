import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from dataloaders.samples import DenseBatch, ImageCase
from models.methods.noisy import (
    CoTeaching,
    JoCoR,
    JoCoRConfig,
    RefineConfig,
    SuperpixelGuided,
    SuperpixelGuidedConfig,
    TriNet,
)
from models.methods.peers import PeersConfig, SelectionConfig
from models.training.average import AverageConfig, MovingAverage
from tests.models.methods.noisy_helpers import METHODS, make, store
from util.errors import ConfigError
from util.schema import select


@pytest.fixture(scope="module")
def golden(golden_file):
    return golden_file("noisy/sp_guided.npz")


def step(golden, method_type, n_networks, **settings):
    """The objective on the reference's logits, and its gradients."""
    logits = tuple(torch.from_numpy(golden[f"logits{i + 1}"]).requires_grad_() for i in range(n_networks))
    label, superpixel = (torch.from_numpy(golden[name]).long() for name in ("noisy", "superpixel"))
    forget = torch.from_numpy(golden["forget_rate_bg_fg"])
    terms = make(method_type, **settings).objective(logits, label, superpixel, forget)
    return terms, torch.autograd.grad(terms["loss"], logits)


@pytest.mark.parametrize(
    ("method_type", "name", "settings"),
    [
        (CoTeaching, "coteach", {}),
        (JoCoR, "jocor", {}),
        (SuperpixelGuided, "jocor", {"selection": SelectionConfig(level="pixel")}),
    ],
)
def test_a_step_equals_the_reference(golden, method_type, name, settings):
    terms, gradients = step(golden, method_type, 2, **settings)
    assert terms["loss"].item() == pytest.approx(float(golden[f"step_{name}_loss"]), rel=2e-6)
    for i, gradient in enumerate(gradients, start=1):
        np.testing.assert_allclose(gradient, golden[f"step_{name}_grad{i}"], rtol=1e-4, atol=1e-9)
    if name == "jocor":
        assert terms["gap"].item() == pytest.approx(float(golden["step_jocor_gap"]), rel=2e-6)


def balanced_mean(loss, label, kept):
    """The reduction of the paper's code, in double precision and by boolean indices."""
    background, foreground = loss[kept & (label == 0)], loss[kept & (label == 1)]
    weight = min(max(len(background) / (len(foreground) + 1e-6), 1), 1e6)
    return (weight * foreground.sum() + background.sum()) / (weight * len(foreground) + len(background))


def test_a_superpixel_guided_step_equals_the_reference(golden):
    """Loss and gap are the reference's; the gradients are those of the joint loss on the reference's pixels."""
    terms, gradients = step(golden, SuperpixelGuided, 2)
    assert terms["loss"].item() == pytest.approx(0.618369, abs=1e-6)
    assert terms["gap"].item() == pytest.approx(0.726432, abs=1e-6)
    assert terms["kept_background"].item() == pytest.approx(0.8658, abs=5e-5)
    assert terms["kept_foreground"].item() == pytest.approx(0.8366, abs=5e-5)
    logits = [torch.from_numpy(golden[f"logits{i}"]).double().requires_grad_() for i in (1, 2)]
    label, kept = torch.from_numpy(golden["noisy"]).long(), torch.from_numpy(golden["sel_jocor_superpixel"])
    p, q = (x.softmax(1) for x in logits)
    cross_entropy = -(p.log() + q.log()).gather(1, label[:, None])[:, 0]
    divergence = ((q - p) * (q.log() - p.log())).sum(1)  # KL(q || p) + KL(p || q)
    loss = balanced_mean(0.35 * cross_entropy + 0.65 * divergence, label, kept)
    for gradient, expected in zip(gradients, torch.autograd.grad(loss, logits), strict=True):
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-8)


def test_a_tri_network_step_equals_the_reference(golden):
    """The loss is the reference's; the gradients are those of each network's loss where the others agree."""
    terms, gradients = step(golden, TriNet, 3)
    assert terms["loss"].item() == pytest.approx(1.568991, abs=1e-6)
    assert terms["kept_background"].item() == pytest.approx(0.9002, abs=5e-5)
    assert terms["kept_foreground"].item() == pytest.approx(0.8502, abs=5e-5)
    label = torch.from_numpy(golden["noisy"]).long()
    logits = [torch.from_numpy(golden[f"logits{i}"]).double().requires_grad_() for i in (1, 2, 3)]
    losses = [-x.log_softmax(1).gather(1, label[:, None])[:, 0] for x in logits]
    for i, gradient in enumerate(gradients):
        one, two = (loss.detach() for j, loss in enumerate(losses) if j != i)
        disagreement, kept = (one - two).abs(), torch.zeros_like(label, dtype=torch.bool)
        for value, share in enumerate(golden["forget_rate_bg_fg"]):
            of_class = disagreement[label == value]
            threshold = of_class.sort(descending=True).values[int(share * len(of_class)) - 1]
            kept |= (label == value) & (disagreement < threshold)
        (expected,) = torch.autograd.grad(balanced_mean(losses[i], label, kept), logits[i])
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("method_type", METHODS)
def test_every_parameter_learns_and_the_loss_falls(method_type, n_classes):
    labels = store(n_classes=n_classes)
    method = make(method_type, n_classes).train()
    method.before_training(labels)
    batch = labels.batch(slice(None))
    optimiser = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for n_steps in range(12):
        optimiser.zero_grad()
        terms = method(batch)
        terms["loss"].backward()
        if n_steps == 0:
            still = [name for name, p in method.named_parameters() if p.grad is None or not p.grad.abs().any()]
            assert not still
        optimiser.step()
        losses.append(terms["loss"].item())
    assert losses[-1] < 0.8 * losses[0]
    assert not any(value.requires_grad for name, value in terms.items() if name != "loss")
    assert 0.5 < terms["kept_background"] <= 1
    assert 0.5 < terms["kept_foreground"] <= 1


@pytest.mark.parametrize("method_type", METHODS)
def test_no_step_waits_for_the_device(method_type):
    """Tensors without values would betray any read-back and any shape that depends on values."""
    with FakeTensorMode():
        method = make(method_type).train()
        label = torch.randint(0, 2, (2, 16, 16))
        terms = method(DenseBatch(torch.rand(2, 3, 16, 16), label, label))
        terms["loss"].backward()
        with pytest.raises(DataDependentOutputException):
            terms["loss"].item()


@pytest.mark.parametrize("method_type", METHODS)
def test_networks_begin_differently(method_type):
    method = make(method_type)
    assert len(method.networks) == method.n_networks == (3 if method_type is TriNet else 2)
    first, second = (next(network.parameters()) for network in list(method.networks)[:2])
    assert not first.equal(second)


@pytest.mark.parametrize("method_type", METHODS)
def test_predictions_name_each_requested_class(method_type):
    method = make(method_type, 4).eval()
    case = ImageCase(("a", "b", "c"), (3, 1, 2), torch.rand(3, 3, 16, 16))
    masks = method.predict(case)
    assert masks.shape == (3, 3, 16, 16)
    assert masks.dtype == torch.bool
    probability = method.class_probabilities(case.image)
    torch.testing.assert_close(probability.sum(1), torch.ones(3, 16, 16))
    for mask, value in zip(masks, case.classes, strict=True):
        assert mask.equal(probability.argmax(1) == value)
    found = method.probabilities(ImageCase(("a", "b", "c"), (1, 3), case.image))
    assert found.equal(probability[:, [1, 3]].transpose(0, 1))


def test_prediction_by_the_first_network_or_by_the_mean():
    first, mean = (make(JoCoR, predict_with=name).eval() for name in ("first", "mean"))
    image = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        each = [network(image).softmax(1) for network in first.networks]
    torch.testing.assert_close(first.class_probabilities(image), each[0])
    torch.testing.assert_close(mean.class_probabilities(image), (each[0] + each[1]) / 2)


def test_prediction_does_not_depend_on_how_images_are_batched():
    image = torch.rand(5, 3, 16, 16)
    few, all_at_once = make(JoCoR, images_per_pass=2).eval(), make(JoCoR).eval()
    torch.testing.assert_close(few.class_probabilities(image), all_at_once.class_probabilities(image))


def test_remember_rates_are_measured_or_given():
    labels, method = store(), make(JoCoR)
    method.before_training(labels)
    for value in range(2):
        measured = (np.asarray(labels.clean)[labels.label == value] == value).mean()
        assert method.remember_rates[value].item() == pytest.approx(measured, abs=1e-6)
    given = make(JoCoR, selection=SelectionConfig(remember=(0.98, 0.9)))
    given.before_training(dataclasses.replace(labels, clean=None))
    assert given.remember_rates.tolist() == [0.98, 0.9]


@pytest.mark.parametrize("method_type", METHODS)
def test_weights_can_be_averaged(method_type):
    method = make(method_type)
    averaged: Any = MovingAverage(method, AverageConfig(0.5, 1))
    for _ in range(2):
        method.after_round(store())
        averaged.update(method)
    assert averaged.module.remember_rates.dtype == torch.float64
    assert averaged.module.class_probabilities(torch.rand(1, 3, 16, 16)).shape == (1, 2, 16, 16)


def test_settings_come_from_dictionaries():
    values = dataclasses.asdict(SuperpixelGuidedConfig()) | {"selection": {"remember": [0.9, 0.8], "level": "pixel"}}
    built = select(SuperpixelGuidedConfig, values | {"something_else": 1})
    assert built.selection == SelectionConfig((0.9, 0.8), warmup=5, level="pixel")


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: SelectionConfig(remember=(0.9, 0.0)), ["selection.remember[1]=0.0", "(0, 1]"]),
        (lambda: SelectionConfig(warmup=-1), ["selection.warmup=-1", "0 or more"]),
        (lambda: RefineConfig(thr_bg=1.5), ["refine.thr_bg=1.5", "0 to 1"]),
        (lambda: RefineConfig(factor=0.5), ["refine.factor=0.5", "1 or more"]),
        (lambda: RefineConfig(patience=0), ["refine.patience=0", "1 or more"]),
        (lambda: PeersConfig(images_per_pass=0), ["images_per_pass=0", "1 or more"]),
        (lambda: JoCoRConfig(jocor_lambda=2.0), ["jocor_lambda=2.0", "0 to 1"]),
        (lambda: SuperpixelGuidedConfig(jocor_lambda=-1.0), ["jocor_lambda=-1.0", "0 to 1"]),
        (lambda: make(JoCoR, 3, selection=SelectionConfig((0.9, 0.9))), ["selection.remember", "3 shares"]),
        (lambda: make(JoCoR, selection=SelectionConfig(level="superpixel")), ["selection.level", "spguided"]),
        (lambda: make(JoCoR).before_training(None), ["selection.remember", "approximate_rates"]),
        (lambda: SelectionConfig(estimate_after=0), ["selection.estimate_after=0", "1 or more"]),
        (
            lambda: make(SuperpixelGuided)(DenseBatch(torch.rand(1, 3, 16, 16), torch.zeros(1, 16, 16).long())),
            ["spguided", "superpixels", "selection.level=pixel"],
        ),
    ],
)
def test_mistakes_are_named_with_a_remedy(attempt, words):
    with pytest.raises(ConfigError) as error:
        attempt()
    for word in words:
        assert word in str(error.value)
