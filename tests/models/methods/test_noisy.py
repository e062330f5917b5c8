import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from dataloaders.labels import LabelStore
from dataloaders.samples import DenseBatch, ImageCase
from models.average import MovingAverage
from models.losses.refinement import correction_ratio, refine_labels
from models.losses.superpixels import superpixel_mean
from models.methods.noisy import (
    CoTeaching,
    GapMonitor,
    JoCoR,
    JoCoRConfig,
    RefineConfig,
    SuperpixelGuided,
    SuperpixelGuidedConfig,
    TriNet,
)
from models.methods.peers import PeersConfig, SelectionConfig
from models.networks.unet import UNetConfig
from util.errors import ConfigError
from util.schema import select

METHODS = [CoTeaching, TriNet, JoCoR, SuperpixelGuided]
FIELDS = ("image", "label", "clean", "superpixel")
SMALL = UNetConfig(in_channels=3, halvings=(2, 2), base_features=4, max_features=8)


def make(method_type, n_classes=2, *, seed=0, **settings: Any):
    torch.manual_seed(seed)
    return method_type(method_type.Config(dataclasses.replace(SMALL, n_classes=n_classes), **settings))


def store(n_images=6, n_classes=2, size=16, seed=0, noise=0.15):
    """Bright squares on a dark ground, some of their labels wrong, superpixels of 4 x 4 pixels."""
    generator = np.random.default_rng(seed)
    clean = np.zeros((n_images, size, size), np.uint8)
    for image in clean:
        for value in range(1, n_classes):
            row, column = generator.integers(0, size // 4 - 1, 2) * 4
            image[row : row + 8, column : column + 8] = value
    wrong = generator.random(clean.shape) < noise
    label = np.where(wrong, (clean + 1) % n_classes, clean).astype(np.uint8)
    image = (clean[..., None] * (200 // n_classes) + generator.integers(0, 40, (*clean.shape, 3))).astype(np.uint8)
    cells = np.arange(size) // 4
    superpixel = np.broadcast_to(cells[:, None] * (size // 4) + cells, clean.shape).astype(np.uint16)
    return LabelStore(image, label, clean, superpixel, ("clean",) * n_images, n_classes)


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
    optimiser = torch.optim.SGD(method.parameter_groups("main"), lr=0.05, momentum=0.9)
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
def test_predictions_name_each_asked_class(method_type):
    method = make(method_type, 4).eval()
    case = ImageCase(("a", "b", "c"), (1, 3), torch.rand(3, 3, 16, 16))
    masks = method.predict(case, None)
    assert masks.shape == (2, 3, 16, 16)
    assert masks.dtype == torch.bool
    probability = method.probabilities(case.image)
    torch.testing.assert_close(probability.sum(1), torch.ones(3, 16, 16))
    for mask, value in zip(masks, case.classes, strict=True):
        assert mask.equal(probability.argmax(1) == value)


def test_prediction_by_the_first_network_or_by_the_mean():
    first, mean = (make(JoCoR, predict_with=name).eval() for name in ("first", "mean"))
    image = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        each = [network(image).softmax(1) for network in first.networks]
    torch.testing.assert_close(first.probabilities(image), each[0])
    torch.testing.assert_close(mean.probabilities(image), (each[0] + each[1]) / 2)


def test_prediction_does_not_depend_on_how_images_are_batched():
    image = torch.rand(5, 3, 16, 16)
    torch.testing.assert_close(
        make(JoCoR, images_per_pass=2).eval().probabilities(image), make(JoCoR).eval().probabilities(image)
    )


def test_remember_rates_are_measured_or_given():
    labels, method = store(), make(JoCoR)
    method.before_training(labels)
    for value in range(2):
        measured = (np.asarray(labels.clean)[labels.label == value] == value).mean()
        assert method.remember_rates[value].item() == pytest.approx(measured, abs=1e-6)
    given = make(JoCoR, selection=SelectionConfig(remember=(0.98, 0.9)))
    given.before_training(dataclasses.replace(labels, clean=None))
    assert given.remember_rates.tolist() == [0.98, 0.9]


def test_the_share_left_out_grows_from_round_to_round():
    method = make(CoTeaching, selection=SelectionConfig(remember=(0.9, 0.8)))
    method.before_training(None)
    rounds = [method.after_round(None) for _ in range(5)]
    assert [r["forget_1"] for r in rounds] == pytest.approx([0.05, 0.1, 0.15, 0.2, 0.2])
    assert [r["forget_0"] for r in rounds] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])


def trained_on_gaps(gaps, labels, **refine):
    """A method to which each round brought a given gap, and what it logged."""
    method = make(SuperpixelGuided, refine=RefineConfig(**refine))
    method.before_training(labels)
    logged = []
    for gap in gaps:
        for change in (-0.5, 0.5):
            method.monitor.add(torch.tensor(gap + change))
        logged.append(method.after_round(labels))
    return method, logged


def test_labels_are_rewritten_once_the_gap_has_not_widened_for_five_rounds():
    labels = store()
    gaps = [1.0, 2.0, 1.5, 2.0, 1.9, 2.5, 2.4, 2.5, 2.3, 2.2, 2.1, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    method, logged = trained_on_gaps(gaps, labels)
    assert [r["round_gap"] for r in logged] == pytest.approx(gaps)
    # A draw is no widening: rounds 7 to 11 are the five after the widest gap of round 6.
    assert [int(r["n_refinements"]) for r in logged] == [0] * 10 + [1] * 8
    assert "labels_changed" in logged[10]
    assert labels.n_replaced == 1
    assert method.round_number == 19


def test_labels_can_be_rewritten_again_after_another_wait():
    _, logged = trained_on_gaps([1.0, 0.5, 0.5, 0.4, 0.3, 0.3, 0.3, 0.3], store(), patience=2, max_refinements=2)
    assert [int(r["n_refinements"]) for r in logged] == [0, 0, 1, 1, 1, 2, 2, 2]


def test_a_gap_that_never_opens_counts_from_the_start():
    _, logged = trained_on_gaps([-1.0, 0.0], store(), patience=2)
    assert [int(r["n_refinements"]) for r in logged] == [0, 1]


def test_no_warm_up_after_labels_were_rewritten():
    labels = store()
    method, logged = trained_on_gaps([0.0], labels, patience=1, thr_bg=0.99, thr_fg=0.9, factor=1.1)
    rates = store().clean_rates()
    assert rates is not None
    background, foreground = rates.tolist()
    raised = [max(background, min(1.1 * background, 0.99)), max(foreground, min(1.1 * foreground, 0.9))]
    assert method.remember_rates.tolist() == pytest.approx(raised)
    assert method.forget_rates().tolist() == pytest.approx([1 - rate for rate in raised])
    assert logged[0]["forget_1"] == pytest.approx((1 - foreground) / 4)


@pytest.mark.parametrize("style", ["mean", "pixel"])
def test_refinement_corrects_the_labels_of_what_was_learned(style):
    labels = store(n_images=10, noise=0.1)
    method = make(SuperpixelGuided, refine=RefineConfig(patience=1, chunk=4, style=style), images_per_pass=3).train()
    method.before_training(labels)
    rates, given = method.remember_rates.clone(), labels.label
    optimiser = torch.optim.Adam(method.parameter_groups("main"), lr=0.01)
    for _ in range(40):
        optimiser.zero_grad()
        method(labels.batch(slice(None)))["loss"].backward()
        optimiser.step()
    method.monitor.best.fill_(100.0)
    logged = method.after_round(labels)
    assert method.training
    assert labels.label is not given
    assert logged["labels_right_before"] == pytest.approx((given == labels.clean).mean())
    assert logged["labels_right_after"] == pytest.approx((labels.label == labels.clean).mean())
    assert logged["labels_changed"] == pytest.approx((given != labels.label).mean())
    assert logged["labels_right_after"] > logged["labels_right_before"] + 0.02
    assert (method.remember_rates >= rates).all()


def test_refinement_needs_no_clean_labels_and_leaves_the_mode():
    labels = dataclasses.replace(store(), clean=None)
    method = make(SuperpixelGuided, selection=SelectionConfig(remember=(0.9, 0.8))).eval()
    method.before_training(labels)
    assert set(method.refine(labels)) == {"labels_changed"}
    assert not method.training


@pytest.mark.parametrize("style", ["mean", "pixel"])
def test_refinement_asks_both_networks_in_evaluation_mode(style):
    labels = store(noise=0.4)
    method = make(SuperpixelGuided, refine=RefineConfig(style=style, decay=0.9)).train()
    method(labels.batch(slice(None)))  # moves the running means of the batch norm
    method.before_training(labels)
    refined = method.refined(labels)
    batch = labels.batch(slice(None))
    with torch.no_grad():
        first, second = (network.eval()(batch.image).softmax(1) for network in method.networks)
    probability = (first + second) / 2
    if style == "mean":
        assert batch.superpixel is not None
        probability = superpixel_mean(probability, batch.superpixel)
    ratio = correction_ratio(method.remember_rates, 0.9)
    np.testing.assert_array_equal(refined, refine_labels(probability, batch.label, ratio))
    assert (refined != labels.label).any()


def test_refinement_ranks_the_images_of_a_chunk_together():
    labels = store()
    proposals = {}
    for chunk in (1, 6):
        method = make(SuperpixelGuided, refine=RefineConfig(chunk=chunk, style="pixel"))
        method.before_training(labels)
        proposals[chunk] = method.refined(labels)
    alone = [dataclasses.replace(labels, **{name: getattr(labels, name)[[i]] for name in FIELDS}) for i in range(6)]
    one_by_one = np.concatenate([method.refined(image) for image in alone])
    np.testing.assert_array_equal(proposals[1], one_by_one)
    assert (proposals[1] != proposals[6]).any()


def run(method, labels, optimiser, steps):
    generator = torch.Generator().manual_seed(7)
    order = [torch.randperm(len(labels), generator=generator)[:4].numpy() for _ in range(12)]
    for n in steps:
        optimiser.zero_grad()
        method(labels.batch(order[n]))["loss"].backward()
        optimiser.step()
        if n % 3 == 2:
            method.after_round(labels)


@pytest.mark.parametrize("method_type", METHODS)
def test_resuming_in_the_middle_of_a_round_changes_nothing(method_type):
    settings: dict[str, Any] = {"refine": RefineConfig(patience=1)} if method_type is SuperpixelGuided else {}

    def fresh(seed, labels):
        method = make(method_type, seed=seed, **settings).train()
        return method, torch.optim.SGD(method.parameter_groups("main"), lr=0.05, momentum=0.9), labels

    whole, optimiser, labels = fresh(0, store())
    whole.before_training(labels)
    run(whole, labels, optimiser, range(12))

    begun, optimiser, labels = fresh(0, store())
    begun.before_training(labels)
    run(begun, labels, optimiser, range(7))
    resumed, other, _ = fresh(1, labels)
    resumed.load_state_dict(begun.state_dict())
    other.load_state_dict(optimiser.state_dict())
    run(resumed, labels, other, range(7, 12))

    assert whole.state_dict().keys() == resumed.state_dict().keys()
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0, msg=name)
    assert whole.round_number == 5


@pytest.mark.parametrize("method_type", METHODS)
def test_weights_can_be_averaged(method_type):
    method = make(method_type)
    averaged: Any = MovingAverage(method, 0.5)
    for _ in range(2):
        method.after_round(store())
        averaged.update(method)
    assert averaged.module.remember_rates.dtype == torch.float64
    assert averaged.module.probabilities(torch.rand(1, 3, 16, 16)).shape == (1, 2, 16, 16)


def test_the_state_of_a_round_is_saved():
    names = {"remember_rates", "round_number", "n_refinements"}
    names |= {f"monitor.{name}" for name in ("total", "count", "best", "n_stalled")}
    assert names <= make(SuperpixelGuided).state_dict().keys()


def test_testing_adds_nothing_to_the_running_round():
    method = make(SuperpixelGuided)
    batch = store().batch(slice(None))
    method.eval()(batch)
    assert method.monitor.count == 0
    method.train()(batch)
    assert method.monitor.count == 1


def test_the_monitor_means_over_the_round_and_starts_again():
    monitor = GapMonitor()
    monitor.add(torch.tensor(1.0))
    monitor.add(torch.tensor(4.0))
    assert monitor.close_round() == 2.5
    assert monitor.close_round() == 0.0
    assert (monitor.best, monitor.n_stalled) == (2.5, 1)


def test_settings_come_from_dictionaries():
    values = dataclasses.asdict(SuperpixelGuidedConfig()) | {"selection": {"remember": [0.9, 0.8], "level": "pixel"}}
    built = select(SuperpixelGuidedConfig, values | {"something_else": 1})
    assert built.selection == SelectionConfig((0.9, 0.8), 5, "pixel")


@pytest.mark.parametrize(
    ("attempt", "words"),
    [
        (lambda: SelectionConfig(remember=(0.9, 0.0)), ["selection.remember", "above 0"]),
        (lambda: SelectionConfig(warmup=-1), ["selection.warmup", "from 0"]),
        (lambda: RefineConfig(thr_bg=1.5), ["refine.thr_bg=1.5", "0 to 1"]),
        (lambda: RefineConfig(factor=0.5), ["refine.factor=0.5", "from 1"]),
        (lambda: RefineConfig(patience=0), ["refine", "patience"]),
        (lambda: PeersConfig(images_per_pass=0), ["images_per_pass=0", "from 1"]),
        (lambda: JoCoRConfig(jocor_lambda=2.0), ["jocor_lambda=2.0", "0 to 1"]),
        (lambda: SuperpixelGuidedConfig(jocor_lambda=-1.0), ["jocor_lambda=-1.0", "0 to 1"]),
        (lambda: make(JoCoR, 3, selection=SelectionConfig((0.9, 0.9))), ["selection.remember", "3 shares"]),
        (lambda: make(JoCoR, selection=SelectionConfig(level="superpixel")), ["selection.level", "spguided"]),
        (lambda: make(JoCoR).before_training(None), ["selection.remember", "approximate_rates"]),
        (
            lambda: make(JoCoR).before_training(dataclasses.replace(store(), clean=None)),
            ["selection.remember", "approximate_rates"],
        ),
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
