"""What runs on a GPU, tested without one: fake tensors that have its name as device, and no values.

No value of theirs can be read, no shape can depend on one, and tensors of two devices do not mix; copies that would
make the host wait are detected.
"""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensorDeviceMismatchError,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.training_step import synthetic_stack
from dataloaders.fewshot.episodes import EpisodeDataset, PseudoClassDrawer
from dataloaders.fewshot.labelled import LabelledSlices, ViewDataset
from dataloaders.images.data import DenseDataset
from dataloaders.images.labels import LabelsOnDevice
from dataloaders.ordering import LoaderOptions, Part
from dataloaders.samples import map_tensors
from dataloaders.sources.batches import Look, SourceDataset
from dataloaders.sources.config import SourcesDataConfig
from dataloaders.sources.store import SliceStore
from dataloaders.transforms import PRESETS
from dataloaders.transforms.dense import DENSE_PRESETS
from dataloaders.transforms.histogram import N_QUANTILES
from dataloaders.transforms.scan_views import ScanViewConfig
from dataloaders.transforms.slices import SLICE_PRESETS
from models import build_method, method_class
from models.methods.whole_scans import WholeScanMethod
from tests.models.test_methods import ENTRIES, SIZE, SMALL, batch_of, case_of, family_of, is_trainable, kind_of, labels
from tests.models.toys import TOYS, batches, build_toy
from util.runtime.meters import RunningMeans

GPU = torch.device("cuda", 0)


class WaitsForGPUError(AssertionError):
    """The host would wait for the GPU here."""


class NoWaiting(TorchDispatchMode):
    """Stops at every copy between host and GPU that is not told not to wait."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        found = func(*args, **kwargs)
        if func is torch.ops.aten._to_copy.default:
            check_copy(args[0].device, found.device, kwargs.get("non_blocking", False))
        if func is torch.ops.aten.copy_.default:
            check_copy(args[1].device, args[0].device, kwargs.get("non_blocking", len(args) > 2 and args[2]))
        return found


def check_copy(source, target, is_asynchronous):
    if source.type != target.type and (target.type == "cpu" or not is_asynchronous):
        raise WaitsForGPUError(f"from {source} to {target}")


@pytest.fixture
def fake():
    """A mode of tensors without values, in which autocast takes a GPU for granted."""
    belief = (
        patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        patch("torch.cuda.is_bf16_supported", return_value=True),
    )
    no_cudnn = torch.backends.cudnn.flags(enabled=False)  # its grid_sample cannot be pretended
    with FakeTensorMode() as mode, torch.no_grad(), no_cudnn, belief[0], belief[1]:
        yield mode


def made(function, *arguments):
    """What a function returns, with values."""
    with unset_fake_temporarily():
        return function(*arguments)


def on_gpu(fake, sample):
    """A sample as if it were on the GPU."""
    return map_tensors(sample, lambda tensor: fake.from_tensor(tensor).to(GPU))


def method_on_gpu(name):
    """Its weights are made there; what its steps make has to name the device."""
    method_type = method_class(ENTRIES[name]["method"])
    small = {} if method_type.batch_type is None else SMALL[kind_of(name)]
    with GPU:
        return build_method(small | ENTRIES[name])


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", [name for name in ENTRIES if is_trainable(name)])
def test_a_step_neither_waits_nor_mixes_devices(fake, name, precision):
    batch = on_gpu(fake, made(batch_of, kind_of(name)))
    method, means = method_on_gpu(name).train(), RunningMeans()
    with NoWaiting():
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            losses = method(batch)
        assert losses["loss"].dtype == torch.float32
        means.add(losses)
        method.after_step(1)
    assert {value.device for value in means.sums.values()} == {GPU}


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", TOYS)
def test_a_step_of_several_networks_and_streams_neither_waits_nor_mixes_devices(fake, name, precision):
    batch = on_gpu(fake, made(lambda: list(batches(name, 4))[-1]))
    with GPU:
        method = build_toy(name).train()
    with NoWaiting():
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            losses = method(batch)
        method.after_step(1)
    assert {(value.device, value.dtype) for value in losses.values()} == {(GPU, torch.float32)}
    assert len(losses) == 4


def reads_whole_scans(name):
    """What follows from a scan's values, which these methods read once: body, alignment, or pieces of the masks."""
    return issubclass(method_class(ENTRIES[name]["method"]), WholeScanMethod) or kind_of(name) == "self_trained"


