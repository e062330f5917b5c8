"""Compiling must not change what is computed, nor stop anything when it fails."""

import functools

import pytest
import torch
from functorch.compile import nop
from torch._dynamo.backends.common import aot_autograd

from util.runtime import compiling
from util.runtime.compiling import Compiled, can_compile

CPU = torch.device("cpu")
CHOICES = ("off", "auto", "on")


def test_a_machine_that_cannot_compile_runs_uncompiled_and_says_why(monkeypatch, caplog):
    assert [can_compile(CPU, choice) for choice in CHOICES] == [False, False, True]
    monkeypatch.setattr(compiling, "compile_support", lambda device: (False, "no compiler"))
    assert [can_compile(torch.device("cuda"), choice) for choice in CHOICES] == [False] * 3
    assert caplog.text.count("running uncompiled: no compiler") == 2
    monkeypatch.setattr(compiling, "compile_support", lambda device: (True, "Triton"))
    assert [can_compile(torch.device("cuda"), choice) for choice in CHOICES] == [False, True, True]


class Doubles(torch.nn.Module):
    def forward(self, image):
        return {"loss": 2 * image}


def test_a_compiler_that_fails_falls_back(caplog):
    from torch._dynamo.exc import TorchDynamoException

    net = Compiled(Doubles(), CPU)
    calls = []

    def fail(*_):
        calls.append(1)
        raise TorchDynamoException("it broke\nin the middle\nand more")

    net.run.run = fail
    image = torch.rand(3, 2)
    for _ in range(2):
        assert torch.equal(net(image)["loss"], 2 * image)
    assert len(calls) == 1
    assert net.has_failed
    assert "running uncompiled: it broke in the middle\n" in caplog.text


def compiled_by(monkeypatch, net, backend):
    """The network compiled by something that has no code to write, and is there on every machine."""
    compile_with = functools.partial(torch.compile, backend=backend)
    monkeypatch.setattr(torch, "compile", compile_with)
    return Compiled(net, CPU)


def test_a_backward_pass_that_cannot_be_compiled_falls_back(monkeypatch, caplog):
    def fail(graph, inputs):
        raise RuntimeError("no room for code")

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(2, 2))

        def forward(self, image):
            return {"loss": (image @ self.weight).square().mean()}

    plain = Net()
    net = compiled_by(monkeypatch, plain, aot_autograd(fw_compiler=nop, bw_compiler=fail))
    image = torch.rand(3, 2)
    for _ in range(2):
        net(image)["loss"].backward()
    assert plain.weight.grad is not None
    assert torch.equal(plain.weight.grad, 2 * torch.autograd.grad(plain(image)["loss"], plain.weight)[0])
    reasons = [record.getMessage() for record in caplog.records if record.name == "util.runtime.compiling"]
    assert reasons == ["running uncompiled: backend='compiler_fn' raised: RuntimeError: no room for code"]


def test_what_is_float32_going_forward_is_float32_going_back(monkeypatch):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(16, 16))

        def forward(self, image):
            with torch.autocast("cpu", enabled=False):
                return {"loss": (image.float() @ self.weight).square().mean()}

    net = Net()
    image = torch.randn(8, 16)
    expected = torch.autograd.grad(net(image)["loss"], net.weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        loss = compiled_by(monkeypatch, net, "aot_eager")(image)["loss"]
    assert torch.equal(torch.autograd.grad(loss, net.weight)[0], expected)


@pytest.mark.parametrize(("hip", "device", "mode"), [
    (None, "cuda", "reduce-overhead"), ("7.1", "cuda", "default"), (None, "cpu", "default")
])  # fmt: skip
def test_steps_are_recorded_as_graphs_on_nvidia_gpus_alone(monkeypatch, hip, device, mode):
    asked = {}
    monkeypatch.setattr(torch.version, "hip", hip)
    monkeypatch.setattr(torch, "compile", lambda net, **options: asked.update(options) or net)
    Compiled(Doubles(), torch.device(device))
    assert asked == {"dynamic": False, "mode": mode}
