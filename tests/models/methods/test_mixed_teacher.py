import pytest
import torch
import torch.nn.functional as F

from dataloaders.samples import SourceBatch
from dataloaders.transforms.cutmix import mix
from models.losses.cross_pseudo import Views, batch_dice_loss, disagreement
from models.methods.sources.base import STYLES, fourier_mix
from tests.models.methods.sources_helpers import PLAIN, joint_batch, make, train


def unlabelled_of(batch):
    parts = [batch["unlabelled_1"], batch["unlabelled_2"]]
    return SourceBatch(
        *(torch.cat([getattr(each, name) for each in parts]) for name in ("image", "partner", "uniform"))
    )


def test_without_its_parts_it_is_plain_self_training():
    batch, twin = joint_batch(), make("mixed_teacher", **PLAIN)
    losses, image, network = make("mixed_teacher", **PLAIN)(batch), unlabelled_of(batch).image, twin.networks[0]
    labelled = batch["labelled"]
    supervised = batch_dice_loss(network(labelled.image), labelled.label).sum()
    logits = network(image)
    torch.testing.assert_close(losses["supervised"], supervised.detach())
    torch.testing.assert_close(losses["unlabelled"], F.cross_entropy(logits, logits.argmax(1)).detach())
    assert losses["confidence"] == 1
    assert twin.teacher is None
    assert not twin.mixers
    assert twin.averaged() is twin
    assert list(twin.predictors) == list(twin.networks)


def test_averaging_alone_teaches_by_the_average():
    batch, settings = joint_batch(), PLAIN | {"teacher": "averaged"}
    twin = make("mixed_teacher", **settings)
    assert twin.averaged() is None
    image = unlabelled_of(batch).image
    label = twin.teacher(image).argmax(1)
    expected = F.cross_entropy(twin.networks[0](image), label)
    torch.testing.assert_close(make("mixed_teacher", **settings)(batch)["unlabelled"], expected.detach())


@pytest.mark.parametrize("part", ["fourier", "appearance", "cutmix_from", "mixstyle", "confidence"])
def test_each_part_changes_the_loss(part):
    """Also alone; confidence needs two views of the teacher."""
    batch = joint_batch()
    needed = {"teacher": "averaged"} | ({"fourier": {"mode": "swap"}} if part == "confidence" else {})
    less = PLAIN | needed
    more = {key: value for key, value in less.items() if key != part}
    without, with_it = (make("mixed_teacher", **settings)(batch) for settings in (less, more))
    assert (with_it["unlabelled"] - without["unlabelled"]).abs() > 1e-6


def test_targets_weigh_pixels_by_the_agreement_of_two_views():
    batch = unlabelled_of(joint_batch())
    settings = PLAIN | {"teacher": "averaged", "fourier": {"mode": "swap"}, "confidence": "kl"}
    method = make("mixed_teacher", **settings)
    train(method, 4)
    target = method.target(batch)
    views = Views(method.teacher(batch.image), method.teacher(fourier_mix(batch, method.config.fourier)))
    torch.testing.assert_close(target.confidence, (-disagreement(views)).exp())
    assert torch.equal(target.label, (views.plain.softmax(1) + views.augmented.softmax(1)).argmax(1))
    assert target.confidence.min() < 0.999
    assert target.confidence.max() <= 1 + 1e-6


def test_targets_above_a_threshold():
    batch = unlabelled_of(joint_batch())
    settings = PLAIN | {"teacher": "averaged", "confidence": "threshold", "threshold": 0.4}
    method = make("mixed_teacher", **settings)
    target, largest = method.target(batch), method.teacher(batch.image).softmax(1).amax(1)
    assert torch.equal(target.confidence, (largest >= 0.4).float())
    assert 0 < target.confidence.mean() < 1


def test_pasted_boxes_are_those_of_labelled_images_with_their_labels():
    batch = joint_batch(n_labelled=3)
    method = make("mixed_teacher", **(PLAIN | {"cutmix_from": "labelled", "confidence": "threshold", "threshold": 1.0}))
    unlabelled = unlabelled_of(batch)
    target = method.target(unlabelled)
    image, pasted = method._pasted(unlabelled, unlabelled.image, target, batch["labelled"], 4)
    inside, order = method.boxes(unlabelled)[:, 0] > 0, [0, 1, 2, 0, 1, 2, 0, 1]
    assert torch.equal(image[:, 0][inside], batch["labelled"].image[order, 0][inside])
    assert torch.equal(pasted.label[inside], batch["labelled"].label[order][inside])
    assert torch.equal(pasted.label[~inside], target.label[~inside])
    assert torch.equal(pasted.confidence, inside.float())  # of the rest no pixel is certain
    assert 0.1 < inside.float().mean() < 0.6


def test_boxes_of_the_other_unlabelled_part():
    batch, settings = joint_batch(), PLAIN | {"teacher": "averaged", "cutmix_from": "unlabelled"}
    twin, unlabelled = make("mixed_teacher", **settings), unlabelled_of(batch)
    label, other = twin.target(unlabelled).label, torch.cat([batch["unlabelled_2"].image, batch["unlabelled_1"].image])
    boxes = twin.boxes(unlabelled)
    label = torch.where(boxes[:, 0] > 0, label.roll(4, 0), label)
    expected = F.cross_entropy(twin.networks[0](mix(unlabelled.image, other, boxes)), label)
    torch.testing.assert_close(make("mixed_teacher", **settings)(batch)["unlabelled"], expected.detach())


@pytest.mark.parametrize("passes", ["both", "teacher", "supervised", "none"])
@pytest.mark.parametrize("teacher", ["averaged", "student"])
def test_statistics_are_mixed_in_the_chosen_passes(passes, teacher, monkeypatch):
    mixed = []
    monkeypatch.setattr(
        "models.networks.mixstyle.mix_statistics", lambda features, share: mixed.append(len(share)) or features
    )
    settings = PLAIN | {"teacher": teacher, "supervised_augmented": True, "mixstyle": {"passes": passes}}
    make("mixed_teacher", **settings)(joint_batch())
    supervised, taught = [4] * 6, [8] * 3  # three stages; labelled images and their strong views; one view each
    expected = {"both": supervised + taught, "supervised": supervised, "teacher": taught, "none": []}
    assert mixed == expected[passes]


def test_shares_of_two_passes_come_from_numbers_of_their_own():
    method, uniform = make("mixed_teacher"), joint_batch()["labelled"].uniform
    first, second = method._shares(uniform, 2, "supervised")
    assert not torch.equal(first, second)
    assert torch.equal(first, method.config.mixstyle.shares(uniform[:, STYLES[0]]))
    assert len({*range(64)[STYLES[0]], *range(64)[STYLES[1]]}) == 8


def test_strong_views_of_labelled_images_are_learned_too():
    batch = joint_batch()
    settings = PLAIN | {"fourier": {"mode": "swap"}}
    twin, labelled = make("mixed_teacher", **settings), batch["labelled"]
    images = [labelled.image, fourier_mix(labelled, twin.config.fourier)]
    losses = [batch_dice_loss(twin.networks[0](each), labelled.label).sum() for each in images]
    found = make("mixed_teacher", **(settings | {"supervised_augmented": True}))(batch)["supervised"]
    torch.testing.assert_close(found, torch.stack(losses).mean().detach())