@pytest.mark.parametrize("name", [name for name in ENTRIES if not reads_whole_scans(name)])
def test_prediction_stays_on_the_device(fake, name):
    case, support = (each and on_gpu(fake, each) for each in made(case_of, family_of(name)))
    method = method_on_gpu(name).eval()
    with NoWaiting():
        encoded = method.encode_support(support)
        assert method.predict(case, encoded).device == GPU


@pytest.mark.parametrize("preset", ["sabs_aug", "aug_v3"])
def test_episodes_are_made_on_the_device(fake, preset):
    stack = made(lambda: synthetic_stack(64, 8).on(torch.device("cpu")))
    drawer = PseudoClassDrawer(stack, np.ones(8, bool), seed=0)
    stack = replace(stack, image=fake.from_tensor(stack.image).to(GPU), ids=fake.from_tensor(stack.ids).to(GPU))
    with NoWaiting():
        episode = EpisodeDataset(stack, drawer, PRESETS[preset], 0, 3)[5]
    assert episode.query_image.shape == (3, 1, 1, 64, 64)
    assert {value.device for value in vars(episode).values()} == {GPU}


def test_views_of_labelled_slices_are_made_on_the_device(fake):
    stack = made(lambda: synthetic_stack(64, 8).on(torch.device("cpu")))
    stack = replace(stack, image=fake.from_tensor(stack.image).to(GPU), ids=fake.from_tensor(stack.ids).to(GPU))
    part = Part(np.arange(8), 3, seed=0, name="annotated")
    with NoWaiting():
        batch = ViewDataset(LabelledSlices(stack, (1, 2)), part, ScanViewConfig(), n_classes=3)[5]
    assert batch.image.shape == (3, 3, 64, 64)
    assert {batch.image.device, batch.label.device} == {GPU}


@pytest.mark.parametrize("preset", DENSE_PRESETS)
def test_dense_batches_are_made_on_the_device(fake, preset):
    store = made(labels)
    image, label = (fake.from_tensor(made(torch.from_numpy, each)).to(GPU) for each in (store.image, store.label))
    data = LabelsOnDevice(image, label, label.int())
    with NoWaiting():
        batch = DenseDataset(data, DENSE_PRESETS[preset], 0, 4, LoaderOptions())[7]
    assert batch.image.shape == (4, 1, SIZE, SIZE)
    assert {value.device for value in vars(batch).values()} == {GPU}


@pytest.mark.parametrize("hist_match", ["none", "train"])
@pytest.mark.parametrize("preset", SLICE_PRESETS)
def test_slices_of_several_sources_are_made_on_the_device(fake, preset, hist_match):
    config = SourcesDataConfig(which_aug=preset, hist_match=hist_match, crop_px=SIZE)
    side, names = config.side_px, ["a", "b"]
    image, label, tables = (
        fake.from_tensor(made(torch.zeros, *shape)).to(GPU) for shape in ((8, side, side),) * 2 + ((8, N_QUANTILES),)
    )
    store = SliceStore(image.half(), tables, label.byte(), np.repeat(names, 4), {"a": 0, "b": 4}, GPU)
    part = Part(np.arange(8), 3, 0, LoaderOptions().plan, "labelled")
    with NoWaiting():
        batch = SourceDataset(store, part, True, Look.of(store, names, config), config)[7]
    assert batch.image.shape == batch.partner.shape == (3, 1, SIZE, SIZE)
    assert {value.device for value in vars(batch).values()} == {GPU}


def test_what_is_looked_for_is_found(fake):
    there, here = torch.ones(3, device=GPU), torch.ones(3)
    with pytest.raises(FakeTensorDeviceMismatchError):
        torch.add(there, here)
    with NoWaiting():
        assert there.to(torch.float64).device == here.to(GPU, non_blocking=True).device
        with pytest.raises(DataDependentOutputException):
            there.sum().item()
        for waits in (there.cpu, lambda: here.to(GPU), lambda: torch.tensor([1.0, 2.0], device=GPU)):
            with pytest.raises(WaitsForGPUError):
                waits()
