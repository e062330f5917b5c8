"""Batches of any depth move as one."""

from typing import NamedTuple

import pytest
import torch

from dataloaders.samples import DenseBatch, JointBatch, PartialBatch, UnlabelledBatch, map_tensors


class Pair(NamedTuple):
    one: torch.Tensor
    other: str


def joint():
    dense = DenseBatch(torch.rand(2, 1, 4, 4), torch.zeros(2, 4, 4, dtype=torch.int64))
    valid = torch.ones(3, 4, 4, dtype=torch.bool)
    label, known = valid[:, None].expand(-1, 2, -1, -1), valid[:, :2, 0]
    partial = PartialBatch(torch.rand(3, 1, 4, 4), label, known, valid[:, None], torch.arange(3), ((0,), (), (0, 1)))
    return JointBatch({"dense": dense, "deeper": JointBatch({"partial": partial})})


def tensors_of(batch):
    found = []

    def note(tensor):
        found.append(tensor)
        return tensor

    map_tensors(batch, note)
    return found


def test_every_tensor_of_a_nested_batch_moves():
    batch = joint()
    moved = batch.to(torch.device("meta"))
    assert len(tensors_of(moved)) == len(tensors_of(batch)) == 7
    assert {tensor.device.type for tensor in tensors_of(moved)} == {"meta"}
    assert {tensor.device.type for tensor in tensors_of(batch)} == {"cpu"}
    assert type(moved["deeper"]["partial"]) is PartialBatch
    assert moved["dense"].superpixel is None


def test_every_tensor_of_a_nested_batch_is_pinned(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1 if tensor.is_floating_point() else tensor)
    batch = joint()
    pinned = batch.pin_memory()
    assert torch.equal(pinned["dense"].image, batch["dense"].image + 1)
    assert torch.equal(pinned["deeper"]["partial"].image, batch["deeper"]["partial"].image + 1)


def test_lists_tuples_and_dicts_keep_their_types():
    value = {"a": [torch.zeros(1), 3], "b": (Pair(torch.zeros(1), "name"), None)}
    found = map_tensors(value, lambda tensor: tensor + 1)
    assert found == {"a": [torch.ones(1), 3], "b": (Pair(torch.ones(1), "name"), None)}
    assert type(found["b"][0]) is Pair


@pytest.mark.parametrize(("batch", "length"), [(joint(), 5), (UnlabelledBatch(torch.rand(4, 1, 2, 2)), 4)])
def test_the_length_of_a_batch_counts_its_samples(batch, length):
    assert len(batch) == length
