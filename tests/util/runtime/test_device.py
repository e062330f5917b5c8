import json
import logging
import os
import platform
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist

from util.errors import ConfigError
from util.runtime import device, machine
from util.runtime.distributed import Plan, ProcessGroup

ROOT = Path(__file__).parents[3]
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
MI250X = {"name": "AMD Instinct MI250X", "gcnArchName": "gfx90a:sramecc+:xnack-"}  # as the driver names it
MI300 = {"name": "AMD Instinct MI300X", "gcnArchName": "gfx942:sramecc+:xnack-"}
A100 = {"name": "NVIDIA A100", "major": 8, "minor": 0}
PASCAL = {"name": "Tesla P100", "major": 6, "minor": 0}


@pytest.fixture
def pretend(monkeypatch):
    """Mocks PyTorch to report `count` GPUs with these properties; AMD GPUs have no compute capability."""

    def see(properties, count=1):
        is_amd = "gcnArchName" in properties
        monkeypatch.setattr(torch.version, "hip", "7.1.25424" if is_amd else None)
        monkeypatch.setattr(torch.version, "cuda", None if is_amd else "13.0")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device=None: SimpleNamespace(**properties))
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (60 * machine.GIB, 64 * machine.GIB))

    return see


@pytest.fixture
def switches():
    """Returns PyTorch's precision flags; restores them afterwards."""
    found = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark
    yield lambda: (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
    )
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32, torch.backends.cudnn.benchmark = found


def test_devices_without_a_gpu(pretend):
    pretend(A100, count=0)
    assert device.choose_device("cpu") == device.choose_device("auto") == CPU
    assert device.backend() == "cpu"
    with pytest.raises(ConfigError, match=r"device=cpu.*frugalseg device"):
        device.choose_device("cuda")
    with pytest.raises(ConfigError, match=r"device='rocm'.*NVIDIA and AMD alike"):
        device.choose_device("rocm")


@pytest.mark.parametrize(("properties", "expected"), [(MI250X, "rocm"), (A100, "cuda")])
def test_both_vendors_are_cuda_to_pytorch(pretend, properties, expected):
    pretend(properties)
    assert device.backend() == expected
    assert device.choose_device("auto") == GPU
    assert device.choose_device("cpu") == CPU


def test_a_process_uses_its_only_visible_gpu_or_that_of_its_local_rank(pretend):
    pretend(MI250X, count=1)
    assert device.choose_device("auto", local_rank=5) == GPU
    pretend(MI250X, count=8)
    assert device.choose_device("auto", local_rank=5) == torch.device("cuda", 5)


@pytest.mark.parametrize(("launcher", "count"), [("torchrun", 1), ("torchrun", 4), ("srun", 4)])
def test_more_processes_than_gpus_are_rejected(pretend, launcher, count):
    pretend(A100, count=count)
    place = Plan(rank=5, world_size=8, local_rank=5, launcher=launcher)
    with pytest.raises(ConfigError, match=rf"process 6 of this node has no GPU: PyTorch sees {count}. Start {count}"):
        place.device("auto")
    assert place.device("cpu") == CPU


def test_a_process_group_on_amd_gpus_uses_nccl_and_sets_its_device(pretend, monkeypatch):
    pretend(MI250X)
    called = {}
    monkeypatch.setattr(torch.cuda, "set_device", lambda chosen: called.update(device=chosen))
    monkeypatch.setattr(dist, "init_process_group", lambda name, **options: called.update(options, name=name))
    place = Plan(rank=5, world_size=8, local_rank=5, launcher="srun")
    with ProcessGroup(place, device.choose_device("auto", 5), {"MASTER_ADDR": "a", "MASTER_PORT": "3442"}):
        assert (called["name"], called["device"], called["rank"]) == ("nccl", GPU, 5)
    assert device.group_backend(CPU) == "gloo"


