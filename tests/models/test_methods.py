"""The contract that every entry of METHODS fulfils, whatever its family."""

from collections import Counter
from dataclasses import asdict, fields, is_dataclass

import numpy as np
import pytest
import torch

from config_ssl_upload import RunConfig
from dataloaders.build import FAMILIES
from dataloaders.images.labels import LabelStore
from dataloaders.samples import (
    N_UNIFORM,
    DenseBatch,
    Episode,
    EvalCase,
    ImageCase,
    JointBatch,
    PartialBatch,
    SourceBatch,
    SupportScan,
    SupportSet,
)
from models import METHODS, build_method, method_class
from models.methods.base import Method, exclusive_masks
from models.methods.supervised import Supervised
from models.training.optim import OptimConfig, Optimisers
from util.errors import ConfigError

SIZE = 32
SPACING_MM = (8.0, 2.0, 2.0)
EXCLUSIVE = {"propagation", "registration", "self_training"}  # at most one class per voxel, and further rules
UNET = {"unet": {"in_channels": 1, "halvings": [2, 2], "base_features": 4, "max_features": 8}}
SMALL = {
    "fewshot": {"modelname": "resnet18", "encoder_weights": "none", "proto_grid_size": 4},
    "self_trained": {"encoder_weights": "none", "n_classes": 5, "decoder_channels": [8] * 5, "ramp_up_steps": 2},
    "dense": UNET,
    "sources": {
        "network": {"kind": "unet", "n_classes": 2, **UNET},
        "encoder_weights": "none",
        "unlabelled_weight": 1.0,
    },
    "partial": {
        "network": {"encoder": "test_efficientnet", "in_channels": 1, "channels": 8, "dropout": 0.0, "drop_path": 0.0},
        "encoder_weights": "none",
        "heads": [
            {"name": "box", "classes": ["box"], "relation": "independent"},
            {"name": "halves", "classes": ["upper", "lower"], "relation": "exclusive"},
        ],
        "sources": ["A", "B"],
        "discriminator": {"channels": 8},
    },
}

# What is tried: every method as it is, and further settings that bring modules of their own.
ENTRIES = {name: {"method": name} for name in METHODS} | {
    "tloss": {"method": "supervised", "loss": "tloss"},
    "cacps as published": {"method": "cacps", "cross": {"student": "mean_prob"}, "separate_passes": False},
    "cacps as released": {"method": "cacps", "cross": {"weighting": "scalar", "teacher": "mean_logit"}},
    "mixed_teacher of one network": {"method": "mixed_teacher", "teacher": "student", "confidence": "threshold"},
    "mixed_teacher without labelled boxes": {"method": "mixed_teacher", "cutmix_from": "unlabelled", "norm_group": 2},
    "partial_adversarial alone": {"method": "partial_adversarial", "attention": False, "pseudo_weight": 0.0},
    "partial_generator with cross-entropy": {"method": "partial_generator", "bce_weight": 0.5, "auxiliary_weight": 0.0},
    "spguided by pixel": {"method": "spguided", "selection": {"level": "pixel"}, "refine": {"style": "pixel"}},
}


def build(name, seed=0) -> Method:
    torch.manual_seed(seed)
    entry = ENTRIES[name]
    method = method_class(entry["method"])
    small = {} if method.batch_type is None else SMALL[kind_of(name)]
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


def sources():
    """The box in images of several looks: six labelled ones, and twice four without labels."""
    generator, parts = torch.Generator().manual_seed(5), {}
    for name, n_images in (("labelled", 6), ("unlabelled_1", 4), ("unlabelled_2", 4)):

        def draw(*size, n_images=n_images):
            return torch.rand(n_images, *size, generator=generator)

        image, partner = (
            0.2 * draw(1, 1, 1) + (0.3 + 0.4 * draw(1, 1, 1)) * box(1) + 0.1 * draw(1, SIZE, SIZE) for _ in range(2)
        )
        label = box(n_images).long() if name == "labelled" else None
        parts[name] = SourceBatch(image, partner, draw(N_UNIFORM), label)
    return JointBatch(parts)


def partially_labelled():
    """The box in six images, labelled as such in three and as two halves in the others; and strong views of it."""
    generator, upper = torch.Generator().manual_seed(6), torch.arange(SIZE)[:, None] < SIZE // 2
    label = torch.stack([box(6), box(6) & upper, box(6) & ~upper], 1)
    known = torch.tensor([[True, False, False]] * 3 + [[False, True, True]] * 3)
    source, valid = torch.tensor([0] * 3 + [1] * 3), torch.ones(6, 1, SIZE, SIZE, dtype=torch.bool)
    valid[:, :, :4] = False

    def part(is_known, is_strong=False):
        image, weak = (box(6, 1) + 0.1 * torch.randn(6, 1, SIZE, SIZE, generator=generator) for _ in range(2))
        tasks = tuple(tuple(t for t, k in enumerate((row[0], row[1])) if k) for row in is_known.tolist())
        return PartialBatch(image, label, is_known, valid, source, tasks, weak if is_strong else None)

    parts = {"labelled": part(known), "pseudo": part(~known, True), "strong": part(known & False, True)}
    return JointBatch(parts)


