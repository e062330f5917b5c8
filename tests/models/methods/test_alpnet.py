import dataclasses

import numpy as np
import pytest
import torch

from dataloaders.samples import Episode, EvalCase, SupportSet
from models.methods.alpnet import ALPNet, ALPNetConfig, enlarge, shrink

SMALL = ALPNetConfig(modelname="resnet18", encoder_weights="none", freeze_batch_norm=True)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ALPNet(SMALL).train()


def episodes(count, size=64, shots=1):
    generator = torch.Generator().manual_seed(count)
    masks = torch.zeros(2, count, shots, size, size, dtype=torch.bool)
    masks[..., 8:40, 16:48] = True
    masks[:, 0, :, 10:15, 10:15] = True
    images = torch.randn(2, count, shots, 1, size, size, generator=generator) + masks[..., None, :, :]
    return Episode(images[0], masks[0], images[1][:, :1], masks[1][:, :1])


@pytest.mark.parametrize("case", ["h0_big", "h1_tiny_fallback"])
def test_losses_and_gradients_equal_the_reference(golden_file, model, case):
    golden = golden_file("fewshot/head_and_align.npz")
    support, query = (
        torch.from_numpy(golden[f"{case}/{name}"])[None, None].requires_grad_()
        for name in ("support_feat", "query_feat")
    )
    masks = (torch.from_numpy(golden[f"{case}/{name}"])[None, None] > 0 for name in ("fg_mask", "query_label"))
    losses = model.losses(support, query, *masks)
    assert losses["query_ce"].item() == pytest.approx(float(golden[f"{case}/query_ce"]), abs=1e-5)
    assert losses["align"].item() == pytest.approx(float(golden[f"{case}/align_loss"]), abs=1e-5)
    (losses["query_ce"] + losses["align"]).backward()
    for features, name in ((support, "support"), (query, "query")):
        assert features.grad is not None
        np.testing.assert_allclose(features.grad[0, 0], golden[f"{case}/grad_{name}_feat"], rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize(("case", "window"), [("h0_big", 4), ("h1_tiny_fallback", 4), ("h4_big_val", 2)])
def test_logits_and_prediction_equal_the_reference(golden_file, model, case, window):
    golden = golden_file("fewshot/head_and_align.npz")
    support, query = (torch.from_numpy(golden[f"{case}/{name}"])[None] for name in ("support_feat", "query_feat"))
    mask = torch.from_numpy(golden[f"{case}/fg_mask"])[None, None] > 0
    soft_mask = shrink(mask, (32, 32))
    prototypes, _ = model.head.prototypes(support[None], soft_mask, window, 4)
    logits = enlarge(model.head.scores(query[None], prototypes)[0], (256, 256))[0]
    np.testing.assert_allclose(logits[:, 3::8, 3::8], golden[f"{case}/logits_at_8"], atol=1e-4)
    np.testing.assert_array_equal(logits.argmax(0), golden[f"{case}/pred"])


def test_loss_of_a_batch_is_the_mean_of_its_episodes(model):
    batch = episodes(3)
    together = model(batch)
    single = [
        model(Episode(*(getattr(batch, field.name)[i : i + 1] for field in dataclasses.fields(batch))))["loss"]
        for i in range(3)
    ]
    torch.testing.assert_close(together["loss"], torch.stack(single).mean(), rtol=1e-5, atol=1e-6)


def test_training_reduces_the_loss(model):
    torch.manual_seed(1)
    learner = ALPNet(dataclasses.replace(SMALL, freeze_batch_norm=False)).train()
    optimiser = torch.optim.SGD(learner.parameters(), lr=1e-3, momentum=0.9)
    batch, losses = episodes(2), []
    for _ in range(8):
        optimiser.zero_grad()
        loss = learner(batch)["loss"]
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_global_prototypes_make_panet(model):
    panet = ALPNet(dataclasses.replace(SMALL, prototypes="global")).train()
    support = torch.randn(1, 1, 256, 8, 8)
    prototypes, _ = panet.head.prototypes(support, torch.ones(1, 1, 8, 8), 1, 1)
    assert prototypes.is_valid.sum(2).tolist() == [[1, 1]]


def test_the_cells_of_testing_are_those_of_val_wsize(model):
    image, mask = torch.randn(1, 1, 1, 1, 64, 64), torch.ones(1, 1, 1, 64, 64, dtype=torch.bool)
    for window in (1, 2, 4):
        method = ALPNet(dataclasses.replace(SMALL, val_wsize=window)).eval()
        encoded = method.encode_support(SupportSet((1,), image, mask))
        assert encoded.direction.shape == (1, 1, (8 // window) ** 2 + 4, 256)


def test_prediction_does_not_depend_on_how_slices_are_batched(model):
    model.eval()
    batch = episodes(6)
    support = SupportSet(
        (1, 2), batch.support_image[:6].view(2, 3, 1, 1, 64, 64), batch.support_mask.view(2, 3, 1, 64, 64)
    )
    part = torch.tensor([[0, 0, 1, 1, 2, 2], [2, 1, 0, 0, 1, 2]])
    case = EvalCase("7", (1, 2), batch.query_image[:, 0], part)
    all_at_once = model.predict(case, model.encode_support(support))
    assert all_at_once.shape == (2, 6, 64, 64)
    assert all_at_once.dtype == torch.bool
    other = ALPNet(dataclasses.replace(SMALL, slices_per_pass=1))
    other.load_state_dict(model.state_dict())
    one_by_one = other.eval().predict(case, other.encode_support(support))
    assert (all_at_once != one_by_one).float().mean() < 1e-4
    single = EvalCase("7", (2,), batch.query_image[3:4, 0], part[1:, 3:4])
    alone = SupportSet((2,), support.image[1:], support.mask[1:])
    assert (model.predict(single, model.encode_support(alone))[0, 0] != all_at_once[1, 3]).float().mean() < 1e-3
    model.train()
