"""CPU, CUDA or ROCm: the one place that knows what the accelerator is, what it can do, and how it rounds.

    python -m util.runtime.device                      # what is here, and known traps
    python -m util.runtime.device --json device.json   # the same as a file, to attach to an issue

AMD GPUs are "cuda" to PyTorch; no other file needs to know.
"""

import argparse
import ctypes
import importlib.util
import logging
import os
import platform
import shutil
import sysconfig
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist

from util.cli import run_main
from util.errors import ConfigError
from util.files import write_json
from util.runtime import machine

logger = logging.getLogger(__name__)

Backend = Literal["cuda", "rocm", "cpu"]
Precision = Literal["float32", "tf32", "bf16"]
OLDEST_COMPILED = (7, 0)  # compute capability from which Triton makes code for NVIDIA GPUs
GLIBC_THRESHOLDS = (-1, -3)  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
KEPT_BYTES = 2**30
NHWC_SWITCHES = ("PYTORCH_MIOPEN_SUGGEST_NHWC", "PYTORCH_MIOPEN_SUGGEST_NHWC_BATCHNORM")


def backend() -> Backend:
    """What PyTorch computes on here when it may choose."""
    if not torch.cuda.is_available() or not torch.cuda.device_count():
        return "cpu"
    return "rocm" if torch.version.hip else "cuda"


def choose_device(name: str, local_rank: int = 0, sees_one_gpu: bool = True) -> torch.device:
    """The device of this process: "auto" is an accelerator if there is one. AMD GPUs are "cuda" to PyTorch.

    Args:
        name: auto, cpu or cuda.
        local_rank: this process's number on its node.
        sees_one_gpu: the launcher may show each process a GPU of its own, which is number 0 to every one of them.

    Raises:
        ConfigError: an unknown device, a GPU asked for where PyTorch sees none, or more processes than GPUs.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise ConfigError(f"device={name!r}: expected auto, cpu or cuda (NVIDIA and AMD alike).")
    if not count:
        raise ConfigError(
            "device='cuda': PyTorch sees no GPU here; use device=cpu, or see what `python -m util.runtime.device` says "
            "of the driver and the build."
        )
    if local_rank < count:
        return torch.device("cuda", local_rank)
    if count == 1 and sees_one_gpu:
        return torch.device("cuda", 0)
    raise ConfigError(
        f"process {local_rank + 1} of this node has no GPU: PyTorch sees {count}. Start {count} process(es) per node, "
        "or device=cpu."
    )


def group_backend(device: torch.device) -> str:
    """What torch.distributed communicates with: "nccl" is RCCL on AMD GPUs; a CPU has "gloo"."""
    return "nccl" if device.type == "cuda" else "gloo"


def supports_bf16(device: torch.device) -> bool:
    """Whether bfloat16 is worth the name there: every AMD GPU and CPU takes it, NVIDIA's from Ampere on."""
    if device.type != "cuda" or torch.version.hip:
        return True
    return torch.cuda.get_device_properties(device).major >= 8


def supports_tf32(device: torch.device) -> bool:
    """Whether TensorFloat-32 has an effect there: NVIDIA from Ampere on, AMD MI300 (gfx94) and MI350 (gfx95)."""
    if device.type != "cuda":
        return False
    if torch.version.hip:
        return architecture(device).startswith(("gfx94", "gfx95"))
    return torch.cuda.get_device_properties(device).major >= 8


def architecture(device: torch.device) -> str:
    """Such as gfx90a:sramecc+:xnack- (AMD), sm_90 (NVIDIA) or AVX512 (CPU)."""
    if device.type != "cuda":
        return torch.backends.cpu.get_cpu_capability()
    properties = torch.cuda.get_device_properties(device)
    return properties.gcnArchName if torch.version.hip else f"sm_{properties.major}{properties.minor}"


def compile_support(device: torch.device | None = None) -> tuple[bool, str]:
    """Whether torch.compile can make code for a device (None: the one that "auto" gives), and why, or why not."""
    device = choose_device("auto") if device is None else device
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return False, "Python.h is missing: install Python's development files (python3-dev)"
    if device.type != "cuda":
        compiler = _compiler("CXX", "g++", "clang++")
        return (True, compiler) if compiler else (False, "no C++ compiler: install g++, or name one in CXX")
    if importlib.util.find_spec("triton") is None:
        return False, "Triton is missing: it comes with PyTorch's GPU builds"
    compiler = _compiler("CC", "gcc", "clang", "cc")
    if not compiler:
        return False, "no C compiler, which Triton needs: install gcc, or name one in CC"
    if not torch.version.hip:
        properties = torch.cuda.get_device_properties(device)
        if (properties.major, properties.minor) < OLDEST_COMPILED:
            return False, f"{architecture(device)} is older than sm_70, the oldest that Triton makes code for"
    return True, f"Triton and {compiler}"