def with_label_maps():
    """The box in slices between their neighbours: annotated ones, and as many whose left column is unknown."""
    generator, parts = torch.Generator().manual_seed(7), {}
    for name in ("annotated", "propagated"):
        label = box(4).long()
        label[:, 26:, 2:20] = 4
        if name == "propagated":
            label[:, :, 0] = 255
        image = (label % 255).view(4, 1, SIZE, SIZE) / 4 + 0.1 * torch.randn(4, 3, SIZE, SIZE, generator=generator)
        parts[name] = DenseBatch(image, label)
    return JointBatch(parts)


def batch_of(kind):
    samples = {
        "fewshot": lambda: Episode(
            torch.randn(2, 1, 1, SIZE, SIZE), box(2, 1), torch.randn(2, 1, 1, SIZE, SIZE), box(2, 1)
        ),
        "self_trained": with_label_maps,
        "dense": lambda: labels().batch(slice(None)),
        "sources": sources,
        "partial": partially_labelled,
    }
    return samples[kind]()


def case_of(family):
    """A case that shows the box, the classes asked for, and a support set where the family needs one."""
    image = box(5, 1) + 0.1 * torch.randn(5, 1, SIZE, SIZE)
    if family != "fewshot":
        return ImageCase(tuple("abcde"), (1,), image), None
    mask = box(2, 3, 1)
    slices = mask[:, :, :, None] + 0.1 * torch.randn(2, 3, 1, 1, SIZE, SIZE)
    label = box(5).to(torch.uint8)
    label[:, 26:, 2:20] = 4  # a structure at the edge that nothing in the image shows
    scan = SupportScan(
        box(5, 1) + 0.1 * torch.randn(5, 1, SIZE, SIZE), label, SPACING_MM, torch.tensor([[0, 2, 4], [0, 2, 4]])
    )
    support = SupportSet((1, 4), slices, mask, (scan,))
    return EvalCase("3", (1, 4), image, torch.randint(0, 3, (2, 5)), spacing_mm=SPACING_MM), support


def is_trainable(name):
    return METHODS[ENTRIES[name]["method"]].batch_type is not None


def family_of(name):
    return METHODS[ENTRIES[name]["method"]].family


def kind_of(name):
    """The family, within which methods that know their classes are a kind of their own."""
    return "self_trained" if METHODS[ENTRIES[name]["method"]].knows_classes else family_of(name)


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
    optim = OptimConfig("adam", lr, weight_decay=0.0, schedule="constant")
    optimisers = Optimisers(method.optimisers(optim), n_steps)
    batch = batch_of("self_trained" if method.knows_classes else method.family)
    for step in range(n_steps):
        optimisers.zero_grad()
        method(batch)["loss"].backward()
        optimisers.step(step, method.learning_rate_factor)
        method.after_step(step)
        if step % 5 == 4:
            assert all(isinstance(value, float) for value in method.after_round(store).values())
    return method


@pytest.mark.parametrize("name", [name for name in ENTRIES if not is_trainable(name)], indirect=True)
def test_a_method_without_training_says_so(name):
    with pytest.raises(ConfigError, match="nothing to train"):
        build(name)(None)


