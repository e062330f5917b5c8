"""The second stage: pseudo-labels, discriminators, and whom each term moves."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from dataloaders.samples import JointBatch
from models.losses.adversarial import discriminator_loss, segmentor_loss
from models.losses.partial_labels import known_tasks
from models.training.optim import OptimConfig
from tests.models.methods.partial_helpers import CHANNELS, OFF, SIZES, TASKS, dice_by_hand, joint_batch, make
from util.errors import ConfigError


def test_stage_two_is_stage_one_where_all_is_off():
    one, two = make("partial_generator"), make("partial_adversarial", **OFF)
    two.load_state_dict(one.state_dict())
    batch = joint_batch()
    alone = JointBatch({"labelled": batch["labelled"]})
    assert one(batch)["loss"].equal(two(alone)["loss"])
    assert "discriminator" not in two.optimisers(OptimConfig())
    with pytest.raises(ConfigError, match="no part 'pseudo', only labelled"):
        make("partial_adversarial")(alone)


def test_pseudo_labels_by_hand():
    deviations = [
        {"source": "LINES", "task": "lesion", "weight": 0.1},
        {"source": "DISCS", "task": "lesion", "weight": 0.0},
    ]
    settings = OFF | {"pseudo_weight": 0.05, "pseudo_weights": deviations}
    method, batch = make("partial_adversarial", **settings), joint_batch()
    pseudo = batch["pseudo"]
    logits, expected = method.network(pseudo.image), torch.tensor(0.0)
    weights = {(0, 1): 0.1, (0, 2): 0.05, (1, 0): 0.05, (1, 2): 0.05, (2, 0): 0.05, (2, 1): 0.0}
    for (source, task), weight in weights.items():
        images = slice(2 * source, 2 * source + 2)
        main, auxiliary = (
            dice_by_hand(method, pseudo, maps[task][images], CHANNELS[task], images)
            for maps in (logits.main, logits.auxiliary)
        )
        expected = expected + weight * (main + 0.4 * auxiliary)
    torch.testing.assert_close(method(batch)["pseudo"], expected.detach(), rtol=1e-4, atol=1e-5)
    with pytest.raises(ConfigError, match="RETA lesion: expected a data set"):
        make("partial_adversarial", pseudo_weights=[deviations[0] | {"source": "RETA"}])


def test_adversarial_terms_by_hand():
    method, batch = make("partial_adversarial", attention=False, pseudo_weight=0.0), joint_batch()
    labelled, losses = batch["labelled"], method(batch)
    logits, known = method.network(labelled.image), known_tasks(labelled.is_known, SIZES)
    sums = []
    for maps, critics in (
        (logits.main, method.discriminators),
        (logits.auxiliary, method.auxiliary_discriminators),
    ):
        told = torch.cat([critic(each.sigmoid()) for critic, each in zip(critics, maps, strict=True)], 1)
        sums += [loss(told, known, labelled.source, 3).sum() for loss in (segmentor_loss, discriminator_loss)]
    torch.testing.assert_close(losses["adversarial"], sums[0].detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(losses["discriminator"], sums[1].detach(), rtol=1e-4, atol=1e-5)
    dice = make("partial_generator")
    dice.network.load_state_dict(method.network.state_dict())
    expected = dice(batch)["loss"] + 0.1 * sums[0] + sums[1] + 0.02 * sums[2] + sums[3]
    torch.testing.assert_close(losses["loss"], expected, rtol=1e-4, atol=1e-5)


def test_each_adversarial_term_moves_its_own_side_only():
    method, labelled = make("partial_adversarial"), joint_batch()["labelled"]
    maps = method.network(labelled.image).main
    terms = method.adversarial(maps, labelled, method.discriminators)
    critics = list(method.discriminators.parameters())

    def moved(loss, weights):
        found = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
        return [each is not None and bool(each.any()) for each in found]

    network = [method.network.heads[f"task_{task.name}"].classifier[1].weight for task in TASKS]
    assert moved(terms.segmentor, network) == [True] * 3
    assert not any(moved(terms.segmentor, critics))
    assert all(moved(terms.discriminator, critics))
    assert not any(moved(terms.discriminator, network))
    gradients = torch.autograd.grad(terms.segmentor, maps, retain_graph=True)
    for task, gradient in enumerate(gradients):  # adversarial terms are of unknown tasks only
        assert [bool(each.any()) for each in gradient] == [source != task for source in labelled.source]


def test_each_side_has_an_optimiser_of_its_own():
    optim = OptimConfig("adamw", 6e-5, weight_decay=0.01, schedule="polynomial", warmup_steps=1500)
    found = make("partial_adversarial").optimisers(optim)
    assert found["main"].optim is optim
    assert found["discriminator"].optim == replace(optim, name="adam", lr=2e-4, betas=(0.9, 0.99), weight_decay=0.0)
    decayed, free = found["main"].parameters
    assert "weight_decay" not in decayed
    assert free["weight_decay"] == 0
    method = make("partial_adversarial")
    tables = [name for name, _ in method.named_parameters() if name.endswith("relative_position_bias_table")]
    norms = [m for m in method.network.modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm)]
    assert len(tables) == 6
    assert len(free["params"]) == len(tables) + sum(len(list(norm.parameters())) for norm in norms)