def keep_freed_memory(device: torch.device) -> bool:
    """Has the C library keep what a step frees for the next one, where that step runs on the CPU.

    Large blocks would go back to the system and come again page by page, each with a fault, in every step. A GPU's
    memory is kept by PyTorch.

    Returns:
        Whether it does: glibc can be told so.
    """
    if device.type != "cpu":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return all(mallopt(which, KEPT_BYTES) == 1 for which in GLIBC_THRESHOLDS)


def replays_graphs(device: torch.device) -> bool:
    """Whether a compiled step is to be recorded and replayed as a CUDA graph: on NVIDIA's GPUs, unchecked on AMD's."""
    return device.type == "cuda" and not torch.version.hip


def _compiler(variable: str, *names: str) -> str:
    """The compiler that a variable names, else the first of `names` to be found; empty if there is none."""
    given = os.environ.get(variable, "").split()[:1]
    return next(filter(None, map(shutil.which, given or names)), "")


def set_precision(precision: Precision, device: torch.device, searches_kernels: bool = False) -> torch.autocast:
    """Sets how products are rounded on the device; nothing else touches these switches.

    Args:
        precision: float32: every product in full. tf32: products with 10 bits of mantissa where the device can, which
            is no AMD GPU before MI300. bf16: as tf32, and inside the returned context in bfloat16 where that is safe.
        device: of the computation.
        searches_kernels: True: cuDNN or MIOpen tries its convolutions on every new shape and keeps the fastest, which
            pays off where shapes stay the same.

    Returns:
        The context in which to run the forward pass; without effect but for bf16. It can be entered again and again.

    Raises:
        ConfigError: the device has no bfloat16.
    """
    if precision == "bf16" and not supports_bf16(device):
        raise ConfigError(f"precision='bf16': {architecture(device)} has no bfloat16; use precision=float32.")
    if precision == "tf32" and not supports_tf32(device):
        logger.info("precision=tf32 has no effect on %s: products stay in float32.", architecture(device))
    # The older pair of switches: PyTorch refuses to read it once the newer names (fp32_precision) were set.
    torch.backends.cuda.matmul.allow_tf32 = precision != "float32"
    torch.backends.cudnn.allow_tf32 = precision != "float32"
    torch.backends.cudnn.benchmark = searches_kernels
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def report(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Everything that an answer to "why is it slow, or wrong, on your machine?" begins with; plain values only."""
    here, device = machine.look_at(environment), choose_device("auto")
    can_compile, reason = compile_support(device)
    threads = torch.get_num_threads()
    return {
        "backend": backend(),
        "versions": _versions(here),
        "gpus": [_gpu(torch.device("cuda", number)) for number in range(_n_gpus())],
        "architecture": architecture(device),
        "bf16": supports_bf16(device),
        "tf32": {
            "supported": supports_tf32(device),
            "matmul": torch.backends.cuda.matmul.allow_tf32,
            "convolution": torch.backends.cudnn.allow_tf32,
        },
        "compile": {"supported": can_compile, "reason": reason},
        "channels_last": {name: environment.get(name, "not set") for name in NHWC_SWITCHES},
        "distributed": [name for name in ("nccl", "gloo") if getattr(dist, f"is_{name}_available")()],
        "threads": threads,
        "machine": asdict(here) | {"gpu_vendors": list(here.gpu_vendors)},
        "warnings": machine.traps(here, backend(), torch.__version__, threads),
    }


def _n_gpus() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _versions(here: machine.Machine) -> dict[str, str | None]:
    """Of everything between this code and the GPU. PyTorch reports MIOpen's version as cuDNN's."""
    number = torch.backends.cudnn.version()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "miopen" if torch.version.hip else "cudnn": None if number is None else str(number),
        **{f"driver_{vendor}": version for vendor, version in here.drivers.items()},
    }


def _gpu(device: torch.device) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    return {
        "name": properties.name,
        "architecture": architecture(device),
        "memory_total_gib": round(total / machine.GIB, 2),
        "memory_free_gib": round(free / machine.GIB, 2),
    }


def as_text(facts: Mapping[str, Any]) -> str:
    """A report for the eye: a line per fact, warnings last."""
    lines = [f"{'backend':>14}: {facts['backend']}, {len(facts['gpus'])} visible GPU(s)"]
    for name, value in facts.items():
        if name == "gpus":
            lines += [f"{f'gpu {number}':>14}: {_inline(gpu)}" for number, gpu in enumerate(value)]
        elif name not in ("backend", "warnings"):
            lines.append(f"{name:>14}: {_inline(value)}")
    return "\n".join([*lines, *(f"WARNING: {warning}" for warning in facts["warnings"])])


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_inline(one)}" for name, one in value.items() if one not in (None, {}, []))
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(_inline, value)) if isinstance(value, list) else str(value)


def main() -> None:
    """Reads the command line and reports."""
    parser = argparse.ArgumentParser(prog="python -m util.runtime.device", description="What PyTorch can use here.")
    parser.add_argument("--json", type=Path, help="also write the report to this file")
    options = parser.parse_args()
    facts = report()
    logger.info(as_text(facts))
    if options.json:
        write_json(options.json, facts)


if __name__ == "__main__":
    run_main(main)