def test_one_backward_pass_reaches_every_parameter(trainable):
    method = build(trainable).train()
    losses = method(batch_of(kind_of(trainable)))
    assert losses["loss"].shape == ()
    assert all(value.isfinite() for value in losses.values())
    assert not any(value.requires_grad for key, value in losses.items() if key != "loss")
    losses["loss"].backward()
    for parameter in filter(lambda each: each.requires_grad, method.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


def test_each_parameter_belongs_to_one_optimiser(trainable):
    method = build(trainable)
    optimisers = Optimisers(method.optimisers(OptimConfig()), 1)
    trained = [p for each in optimisers.by_name.values() for group in each.param_groups for p in group["params"]]
    assert Counter(map(id, trained)) == Counter(id(each) for each in method.parameters() if each.requires_grad)
    assert "main" in optimisers.by_name


def test_weights_survive_a_round_trip_and_predict_the_same(name):
    torch.manual_seed(3)
    case, support = case_of(family_of(name))
    one, other = build(name).eval(), build(name, seed=1).eval()
    other.load_state_dict(one.state_dict())
    probabilities, again = (each.probabilities(case, each.encode_support(support)) for each in (one, other))
    assert torch.equal(probabilities, again)
    masks = one.predict(case, one.encode_support(support))
    assert torch.equal(masks, other.predict(case, other.encode_support(support)))


def test_probabilities_are_those_of_the_requested_classes_and_decide_on_the_masks(name):
    torch.manual_seed(3)
    case, support = case_of(family_of(name))
    method = build(name).eval()
    encoded = method.encode_support(support)
    probabilities, masks = method.probabilities(case, encoded), method.predict(case, encoded)
    assert probabilities.shape == masks.shape == (len(case.classes), 5, SIZE, SIZE)
    assert probabilities.is_floating_point()
    assert not probabilities.requires_grad
    assert masks.dtype == torch.bool
    assert 0 <= probabilities.min() <= probabilities.max() <= 1
    assert torch.equal(masks, method.masks(probabilities))
    if name in EXCLUSIVE:
        assert masks.sum(0).max() <= 1
        assert not (masks & (probabilities <= 1 - probabilities.sum(0))).any()  # less probable than the background
    else:
        assert torch.equal(masks, probabilities > 0.5)  # of one class or of classes that may overlap


def test_all_that_is_remembered_between_steps_is_in_the_state(trainable):
    one, other = train(build(trainable).train(), 7), build(trainable, seed=1).train()
    other.load_state_dict(one.state_dict())
    for name in one.optimisers(OptimConfig()):
        assert one.learning_rate_factor(name) == other.learning_rate_factor(name)
    batch = batch_of(kind_of(trainable))
    torch.manual_seed(4)
    losses = one(batch)
    torch.manual_seed(4)
    again = other(batch)
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


@pytest.mark.parametrize("name", [name for name in ENTRIES if kind_of(name) == "fewshot"], indirect=True)
def test_what_looks_like_the_support_is_found(name):
    case, support = case_of("fewshot")
    method = build(name).eval()
    masks = method.predict(case, method.encode_support(support))
    truth = box(5)
    assert (masks[0] & truth).sum() / truth.sum() > 0.6
    assert (masks[0] & ~truth).sum() / (~truth).sum() < 0.4


@pytest.mark.parametrize("name", [name for name in ENTRIES if kind_of(name) == "self_trained"], indirect=True)
def test_what_is_in_the_label_maps_is_found(name):
    method, batch = train(build(name).train(), 60).eval(), with_label_maps()
    with torch.no_grad():
        found = method.inference_network()(batch["propagated"].image).argmax(1)
    for value in (1, 4):
        one, other = found == value, batch["annotated"].label == value
        assert 2 * (one & other).sum() / (one.sum() + other.sum()) > 0.9


@pytest.mark.parametrize(
    "name", [name for name in ENTRIES if kind_of(name) not in ("fewshot", "self_trained")], indirect=True
)
def test_what_was_trained_on_is_found(name):
    method = train(build(name).train(), 60).eval()
    batch = batch_of(method.family)
    image = batch["labelled"].image if isinstance(batch, JointBatch) else batch.image
    case = ImageCase(tuple("abcdef"), (1,), image)
    found, truth = method.predict(case, None)[0], box(6)
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.9


def test_the_configuration_is_frozen_and_clashes_with_no_other_key_of_its_family(name):
    method = METHODS[ENTRIES[name]["method"]]
    assert is_dataclass(method.Config)
    assert method.Config.__dataclass_params__.frozen  # type: ignore[attr-defined]
    others = {field.name for part in (RunConfig, FAMILIES[method.family].config) for field in fields(part)}
    assert not others & {field.name for field in fields(method.Config)}


def test_names_in_tables_tell_methods_apart():
    titles = [
        method.title(
            asdict(RunConfig()) | asdict(FAMILIES[method.family].config()) | asdict(method.Config()) | {"method": name}
        )
        for name, method in METHODS.items()
    ]
    assert len(set(titles)) == len(titles)


def test_exclusive_masks_by_hand():
    probabilities = torch.tensor([[0.6, 0.4, 0.25, 0.5], [0.1, 0.5, 0.3, 0.0]])[:, None, None]  # (K, D, H, W)
    first, second = exclusive_masks(probabilities).flatten(1).tolist()
    assert first == [True, False, False, False]  # last: as probable as the background
    assert second == [False, True, False, False]  # third: the background has 0.45


def test_the_former_name_of_plain_training_is_understood():
    assert method_class("baseline") is method_class("supervised") is Supervised
    assert "baseline" not in METHODS
    assert isinstance(build_method(UNET | {"method": "baseline"}), Supervised)


def test_an_unknown_method_is_named():
    with pytest.raises(ConfigError, match="alpnet"):
        method_class("alpnets")
