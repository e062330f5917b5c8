"""The contract that every entry of METHODS fulfils."""

from dataclasses import fields, is_dataclass

import pytest
import torch

from config_ssl_upload import RunConfig
from dataloaders.build import FewShotConfig
from dataloaders.samples import Episode, EvalCase, SupportSet
from models import METHODS, build_method, method_class
from models.methods.base import Method
from util.errors import ConfigError

SMALL = {"alpnet": {"modelname": "resnet18", "encoder_weights": "none", "proto_grid_size": 4}}
SIZE = 32


def build(name) -> Method:
    torch.manual_seed(0)
    return build_method({"method": name} | SMALL.get(name, {}))


def box(*shape):
    mask = torch.zeros(*shape, SIZE, SIZE, dtype=torch.bool)
    mask[..., 8:24, 8:20] = True
    return mask


def batch_of(batch_type):
    samples = {
        Episode: lambda: Episode(
            torch.randn(2, 1, 1, SIZE, SIZE), box(2, 1), torch.randn(2, 1, 1, SIZE, SIZE), box(2, 1)
        ),
    }
    return samples[batch_type]()


def case_and_support():
    mask = box(2, 3, 1)
    support = SupportSet((1, 4), mask[:, :, :, None] + 0.1 * torch.randn(2, 3, 1, 1, SIZE, SIZE), mask)
    image = box(5, 1) + 0.1 * torch.randn(5, 1, SIZE, SIZE)
    return EvalCase(3, (1, 4), image, torch.randint(0, 3, (2, 5))), support


@pytest.fixture(params=METHODS)
def name(request):
    return request.param


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].batch_type is None], indirect=True)
def test_a_method_without_training_says_so(name):
    with pytest.raises(ConfigError, match="nothing to train"):
        build(name)(None)


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].batch_type], indirect=True)
def test_losses_are_finite_and_gradients_reach_every_parameter_of_all_players(name):
    trainable = build(name).train()
    batch = batch_of(trainable.batch_type)
    for player in trainable.players:
        trainable.zero_grad()
        losses = trainable(batch, player=player)
        assert all(value.isfinite() for value in losses.values())
        assert not any(value.requires_grad for key, value in losses.items() if key != "loss")
        losses["loss"].backward()
        for parameter in trainable.player_parameters(player):
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()
            assert parameter.grad.abs().sum() > 0


def test_weights_survive_a_round_trip_and_predict_the_same(name):
    torch.manual_seed(3)
    case, support = case_and_support()
    one, other = build(name).eval(), build(name).eval()
    for parameter in one.parameters():
        parameter.data += 0.01
    other.load_state_dict(one.state_dict())
    masks = one.predict(case, one.encode_support(support))
    assert masks.shape == (2, 5, SIZE, SIZE)
    assert masks.dtype == torch.bool
    assert torch.equal(masks, other.predict(case, other.encode_support(support)))


def test_what_looks_like_the_support_is_found(name):
    case, support = case_and_support()
    method = build(name).eval()
    masks = method.predict(case, method.encode_support(support))
    truth = box(5)
    assert (masks[0] & truth).sum() / truth.sum() > 0.6
    assert (masks[0] & ~truth).sum() / (~truth).sum() < 0.4


def test_the_configuration_is_frozen_and_clashes_with_no_other_key(name):
    config = method_class(name).Config
    assert is_dataclass(config)
    assert config.__dataclass_params__.frozen  # type: ignore[attr-defined]
    others = {field.name for part in (RunConfig, FewShotConfig) for field in fields(part)}
    assert not others & {field.name for field in fields(config)}


def test_an_unknown_method_is_named():
    with pytest.raises(ConfigError, match="alpnet"):
        method_class("alpnets")
