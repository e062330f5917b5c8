"""Methods for partially annotated data sets: what a missing annotation must not do, and whom each term moves."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from dataloaders.samples import ImageCase, JointBatch
from models.losses.partial_labels import binary_dice
from models.methods.partial.routing import joined, rows_by_task, shifted
from tests.conftest import GOLDEN
from tests.models.methods.partial_helpers import (
    CHANNELS,
    NAMES,
    OFF,
    SIZES,
    SMALL,
    TASKS,
    dice_by_hand,
    joint_batch,
    make,
    train,
)
from util.errors import ConfigError

ROOT = Path(__file__).parents[3]
# Of the losses of step 1, 2, ...: processors round differently, and small differences grow.
TOLERANCES = [min(2e-2, 2e-4 * 2 ** max(0, step - 2)) for step in range(1, 21)]


@pytest.mark.parametrize("name", NAMES)
def test_losses_of_twenty_steps_are_the_recorded_ones(name):
    golden = json.loads((GOLDEN / "partial/losses.json").read_text())[name]
    found = train(make(name), 20)
    assert found[0].keys() == golden.keys()
    for key, values in golden.items():
        bounds = [share * max(map(abs, values)) for share in TOLERANCES]
        expected = [pytest.approx(value, rel=0, abs=bound) for value, bound in zip(values, bounds, strict=True)]
        assert [losses[key] for losses in found] == expected, key


@pytest.mark.parametrize("name", NAMES)
def test_a_resumed_run_continues_exactly(name):
    settings = {"ramp_up_steps": 8} if name == "partial_teacher" else {}
    one, other = make(name, **settings), make(name, seed=1, **settings)
    train(one, 3)
    other.load_state_dict(one.state_dict())
    assert train(one, 2, first=3) == train(other, 2, first=3)
    for (key, value), (_, again) in zip(one.state_dict().items(), other.state_dict().items(), strict=True):
        assert torch.equal(value, again), key


def test_stage_one_by_hand():
    method, batch = make("partial_generator"), joint_batch()
    labelled = batch["labelled"]
    losses, logits, expected = method(batch), method.network(labelled.image), torch.tensor(0.0)
    for task, channels in enumerate(CHANNELS):
        images = slice(2 * task, 2 * task + 2)
        main, auxiliary = (
            dice_by_hand(method, labelled, maps[task][images], channels, images)
            for maps in (logits.main, logits.auxiliary)
        )
        torch.testing.assert_close(losses[f"dice_{TASKS[task].name}"], main.detach(), rtol=1e-4, atol=1e-5)
        expected = expected + main + 0.4 * auxiliary
    torch.testing.assert_close(losses["loss"], expected, rtol=1e-4, atol=1e-5)


def test_heads_of_unknown_tasks_get_no_gradient():
    method = make("partial_generator")
    labelled = joint_batch(sets=(0, 2))["labelled"]
    maps = method.network(labelled.image)
    for each in maps.main:
        each.retain_grad()
    everything = method.task_losses(maps.main, labelled)  # without routing
    everything.sum().backward()
    assert everything[1] == 0
    for task, each in enumerate(maps.main):
        assert each.grad is not None
        for image in range(4):
            is_own = (task, image // 2) in ((0, 0), (2, 1))
            assert bool(each.grad[image].any()) == is_own
    method.zero_grad()
    method(JointBatch({"labelled": labelled}))["loss"].backward()
    for name, weight in method.network.named_parameters():
        if "task_lesion" in name:
            assert weight.grad is None or not weight.grad.any(), name
    assert method.network.heads["task_vessel"].classifier[1].weight.grad.any()


def test_unknown_labels_are_never_looked_at():
    method, batch = make("partial_adversarial"), joint_batch()
    other = JointBatch(
        {
            name: replace(each, label=each.label | ~each.is_known[..., None, None] if name != "strong" else ~each.label)
            for name, each in batch.parts.items()
        }
    )
    assert method(batch)["loss"].equal(method(other)["loss"])


@pytest.mark.parametrize("name", NAMES)
def test_fewer_data_sets_train_without_change(name):
    heads = [each for each in SMALL["heads"] if each["name"] != "lesion"]
    method = make(name, heads=heads, sources=["LINES", "DISCS"])
    batch = joint_batch(sets=(0, 2))
    numbers, keep = {0: 0, 2: 1}, [0, 3, 4]
    parts = {
        key: replace(
            each,
            label=each.label[:, keep],
            is_known=each.is_known[:, keep],
            source=each.source.clamp(max=1),
            tasks=tuple(tuple(numbers[t] for t in own if t in numbers) for own in each.tasks),
        )
        for key, each in batch.parts.items()
    }
    losses = method(JointBatch(parts))
    assert {"dice_vessel", "dice_disc_cup"} <= losses.keys()
    assert "dice_lesion" not in losses
    losses["loss"].backward()
    assert all(weight.grad is not None for weight in method.parameters() if weight.requires_grad)


def test_ignored_pixels_may_be_background():
    batch = joint_batch()["labelled"]
    masked, naive = make("partial_generator"), make("partial_generator", ignore="background")
    logits = [torch.randn(6, k, 32, 32, generator=torch.Generator().manual_seed(k)) for k in SIZES]
    inside = batch.label & batch.valid
    (first, _), *_ = naive.errors(logits, batch)
    expected = binary_dice(logits[0], inside[:, :1], batch.is_known[:, :1])
    torch.testing.assert_close(first, expected)
    assert not first.equal(next(masked.errors(logits, batch))[0])


def test_the_teacher_labels_what_is_not_annotated():
    method, batch = make("partial_teacher", confidence=0.5, threshold=0.4), joint_batch()
    strong, labelled = batch["strong"], batch["labelled"]
    target, share = method.target(strong, ~labelled.is_known)
    logits = torch.cat(method.teacher.network(strong.weak).main, 1)
    assert target.label.equal(logits.sigmoid() > 0.4)
    assert target.is_known.equal(~labelled.is_known)
    assert share == 1
    assert target.valid.equal(strong.valid.expand_as(target.valid))
    sure, share = make("partial_teacher", confidence=0.9).target(strong, ~labelled.is_known)
    assert not sure.valid.any()  # initially all probabilities are near 1/2
    assert share == 0


def test_the_teacher_follows_predicts_and_is_not_averaged_again():
    method = make("partial_teacher", teacher_decay=0.5, pseudo_weight=0.4, ramp_up_steps=2)
    assert method.averaged() is None
    assert method.predictor is method.teacher
    before = {name: value.clone() for name, value in method.teacher.network.state_dict().items()}
    assert method.weight == pytest.approx(0.4 * torch.tensor(-5.0).exp().item())
    train(method, 1)  # at its end the decay is 1/10
    for name, value in method.teacher.network.state_dict().items():
        torch.testing.assert_close(value, torch.lerp(method.network.state_dict()[name], before[name], 0.1), msg=name)
    train(method, 1, first=1)
    assert method.weight == pytest.approx(0.4)
    losses = method(joint_batch())
    supervised = make("partial_generator")
    supervised.network.load_state_dict(method.network.state_dict())
    expected = supervised(joint_batch())["loss"] + 0.4 * losses["pseudo"]
    torch.testing.assert_close(losses["loss"], expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="6 annotated images and 3 strong views"):
        method(JointBatch({"labelled": joint_batch()["labelled"], "strong": joint_batch(1)["strong"]}))


def test_predictions_are_of_the_requested_classes_in_chunks():
    method = make("partial_generator", images_per_pass=2).eval()
    image = joint_batch()["labelled"].image[:5, :, :, :30]
    case = ImageCase(tuple("abcde"), (5, 2), image)
    logits = torch.cat(method.network(image).main, 1)
    found = method.probabilities(case)
    torch.testing.assert_close(found, torch.stack([logits[:, 4], logits[:, 1]]).sigmoid(), rtol=1e-4, atol=1e-5)
    assert found.shape == (2, 5, 32, 30)
    for classes in ((6,), (0,)):
        with pytest.raises(ConfigError, match="classes 1 to 5"):
            method.probabilities(ImageCase(tuple("abcde"), classes, image))


def test_methods_without_tasks_or_data_sets_are_refused():
    with pytest.raises(ConfigError, match="heads=\\[\\]"):
        make("partial_generator", heads=[])
    with pytest.raises(ConfigError, match="sources=\\[\\]"):
        make("partial_adversarial", sources=[])


COMPILED = """
import sys
import torch
from tests.models.methods.partial_helpers import joint_batch, make

