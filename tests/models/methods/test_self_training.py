"""Self-training: unknown voxels do not count, neighbours are seen, classes are known without annotated scans."""

import pytest
import torch
import torch.nn.functional as F

from dataloaders.protocol import DataFacts
from dataloaders.samples import DenseBatch, EvalCase, JointBatch
from dataloaders.transforms.scan_views import to_input
from models.methods.self_training import SelfTraining, SelfTrainingConfig, _loss
from models.networks.slice_unet import build_slice_unet
from models.training.optim import OptimConfig
from util.errors import ConfigError

SIZE = 32
SMALL = {"encoder_weights": "none", "n_classes": 3, "decoder_channels": (8, 8, 8, 8, 8)}


def method(**changes):
    torch.manual_seed(0)
    return SelfTraining(SelfTrainingConfig(**SMALL | changes))


def batch(n_images=3):
    generator = torch.Generator().manual_seed(1)
    parts = {
        name: DenseBatch(
            torch.randn(n_images, 3, SIZE, SIZE, generator=generator),
            torch.randint(0, 3, (n_images, SIZE, SIZE), generator=generator),
        )
        for name in ("annotated", "propagated")
    }
    return JointBatch(parts)


def test_the_loss_by_hand_and_without_unknown_pixels():
    logits = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(2))
    label = torch.tensor([0, 1, 2, 1, 255]).expand(2, 4, 5)
    known_logits, known_label = logits[..., :4], label[..., :4]
    probability, true = known_logits.softmax(1), F.one_hot(known_label, 3).permute(0, 3, 1, 2)
    both, either = (probability * true).sum((0, 2, 3)), (probability + true).sum((0, 2, 3))
    dice = (1 - (2 * both + 1) / (either + 1))[1:].mean()
    entropy = F.cross_entropy(known_logits, known_label, reduction="sum") / label.numel()
    part = DenseBatch(torch.zeros(2, 3, 4, 5), label)
    torch.testing.assert_close(_loss(logits, part), entropy + dice)
    changed = logits.clone()
    changed[..., 4] += 3 * torch.randn(2, 3, 4)
    torch.testing.assert_close(_loss(changed, part), _loss(logits, part))


def test_propagated_label_maps_count_more_and_more():
    own = method(ramp_up_steps=10, propagated_weight=2.0).eval()
    weights = []
    for step in range(12):
        losses = own(batch())
        weights.append(((losses["loss"] - losses["annotated"]) / losses["propagated"]).item())
        own.after_step(step)
    assert weights[0] == pytest.approx(2 * 0.0067, abs=1e-3)
    assert weights[:11] == sorted(weights[:11])
    assert weights[10:] == pytest.approx([2.0, 2.0], rel=1e-4)
    again = method(ramp_up_steps=10, propagated_weight=2.0)
    again.load_state_dict(own.state_dict())
    assert again.weight == own.weight


def test_a_slice_is_segmented_between_its_neighbours():
    own, image = method().eval(), torch.randn(5, 1, SIZE, SIZE)
    found = own.probabilities(EvalCase("a", (2, 1), image, torch.zeros(2, 5, dtype=torch.int64)))
    shown = to_input(torch.stack([image[[0, 0, 1], 0], image[[1, 2, 3], 0], image[[3, 4, 4], 0]]))
    with torch.no_grad():
        expected = own.network(shown).softmax(1)[:, [2, 1]].transpose(0, 1)
    torch.testing.assert_close(found[:, [0, 2, 4]], expected, atol=1e-5, rtol=0)


def test_any_size_is_segmented():
    own = method().eval()
    found = own.probabilities(EvalCase("a", (1,), torch.randn(2, 1, 40, 72), torch.zeros(1, 2, dtype=torch.int64)))
    assert found.shape == (1, 2, 40, 72)


def test_pretrained_weights_learn_more_slowly():
    own = method(encoder_lr_factor=0.25)
    trained = own.optimisers(OptimConfig("adamw", 0.01))
    assert (trained["main"].optim.lr, trained["encoder"].optim.lr) == (0.01, 0.0025)


def test_packaged_weights_are_those_of_the_encoder():
    encoder = build_slice_unet("efficientnet_lite0", "package", 3, (8, 8, 8, 8, 8)).encoder
    other = build_slice_unet("efficientnet_lite0", "none", 3, (8, 8, 8, 8, 8)).encoder
    (name, packaged), (_, random) = next(zip(encoder.named_parameters(), other.named_parameters(), strict=True))
    assert "conv_stem" in name
    assert not torch.equal(packaged, random)
    again = build_slice_unet("efficientnet_lite0", "package", 3, (8, 8, 8, 8, 8)).encoder
    assert torch.equal(packaged, next(again.parameters()))


def test_the_number_of_classes_follows_from_the_data():
    assert SelfTraining.derived(DataFacts(1, 5, (64, 64))) == {"n_classes": 5}


def test_other_weights_networks_and_classes_are_refused():
    with pytest.raises(ConfigError, match="expected package or none"):
        build_slice_unet("efficientnet_lite0", "imagenet", 3, (8, 8, 8, 8, 8))
    with pytest.raises(ConfigError, match="expected one of efficientnet_lite0"):
        SelfTrainingConfig(modelname="resnet18")
    with pytest.raises(ConfigError, match="expected five numbers"):
        SelfTrainingConfig(decoder_channels=(8, 8))
    with pytest.raises(ConfigError, match="class 3 was requested"):
        method().eval().probabilities(EvalCase("a", (3,), torch.zeros(1, 1, SIZE, SIZE), torch.zeros(1, 1).long()))