@pytest.mark.parametrize(
    ("properties", "name", "bf16", "tf32"),
    [
        (MI250X, "gfx90a:sramecc+:xnack-", True, False),
        (MI300, "gfx942:sramecc+:xnack-", True, True),
        (A100, "sm_80", True, True),
        (PASCAL, "sm_60", False, False),
    ],
)
def test_capabilities_of_gpus(pretend, properties, name, bf16, tf32):
    pretend(properties)
    assert device.architecture(GPU) == name
    assert device.bf16_support(GPU)[0] is bf16
    assert device.supports_tf32(GPU) is tf32


@pytest.fixture
def pretend_cpu(monkeypatch):
    """Makes PyTorch report the instructions of another CPU."""

    def pretend(machine="x86_64", onednn=True, amx=False, avx512_bf16=False):
        monkeypatch.setattr(device.platform, "machine", lambda: machine)
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)

    return pretend


SAPPHIRE_RAPIDS = {"amx": True, "avx512_bf16": True}
ZEN_4 = {"avx512_bf16": True}
SKYLAKE_SERVER = {}  # AVX512 without BF16, which oneDNN emulates
LIMITED = SAPPHIRE_RAPIDS | {"onednn": False}  # by ONEDNN_MAX_CPU_ISA=AVX2
ZEN_3 = {"onednn": False}
GRAVITON_3 = {"machine": "aarch64"}
GRAVITON_2 = {"machine": "aarch64", "onednn": False}


@pytest.mark.parametrize(
    ("cpu", "instructions"),
    [(SAPPHIRE_RAPIDS, "AMX"), (ZEN_4, "AVX512-BF16"), (GRAVITON_3, "Arm BF16")]
    + [(cpu, "") for cpu in (SKYLAKE_SERVER, LIMITED, ZEN_3, GRAVITON_2)],
)
def test_bf16_on_a_cpu_needs_its_instructions(pretend_cpu, switches, caplog, cpu, instructions):
    pretend_cpu(**cpu)
    is_supported, reason = device.bf16_support(CPU)
    assert is_supported == bool(instructions)
    assert reason == instructions or "neither AMX nor AVX512-BF16 nor Arm's BF16" in reason
    assert not device.supports_tf32(CPU)
    with caplog.at_level(logging.INFO), device.set_precision("bf16", CPU):
        dtype = (torch.ones(2, 2) @ torch.ones(2, 2)).dtype
    assert dtype == (torch.bfloat16 if is_supported else torch.float32)
    assert caplog.messages == [f"precision=bf16 is not used: {reason}; computing in float32."] * (not is_supported)
    assert device.report({})["bf16"] == {"supported": is_supported, "reason": reason}


def test_bf16_without_onednn(monkeypatch):
    monkeypatch.delattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", raising=False)
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert device.bf16_support(CPU)[0] is False


def test_precision_flags(pretend, switches):
    pretend(A100)
    device.set_precision("float32", GPU)
    assert switches() == (False, False, False)
    device.set_precision("tf32", GPU, benchmark_kernels=True)
    assert switches() == (True, True, True)
    device.set_precision("float32", GPU)
    assert switches() == (False, False, False)
    assert torch.get_float32_matmul_precision() == "highest"  # raises if the older and newer flags were mixed


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), ("bf16", torch.bfloat16)])
def test_the_autocast_context(switches, pretend_cpu, precision, dtype):
    pretend_cpu(**ZEN_4)
    context = device.set_precision(precision, CPU)
    for _ in range(2):
        with context:
            assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_unsupported_precisions(pretend, switches, caplog):
    pretend(PASCAL)
    with pytest.raises(ConfigError, match=r"precision='bf16': sm_60 .* precision=float32"):
        device.set_precision("bf16", GPU)
    pretend(MI250X)
    with caplog.at_level(logging.INFO):
        device.set_precision("tf32", GPU)
    assert "no effect on gfx90a" in caplog.text


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    """A PATH that contains only a C and a C++ compiler."""
    for name in ("gcc", "g++"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "Python.h").write_text("")
    monkeypatch.setattr(device.sysconfig, "get_path", lambda name: str(tmp_path))
    return tmp_path


