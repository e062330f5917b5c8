"""How a network runs must not change what it learns."""

import dataclasses
from typing import Literal

import pytest
import torch

from dataloaders import transforms
from dataloaders.fewshot.config import FewShotConfig
from dataloaders.fewshot.data import open_fewshot
from dataloaders.images.config import DenseConfig
from dataloaders.images.data import open_dense
from dataloaders.ordering import LoaderOptions
from dataloaders.samples import JointBatch
from dataloaders.scans.normalise import Normalisation
from models.training.speed import (
    batch_size_per_process,
    out_of_memory_error,
    should_keep_on_device,
    to_memory_format,
)
from tests.models.hearts import open_hearts, write_hearts
from util.errors import ConfigError

CPU = torch.device("cpu")


def tensors(batch):
    if isinstance(batch, JointBatch):
        return [tensor for part in batch.parts.values() for tensor in tensors(part)]
    values = (getattr(batch, field.name) for field in dataclasses.fields(batch))
    return [value for value in values if value is not None]


def assert_same_batches(data, seed=3):
    host, device = (
        data.loader(Normalisation(), seed, 2, range(6), LoaderOptions(device=where)) for where in (None, CPU)
    )
    for one, other in zip(host, device, strict=True):
        for tensor, twin in zip(tensors(one), tensors(other), strict=True):
            assert torch.equal(tensor, twin)


def test_episodes_made_on_a_device_are_those_made_from_files(prepared_folder):
    assert_same_batches(open_fewshot(FewShotConfig(), str(prepared_folder)))
    assert_same_batches(open_fewshot(FewShotConfig(train_on="labels"), str(prepared_folder)))


def test_episodes_made_by_compiled_code_are_those_made_without(prepared_folder, monkeypatch):
    """But for rounding; and that it is only compiled where the data lie on a device."""
    compiled, torch_compile = [], torch.compile

    def compile_with(function, **_):
        compiled.append(function)
        return torch_compile(function, backend="aot_eager", fullgraph=True)  # needs no compiler; all in one graph

    monkeypatch.setattr(torch, "compile", compile_with)
    data = open_fewshot(FewShotConfig(), str(prepared_folder))
    plain, fast = (
        data.loader(Normalisation(), 3, 2, range(3), LoaderOptions(device=device, compiles=True))
        for device in (None, CPU)
    )
    for one, other in zip(plain, fast, strict=True):
        for tensor, twin in zip(tensors(one), tensors(other), strict=True):
            torch.testing.assert_close(tensor, twin, rtol=1e-4, atol=1e-4)
    assert compiled == [transforms.apply]


def test_images_made_on_a_device_are_those_made_from_files(image_folder):
    config = DenseConfig(size_px=32)
    data = open_dense(config, str(image_folder))
    assert_same_batches(data)
    data.labels.replace(1 - data.labels.label)  # a refinement: the next round's loader sees it
    assert_same_batches(data)


@pytest.mark.parametrize("settings", [{}, {"which_aug": "mms", "crop_px": 24, "hist_match": "train"}])
def test_slices_of_several_sources_made_on_a_device_are_those_made_from_files(tmp_path, settings):
    data = dataclasses.replace(open_hearts(write_hearts(tmp_path), **settings), needs=frozenset({"unlabelled"}))
    assert_same_batches(data)
    assert data.nbytes == 3 * 6 * 3 * 4 * 32 * 32  # bytes of a pixel, scans, frames, slices, rows and columns


def test_few_shot_data_know_what_they_take_on_a_device(prepared_folder):
    data = open_fewshot(FewShotConfig(), str(prepared_folder))
    assert data.nbytes == len(data.fold.train) * 8 * 64 * 64 * (4 + 4)


def test_data_stay_on_the_host_without_a_gpu_unless_asked():
    assert not should_keep_on_device(CPU, 1, "auto")
    assert should_keep_on_device(CPU, 1, "device")
    assert not should_keep_on_device(torch.device("cuda"), 1, "host")


@pytest.mark.parametrize(("free", "fits"), [(1000, True), (900, False)])
def test_data_go_to_a_gpu_that_has_room(monkeypatch, free, fits):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 2000))
    assert should_keep_on_device(torch.device("cuda"), 299, "auto") == fits


def test_channels_last_where_it_is_asked_for_or_faster():
    expected: list[tuple[Literal["on", "off", "auto"], bool]] = [("on", True), ("off", False), ("auto", True)]
    for choice, is_last in expected:
        net = to_memory_format(torch.nn.Conv2d(3, 4, 3), CPU, choice)
        assert net.get_parameter("weight").is_contiguous(memory_format=torch.channels_last) == is_last


def test_a_batch_is_divided_evenly_or_refused():
    assert batch_size_per_process(8, 4) == 2
    with pytest.raises(ConfigError, match=r"batch_size=6: not divisible by 4 processes. Start 3, or use batch_size=8"):
        batch_size_per_process(6, 4)


def test_running_out_of_memory_is_answered_with_what_would_fit(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: type("P", (), {"total_memory": 80 * 2**30}))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 78 * 2**30)
    message = str(out_of_memory_error(32, torch.device("cuda")))
    assert "32 sample(s)" in message
    assert "batch_size=29" in message
    assert "checkpoint is intact" in message
