"""The contract that every entry of METHODS fulfils, whatever its family."""

from collections import Counter
from dataclasses import asdict, fields, is_dataclass

import numpy as np
import pytest
import torch

from config_ssl_upload import RunConfig
from dataloaders.build import CONFIGS
from dataloaders.images.labels import LabelStore
from dataloaders.samples import DenseBatch, Episode, EvalCase, ImageCase, SupportSet
from models import METHODS, build_method, method_class
from models.methods.base import Method
from util.errors import ConfigError

SIZE = 32
UNET = {"unet": {"in_channels": 1, "halvings": [2, 2], "base_features": 4, "max_features": 8}}
SMALL = {"fewshot": {"modelname": "resnet18", "encoder_weights": "none", "proto_grid_size": 4}, "dense": UNET}

# What is tried: every method as it is, and further settings that bring modules of their own.
ENTRIES = {name: {"method": name} for name in METHODS} | {
    "tloss": {"method": "baseline", "loss": "tloss"},
    "spguided by pixel": {"method": "spguided", "selection": {"level": "pixel"}, "refine": {"style": "pixel"}},
}


def build(name, seed=0) -> Method:
    torch.manual_seed(seed)
    entry = ENTRIES[name]
    method = method_class(entry["method"])
    small = {} if method.batch_type is None else SMALL[method.family]
    return build_method(small | entry)


def box(*shape):
    mask = torch.zeros(*shape, SIZE, SIZE, dtype=torch.bool)
    mask[..., 8:24, 8:20] = True
    return mask


def labels():
    """Six images with the box, bright on dark."""
    generator = np.random.default_rng(0)
    label = box(6).numpy().astype(np.uint8)
    image = (label * 120 + generator.integers(0, 60, label.shape))[..., None].astype(np.uint8)
    cells = np.arange(SIZE) // 4
    superpixel = np.broadcast_to(cells[:, None] * 8 + cells, label.shape).astype(np.uint16)
    return LabelStore(image, label, label, superpixel, ("clean",) * 6, n_classes=2)


def batch_of(batch_type):
    samples = {
        Episode: lambda: Episode(
            torch.randn(2, 1, 1, SIZE, SIZE), box(2, 1), torch.randn(2, 1, 1, SIZE, SIZE), box(2, 1)
        ),
        DenseBatch: lambda: labels().batch(slice(None)),
    }
    return samples[batch_type]()


def case_of(family):
    """A case that shows the box, the classes asked for, and a support set where the family needs one."""
    image = box(5, 1) + 0.1 * torch.randn(5, 1, SIZE, SIZE)
    if family == "dense":
        return ImageCase(tuple("abcde"), (1,), image), None
    mask = box(2, 3, 1)
    support = SupportSet((1, 4), mask[:, :, :, None] + 0.1 * torch.randn(2, 3, 1, 1, SIZE, SIZE), mask)
    return EvalCase("3", (1, 4), image, torch.randint(0, 3, (2, 5))), support


def is_trainable(name):
    return METHODS[ENTRIES[name]["method"]].batch_type is not None


def family_of(name):
    return METHODS[ENTRIES[name]["method"]].family


@pytest.fixture(params=ENTRIES)
def name(request):
    return request.param


@pytest.fixture(params=[name for name in ENTRIES if is_trainable(name)])
def trainable(request):
    return request.param


def train(method, n_steps, lr=0.02):
    """Steps as the training loop takes them; a round has five."""
    store = labels() if method.family == "dense" else None
    method.before_training(store)
    optimisers = {p: torch.optim.Adam(method.parameter_groups(p), lr) for p in method.players}
    batch = batch_of(method.batch_type)
    for step in range(n_steps):
        for player, optimiser in optimisers.items():
            optimiser.zero_grad()
            method(batch, player=player)["loss"].backward()
            optimiser.step()
        method.after_step(step)
        if step % 5 == 4:
            assert all(isinstance(value, float) for value in method.after_round(store).values())
    return method


@pytest.mark.parametrize("name", [name for name in ENTRIES if not is_trainable(name)], indirect=True)
def test_a_method_without_training_says_so(name):
    with pytest.raises(ConfigError, match="nothing to train"):
        build(name)(None)


