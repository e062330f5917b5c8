"""Methods for several sources: what they share, CACPS, CPS and the mean teacher."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from dataloaders.samples import N_UNIFORM, ImageCase, JointBatch, SourceBatch
from dataloaders.transforms.cutmix import mix
from models.losses.cross_pseudo import CrossConfig, Views, batch_dice_loss, cross_loss
from models.methods.sources.base import MOST_BOXES, SemiConfig, fourier_mix
from tests.conftest import GOLDEN
from tests.models.methods.sources_helpers import NAMES, SEMI, joint_batch, make, train
from util.errors import ConfigError
from util.schema import build

ROOT = Path(__file__).parents[3]
# Of the losses of step 1, 2, ...: processors round differently, and small differences grow.
TOLERANCES = [min(2e-2, 2e-4 * 2 ** max(0, step - 2)) for step in range(1, 21)]


@pytest.mark.parametrize("name", NAMES)
def test_losses_of_twenty_steps_are_the_recorded_ones(name):
    golden = json.loads((GOLDEN / "semi_dg/losses.json").read_text())[name]
    found = train(make(name), 20)
    assert found[0].keys() == golden.keys()
    for key, values in golden.items():
        bounds = [share * max(map(abs, values)) for share in TOLERANCES]
        expected = [pytest.approx(value, rel=0, abs=bound) for value, bound in zip(values, bounds, strict=True)]
        assert [losses[key] for losses in found] == expected, key


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_all_students_and_no_teacher(name):
    method, passes = make(name), []

    def watch(module, inputs, output):
        passes.append((module, output.requires_grad))

    for network in [*method.networks, *([method.teacher] if hasattr(method, "teacher") else [])]:
        network.register_forward_hook(watch)
    method(joint_batch())["loss"].backward()
    for network in method.networks:
        assert all(weight.grad is not None and weight.grad.any() for weight in network.parameters())
    students, teachers = ([each for each in passes if each[1] == with_gradient] for with_gradient in (True, False))
    assert {id(module) for module, _ in students} == {id(network) for network in method.networks}
    n_passes = {
        "labelled_only": (2, 0),
        "cacps": (6, 8),
        "cps": (4, 4),
        "mean_teacher": (2, 2),
        "mixed_teacher": (3, 2),
    }
    assert (len(students), len(teachers)) == n_passes[name]
    if hasattr(method, "teacher"):
        assert all(weight.grad is None for weight in method.teacher.parameters())
        assert {id(module) for module, _ in teachers} == {id(method.teacher)}


def test_the_yardstick_needs_labelled_images_alone_and_ignores_others():
    method, batch = make("labelled_only"), joint_batch()
    assert "unlabelled" not in method.needs
    alone = JointBatch({"labelled": batch["labelled"]})
    losses = method(alone)
    assert losses.keys() == {"loss", "supervised"}
    assert torch.equal(losses["loss"], method(batch)["loss"])
    labelled = batch["labelled"]
    expected = sum(batch_dice_loss(network(labelled.image), labelled.label).sum() for network in method.networks)
    torch.testing.assert_close(losses["loss"], expected)
    foreground = make("labelled_only", dice_background=False)(alone)["loss"]
    assert foreground < losses["loss"]


@pytest.mark.parametrize("name", SEMI)
def test_supervised_steps_see_no_unlabelled_images(name):
    method, batch = make(name, supervised_steps=2, ramp_up_steps=4), joint_batch()
    assert "unlabelled" in method.needs
    alone = JointBatch({"labelled": batch["labelled"]})
    for step in range(2):
        assert method(alone).keys() == {"loss", "supervised"}
        method.after_step(step)
    with pytest.raises(ConfigError, match="unlabelled_1"):
        method(alone)
    losses = method(batch)
    expected = losses["supervised"] + method.config.unlabelled_weight * torch.tensor(-5.0).exp() * losses["unlabelled"]
    torch.testing.assert_close(losses["loss"].detach(), expected)
    for step in range(2, 6):
        method.after_step(step)
    assert method.weight == method.config.unlabelled_weight


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_continues_exactly(name):
    settings = {"supervised_steps": 1, "ramp_up_steps": 8} if name in SEMI else {}
    one, other = make(name, **settings), make(name, seed=1, **settings)
    train(one, 3)
    other.load_state_dict(one.state_dict())
    assert train(one, 3, first=3) == train(other, 3, first=3)
    for (key, value), (_, again) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(value, again), key


@pytest.mark.parametrize("name", SEMI)
def test_joint_passes_equal_separate_ones_where_statistics_are_of_the_same_images(name):
    batch = joint_batch()
    joint, separate = (
        make(name, separate_passes=is_separate, norm_group=4)(batch)["loss"] for is_separate in (False, True)
    )
    torch.testing.assert_close(joint, separate)
    mixed = make(name, separate_passes=False)(batch)["loss"]
    assert (mixed - separate).abs() > 1e-4 or name in ("mean_teacher",)  # whose teacher has statistics of its own


def test_batch_norm_shares_statistics_within_groups():
    torch.manual_seed(3)
    image = torch.rand(4, 1, 16, 16)
    grouped, whole = make("cps", norm_group=2), make("cps")
    (found,) = grouped.run(grouped.networks[0], [image])
    expected = torch.cat([whole.networks[0](half) for half in image.split(2)])
    torch.testing.assert_close(found, expected)
    grouped.eval()
    torch.testing.assert_close(grouped.run(grouped.networks[0], [image])[0], grouped.networks[0](image))


@pytest.mark.parametrize("form", [{}, {"weighting": "scalar", "teacher": "mean_logit"}], ids=str)
def test_cacps_by_hand(form):
    """The steps of the article, one network pass after the other."""
    batch, method, twin = joint_batch(), make("cacps", cross=form), make("cacps", cross=form)
    config, boxes = build(CrossConfig, form), method.boxes(batch["unlabelled_1"])
    first, second = batch["unlabelled_1"], batch["unlabelled_2"]
    plain = first.image, second.image
    copies = fourier_mix(first, method.config.fourier), fourier_mix(second, method.config.fourier)
    labels: Any = []
    for network in twin.networks:
        with torch.no_grad():
            maps = [(network(u), network(copy)) for u, copy in zip(plain, copies, strict=True)]
        if config.teacher == "mean_prob":
            maps = [(a.softmax(1), b.softmax(1)) for a, b in maps]
        u0, u1 = ((a + b) / 2 for a, b in maps)
        labels.append(mix(u0, u1, boxes).argmax(1))
    views = [Views(network(mix(*plain, boxes)), network(mix(*copies, boxes))) for network in twin.networks]
    expected = cross_loss(views[0], views[1], (labels[0], labels[1]), config)
    torch.testing.assert_close(method(batch)["unlabelled"], expected.detach())


def test_cps_is_cacps_without_confidence_and_augmentation():
    batch, plain = joint_batch(), {"weighting": "none", "use_augmented": False}
    torch.testing.assert_close(make("cps")(batch)["loss"], make("cacps", cross=plain)(batch)["loss"])


def test_the_averaged_teacher_follows_weights_and_statistics_and_predicts():
    method = make("mean_teacher", teacher_decay=0.5)
    assert method.averaged() is None
    before = {name: value.clone() for name, value in method.teacher.network.state_dict().items()}
    train(method, 1)  # at its end the decay is 1/10
    for name, value in method.teacher.network.state_dict().items():
        student = method.networks[0].state_dict()[name]
        expected = torch.lerp(student, before[name], 0.1) if value.is_floating_point() else student
        torch.testing.assert_close(value, expected, msg=name)
    image = torch.rand(3, 1, 16, 16)
    assert not method.teacher.training
    assert not method.teacher.network.training
    assert method.networks[0].training
    torch.testing.assert_close(method.class_probabilities(image), method.teacher(image).softmax(1))


def test_targets_of_the_mean_teacher():
    batch = joint_batch()
    soft, hard = (make("mean_teacher", target=target) for target in ("probabilities", "labels"))
    first, second, boxes = batch["unlabelled_1"].image, batch["unlabelled_2"].image, soft.boxes(batch["unlabelled_1"])
    target = mix(soft.teacher(first).softmax(1), soft.teacher(second).softmax(1), boxes)
    logits = make("mean_teacher").networks[0](mix(first, second, boxes))
    expected = (logits.softmax(1) - target).square().sum(1).mean(), F.cross_entropy(logits, target.argmax(1))
    for method, loss in zip((soft, hard), expected, strict=True):
        torch.testing.assert_close(method(batch)["unlabelled"], loss.detach())


def test_predictions_are_the_mean_of_both_networks():
    method = make("cacps", images_per_pass=2).eval()
    case = ImageCase(("a", "b", "c"), (2, 1), torch.rand(3, 1, 16, 16))
    mean = (method.networks[0](case.image).softmax(1) + method.networks[1](case.image).softmax(1)) / 2
    found = method.probabilities(case)
    torch.testing.assert_close(found, mean[:, [2, 1]].transpose(0, 1).detach())
    assert torch.equal(method.predict(case)[0], mean.argmax(1) == 2)
    legacy = make("cacps", legacy_threshold=True).eval()
    assert torch.equal(legacy.predict(case), found > 0.5)
    with pytest.raises(ConfigError, match=r"class 3 was requested.*n_classes=4"):
        method.probabilities(ImageCase(("a",), (3,), case.image[:1]))


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_in_single_precision(name):
    with torch.autocast("cpu", torch.bfloat16):
        losses = make(name)(joint_batch())
    assert {value.dtype for value in losses.values()} == {torch.float32}
    full = make(name)(joint_batch())
    torch.testing.assert_close(losses["loss"], full["loss"], rtol=0.1, atol=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_no_step_waits_for_the_device(name):
    with FakeTensorMode(allow_non_fake_inputs=True):
        method = make(name)
        method(joint_batch_of_zeros())["loss"].backward()
        method.after_step(0)


def joint_batch_of_zeros():
    image, uniform = torch.zeros(2, 1, 16, 16), torch.zeros(2, N_UNIFORM)
    parts = {name: SourceBatch(image, image, uniform) for name in ("unlabelled_1", "unlabelled_2")}
    return JointBatch(parts | {"labelled": SourceBatch(image, image, uniform, torch.zeros(2, 16, 16).long())})


# In a process of its own, without the checks of types, which cannot be compiled.
COMPILED = """
import sys
import torch
from tests.models.methods.sources_helpers import joint_batch, make