for name in sys.argv[1:]:
    torch._dynamo.reset()
    method, twin, graphs = make(name), make(name), []
    keep = lambda graph, _: graphs.append(graph) or graph
    compiled = torch.compile(method, backend=keep, fullgraph=True, dynamic=False)
    for step in range(2):
        torch.testing.assert_close(compiled(joint_batch(1, step))["loss"], twin(joint_batch(1, step))["loss"])
        method.after_step(step)
        twin.after_step(step)
    assert len(graphs) == 1
"""


@pytest.mark.slow
def test_a_step_is_compiled_whole_and_once():
    subprocess.run([sys.executable, "-c", COMPILED, "partial_adversarial"], cwd=ROOT, check=True)


def test_images_are_found_by_task():
    rows = rows_by_task([(0,), (0, 1), (), (1,), (1,)], 3)
    assert rows == ((slice(0, 2),), (slice(1, 2), slice(3, 5)), ())
    assert joined(rows, shifted(rows, 5))[1] == (slice(1, 2), slice(3, 5), slice(6, 7), slice(8, 10))


@pytest.mark.parametrize(
    ("name", "settings", "title"),
    [
        ("partial_generator", {}, "Stage 1"),
        ("partial_generator", {"missing": "background"}, "Missing as background"),
        ("partial_generator", {"heads": [{}], "sources": ["A"]}, "Single-task expert"),
        ("partial_adversarial", {}, "PSSNet"),
        ("partial_adversarial", {"attention": False}, "Stage 2 adversarial"),
        ("partial_adversarial", {"attention": False, "adversarial_weight": 0.0}, "Stage 2 pseudo"),
        ("partial_adversarial", {"pseudo_weight": 0.0}, "PSSNet without pseudo-labels"),
        ("partial_adversarial", OFF, "PSSNet without pseudo-labels, adversarial, attention"),
        ("partial_teacher", {}, "Averaged teacher"),
    ],
)
def test_names_in_tables(name, settings, title):
    switches = {"attention": True, "adversarial_weight": 0.1, "pseudo_weight": 0.05}
    usual = {"heads": [{}] * 3, "sources": ["A", "B"], "missing": "unknown"} | switches
    assert type(make(name)).title(usual | settings) == title