def test_losses_are_finite_and_gradients_reach_every_parameter_of_all_players(trainable):
    method = build(trainable).train()
    batch = batch_of(method.batch_type)
    for player in method.players:
        method.zero_grad()
        losses = method(batch, player=player)
        assert losses["loss"].shape == ()
        assert all(value.isfinite() for value in losses.values())
        assert not any(value.requires_grad for key, value in losses.items() if key != "loss")
        losses["loss"].backward()
        for group in method.parameter_groups(player):
            for parameter in group["params"]:
                assert parameter.grad is not None
                assert parameter.grad.isfinite().all()
                assert parameter.grad.abs().sum() > 0


def test_each_parameter_belongs_to_one_player(trainable):
    method = build(trainable)
    moved = Counter(
        id(parameter)
        for player in method.players
        for group in method.parameter_groups(player)
        for parameter in group["params"]
    )
    assert moved == Counter(map(id, method.parameters()))


def test_weights_survive_a_round_trip_and_predict_the_same(name):
    torch.manual_seed(3)
    case, support = case_of(family_of(name))
    one, other = build(name).eval(), build(name, seed=1).eval()
    other.load_state_dict(one.state_dict())
    masks = one.predict(case, one.encode_support(support))
    assert masks.shape == (len(case.classes), 5, SIZE, SIZE)
    assert masks.dtype == torch.bool
    assert torch.equal(masks, other.predict(case, other.encode_support(support)))


def test_all_that_is_remembered_between_steps_is_in_the_state(trainable):
    one, other = train(build(trainable).train(), 7), build(trainable, seed=1).train()
    other.load_state_dict(one.state_dict())
    assert one.learning_rate_factor() == other.learning_rate_factor()
    batch = batch_of(one.batch_type)
    for player in one.players:
        torch.manual_seed(4)
        losses = one(batch, player=player)
        torch.manual_seed(4)
        again = other(batch, player=player)
        assert losses.keys() == again.keys()
        for key, value in losses.items():
            assert torch.equal(value, again[key]), key


def test_prediction_needs_no_gradient_and_leaves_the_method_as_it_was(name):
    case, support = case_of(family_of(name))
    method = build(name).eval()
    before = {key: value.clone() for key, value in method.state_dict().items()}
    with torch.inference_mode():
        method.predict(case, method.encode_support(support))
    assert not method.training
    assert all(torch.equal(value, before[key]) for key, value in method.state_dict().items())


@pytest.mark.parametrize("name", [name for name in ENTRIES if family_of(name) == "fewshot"], indirect=True)
def test_what_looks_like_the_support_is_found(name):
    case, support = case_of("fewshot")
    method = build(name).eval()
    masks = method.predict(case, method.encode_support(support))
    truth = box(5)
    assert (masks[0] & truth).sum() / truth.sum() > 0.6
    assert (masks[0] & ~truth).sum() / (~truth).sum() < 0.4


@pytest.mark.parametrize("name", [name for name in ENTRIES if family_of(name) == "dense"], indirect=True)
def test_what_was_trained_on_is_found(name):
    method = train(build(name).train(), 60).eval()
    case = ImageCase(tuple("abcdef"), (1,), batch_of(DenseBatch).image)
    found, truth = method.predict(case, None)[0], box(6)
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9


def test_the_configuration_is_frozen_and_clashes_with_no_other_key_of_its_family(name):
    method = METHODS[ENTRIES[name]["method"]]
    assert is_dataclass(method.Config)
    assert method.Config.__dataclass_params__.frozen  # type: ignore[attr-defined]
    others = {field.name for part in (RunConfig, CONFIGS[method.family]) for field in fields(part)}
    assert not others & {field.name for field in fields(method.Config)}


def test_names_in_tables_tell_methods_apart():
    titles = [
        method.title(
            asdict(RunConfig()) | asdict(CONFIGS[method.family]()) | asdict(method.Config()) | {"method": name}
        )
        for name, method in METHODS.items()
    ]
    assert len(set(titles)) == len(titles)


def test_an_unknown_method_is_named():
    with pytest.raises(ConfigError, match="alpnet"):
        method_class("alpnets")