method, twin, graphs = make(sys.argv[1]), make(sys.argv[1]), []
compiled = torch.compile(method, backend=lambda graph, _: graphs.append(graph) or graph, fullgraph=True, dynamic=False)
for step in range(3):
    torch.testing.assert_close(compiled(joint_batch(seed=step))["loss"], twin(joint_batch(seed=step))["loss"])
    method.after_step(step)
    twin.after_step(step)
assert len(graphs) == 1
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cacps", "mixed_teacher"])
def test_a_step_is_compiled_whole_and_once(name):
    subprocess.run([sys.executable, "-c", COMPILED, name], cwd=ROOT, check=True)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"unlabelled_weight": -1.0}, "unlabelled_weight=-1"),
        ({"norm_group": -1}, "norm_group=-1"),
        ({"supervised_steps": -1}, "supervised_steps=-1"),
        ({"images_per_pass": 0}, "images_per_pass=0"),
        ({"cutmix": {"n_boxes": MOST_BOXES + 1}}, "cutmix.n_boxes=12: expected at most 11"),
    ],
)
def test_mistakes_are_named(values, key):
    with pytest.raises(ConfigError, match=key):
        build(SemiConfig, values)


def test_labelled_images_need_labels():
    batch = joint_batch()
    with pytest.raises(ConfigError, match="has no labels"):
        make("labelled_only")(JointBatch({"labelled": batch["unlabelled_1"]}))