def test_compiling_needs_a_compiler(compiler, monkeypatch):
    assert device.compile_support(CPU) == (True, str(compiler / "g++"))
    monkeypatch.setenv("CXX", "icpx -O2")
    assert device.compile_support(CPU) == (False, "no C++ compiler: install g++, or set CXX")
    monkeypatch.setenv("CXX", "g++ -O2")
    assert device.compile_support(CPU)[0]
    (compiler / "Python.h").unlink()
    assert "python3-dev" in device.compile_support(CPU)[1]


def test_compiling_for_a_gpu_needs_triton_and_a_c_compiler(compiler, pretend, monkeypatch):
    pretend(MI250X)
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: name == "triton" or None)
    assert device.compile_support() == (True, f"Triton and {compiler / 'gcc'}")
    pretend(PASCAL)
    assert device.compile_support() == (False, "sm_60 is older than sm_70, the oldest that Triton supports")
    (compiler / "gcc").unlink()
    assert device.compile_support(GPU) == (False, "no C compiler, which Triton requires: install gcc, or set CC")
    monkeypatch.setattr(device.importlib.util, "find_spec", lambda name: None)
    assert device.compile_support(GPU) == (False, "Triton is missing: it is part of PyTorch's GPU builds")


def test_report_of_an_amd_node(pretend):
    pretend(MI250X, count=8)
    facts = device.report({"SLURM_NTASKS": "8", "PYTORCH_MIOPEN_SUGGEST_NHWC": "1"})
    assert facts["backend"] == "rocm"
    assert facts["architecture"] == "gfx90a:sramecc+:xnack-"
    assert facts["gpus"][7] == {
        "name": "AMD Instinct MI250X",
        "architecture": "gfx90a:sramecc+:xnack-",
        "memory_total_gib": 64.0,
        "memory_free_gib": 60.0,
    }
    assert facts["versions"]["hip"] == "7.1.25424"
    assert facts["versions"]["cuda"] is None
    assert "miopen" in facts["versions"]
    assert "cudnn" not in facts["versions"]
    assert not facts["tf32"]["supported"]
    assert facts["channels_last"]["auto"] == "on"
    assert facts["channels_last"]["PYTORCH_MIOPEN_SUGGEST_NHWC"] == "1"
    assert any("MIOPEN_USER_DB_PATH" in warning for warning in facts["warnings"])
    assert json.loads(json.dumps(facts)) == facts
    text = device.format_report(facts)
    assert "rocm, 8 visible GPU(s)" in text
    assert "gpu 7: name AMD Instinct MI250X" in text
    assert "WARNING: MIOPEN_USER_DB_PATH" in text


def test_the_command_prints_the_report():
    environment = os.environ | {"OMP_NUM_THREADS": "1000"}
    command = [sys.executable, "-m", "util.runtime.device"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert f"torch {torch.__version__}" in run.stdout
    assert "WARNING: 1000 threads" in run.stdout


def test_the_report_as_json_is_all_of_stdout(capsys):
    device.main(["--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["versions"]["torch"] == torch.__version__
    assert facts.keys() >= {"backend", "gpus", "warnings"}


FAULTS = """
import resource, sys, torch
from util.runtime.device import keep_freed_memory
if sys.argv[1] == "kept" and not keep_freed_memory(torch.device("cpu")):
    sys.exit("not glibc")
for step in range(20):
    if step == 10:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_freed_memory_is_reused_by_the_next_step():
    if platform.libc_ver()[0] != "glibc":
        assert not device.keep_freed_memory(CPU)
        return
    faults = [
        int(subprocess.run([sys.executable, "-c", FAULTS, how], cwd=ROOT, capture_output=True, check=True).stdout)
        for how in ("kept", "default")
    ]
    assert faults[0] < 0.05 * faults[1]


def test_gpu_memory_is_managed_by_pytorch():
    assert not device.keep_freed_memory(GPU)
