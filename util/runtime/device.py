"""CPU, CUDA or ROCm: device selection, hardware capabilities and numerical precision. No other module depends on these.

    frugalseg device                         # report of devices and versions, with warnings
    frugalseg device --json > device.json    # as JSON, to attach to an issue

PyTorch calls AMD GPUs "cuda" as well; no other module needs to distinguish the vendors.
"""

import ctypes
import importlib.util
import logging
import os
import platform
import shutil
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist

from util.cli import run_main
from util.errors import ConfigError
from util.parser import CommandParser, add_json, print_json, print_text
from util.runtime import machine
from util.runtime.cpu import bf16_instructions

logger = logging.getLogger(__name__)

Backend = Literal["cuda", "rocm", "cpu"]
Precision = Literal["float32", "tf32", "bf16"]
MIN_TRITON_CAPABILITY = (7, 0)  # lowest compute capability of NVIDIA GPUs that Triton supports
MALLOC_PARAMETERS = (-1, -3)  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD of malloc.h
MALLOC_THRESHOLD_BYTES = 2**30
NHWC_VARIABLES = ("PYTORCH_MIOPEN_SUGGEST_NHWC", "PYTORCH_MIOPEN_SUGGEST_NHWC_BATCHNORM")


def backend() -> Backend:
    """Backend of the device that "auto" selects."""
    if not torch.cuda.is_available() or not torch.cuda.device_count():
        return "cpu"
    return "rocm" if torch.version.hip else "cuda"


def choose_device(name: str, local_rank: int = 0, sees_one_gpu: bool = True) -> torch.device:
    """Device of this process; "auto" selects a GPU if one is available. PyTorch calls AMD GPUs "cuda" as well.

    Args:
        name: auto, cpu or cuda.
        local_rank: rank of this process on its node.
        sees_one_gpu: if PyTorch sees a single GPU, use it whatever the local rank: launchers such as srun can make a
            different GPU visible to each process, always with index 0.

    Raises:
        ConfigError: unknown device, no GPU visible to PyTorch, or more processes than GPUs.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and not count):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise ConfigError(f"device={name!r}: expected auto, cpu or cuda (NVIDIA and AMD alike).")
    if not count:
        raise ConfigError(
            "device='cuda': PyTorch sees no GPU; use device=cpu, or check the driver and the PyTorch build with "
            "`frugalseg device`."
        )
    if local_rank < count:
        return torch.device("cuda", local_rank)
    if count == 1 and sees_one_gpu:
        return torch.device("cuda", 0)
    raise ConfigError(
        f"process {local_rank + 1} of this node has no GPU: PyTorch sees {count}. Start {count} process(es) per node, "
        "or use device=cpu."
    )


def group_backend(device: torch.device) -> str:
    """Backend of torch.distributed: "nccl" on GPUs (RCCL on AMD), "gloo" on CPUs."""
    return "nccl" if device.type == "cuda" else "gloo"


def bf16_support(device: torch.device) -> tuple[bool, str]:
    """Whether the device computes in bfloat16, and the instructions or the reason why not.

    All AMD GPUs and NVIDIA GPUs from Ampere on do, and CPUs with AMX, AVX512-BF16 or Arm's BF16 extension. Other CPUs
    emulate it: a convolution then takes up to fifty times as long as in float32.
    """
    if device.type == "cuda":
        is_new = bool(torch.version.hip) or torch.cuda.get_device_properties(device).major >= 8
        return is_new, architecture(device) if is_new else f"{architecture(device)} does not support bfloat16"
    instructions = bf16_instructions()
    return bool(instructions), instructions or "this CPU has neither AMX nor AVX512-BF16 nor Arm's BF16 extension"


def supports_tf32(device: torch.device) -> bool:
    """Whether the device supports TensorFloat-32: NVIDIA from Ampere on, AMD MI300 (gfx94) and MI350 (gfx95)."""
    if device.type != "cuda":
        return False
    if torch.version.hip:
        return architecture(device).startswith(("gfx94", "gfx95"))
    return torch.cuda.get_device_properties(device).major >= 8


def architecture(device: torch.device) -> str:
    """Architecture, such as gfx90a:sramecc+:xnack- (AMD), sm_90 (NVIDIA) or AVX512 (CPU)."""
    if device.type != "cuda":
        return torch.backends.cpu.get_cpu_capability()
    properties = torch.cuda.get_device_properties(device)
    return properties.gcnArchName if torch.version.hip else f"sm_{properties.major}{properties.minor}"


def prefers_channels_last(device: torch.device) -> bool:
    """Whether weights and images in channels-last order make the networks faster: on a GPU, and on a CPU."""
    return device.type in ("cuda", "cpu")


def compile_support(device: torch.device | None = None) -> tuple[bool, str]:
    """Whether torch.compile works for a device (None: that of "auto"), and the compiler or the reason why not."""
    device = choose_device("auto") if device is None else device
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return False, "Python.h is missing: install Python's development files (python3-dev)"
    if device.type != "cuda":
        compiler = _compiler("CXX", "g++", "clang++")
        return (True, compiler) if compiler else (False, "no C++ compiler: install g++, or set CXX")
    if importlib.util.find_spec("triton") is None:
        return False, "Triton is missing: it is part of PyTorch's GPU builds"
    compiler = _compiler("CC", "gcc", "clang", "cc")
    if not compiler:
        return False, "no C compiler, which Triton requires: install gcc, or set CC"
    if not torch.version.hip:
        properties = torch.cuda.get_device_properties(device)
        if (properties.major, properties.minor) < MIN_TRITON_CAPABILITY:
            return False, f"{architecture(device)} is older than sm_70, the oldest that Triton supports"
    return True, f"Triton and {compiler}"


def keep_freed_memory(device: torch.device) -> bool:
    """Makes glibc's malloc keep freed memory for reuse instead of returning it to the system. CPU only.

    Otherwise every training step maps the memory of its large tensors anew, with a page fault for each page. GPU memory
    is cached by PyTorch itself.

    Returns:
        Whether the setting was applied: False for a GPU or another C library.
    """
    if device.type != "cpu":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    return all(mallopt(which, MALLOC_THRESHOLD_BYTES) == 1 for which in MALLOC_PARAMETERS)


def supports_cuda_graphs(device: torch.device) -> bool:
    """Whether compiled steps use CUDA graphs: on NVIDIA GPUs only; not tested on AMD GPUs."""
    return device.type == "cuda" and not torch.version.hip


def _compiler(variable: str, *names: str) -> str:
    """Path of the compiler set in an environment variable, or else the first of `names` found; empty if none is."""
    given = os.environ.get(variable, "").split()[:1]
    return next(filter(None, map(shutil.which, given or names)), "")


def available_precision(precision: Precision, device: torch.device) -> Precision:
    """The precision, or float32 where the device has no fast one; the reason is logged in one line.

    Raises:
        ConfigError: the GPU does not support bfloat16.
    """
    if precision == "bf16":
        is_supported, reason = bf16_support(device)
        if not is_supported and device.type == "cuda":
            raise ConfigError(f"precision='bf16': {reason}; use precision=float32.")
        if not is_supported:
            logger.info("precision=bf16 is not used: %s; computing in float32.", reason)
        return "bf16" if is_supported else "float32"
    if precision == "tf32" and not supports_tf32(device):
        logger.info("precision=tf32 has no effect on %s: computing in float32.", architecture(device))
    return precision


def set_precision(precision: Precision, device: torch.device, benchmark_kernels: bool = False) -> torch.autocast:
    """Sets PyTorch's precision flags; they are set nowhere else.

    Args:
        precision: float32: full precision. tf32: matrix products and convolutions in TensorFloat-32 (10-bit mantissa)
            if the device supports it; AMD GPUs before MI300 do not. bf16: as tf32, with bfloat16 autocast; float32 on
            a CPU without instructions for it.
        device: of the computation.
        benchmark_kernels: value of torch.backends.cudnn.benchmark: cuDNN or MIOpen times its algorithms for every new
            input shape and keeps the fastest. Useful when shapes stay the same.

    Returns:
        The autocast context of the forward pass, disabled unless `precision` is bf16. It can be reused.

    Raises:
        ConfigError: the GPU does not support bfloat16.
    """
    precision = available_precision(precision, device)
    # These older flags on purpose: PyTorch raises on reading them once the newer ones (fp32_precision) have been set.
    torch.backends.cuda.matmul.allow_tf32 = precision != "float32"
    torch.backends.cudnn.allow_tf32 = precision != "float32"
    torch.backends.cudnn.benchmark = benchmark_kernels
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def report(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Hardware, versions, capabilities and warnings, as needed in a bug report; JSON-serialisable."""
    host, device = machine.inspect_machine(environment), choose_device("auto")
    supports = {"bf16": bf16_support(device), "compile": compile_support(device)}
    threads = torch.get_num_threads()
    return {
        "backend": backend(),
        "versions": _versions(host),
        "gpus": [_gpu(torch.device("cuda", number)) for number in range(_n_gpus())],
        "architecture": architecture(device),
        "tf32": {
            "supported": supports_tf32(device),
            "matmul": torch.backends.cuda.matmul.allow_tf32,
            "convolution": torch.backends.cudnn.allow_tf32,
        },
        **{name: {"supported": found, "reason": reason} for name, (found, reason) in supports.items()},
        "channels_last": {
            "auto": "on" if prefers_channels_last(device) else "off",
            **{name: environment.get(name, "not set") for name in NHWC_VARIABLES},
        },
        "distributed": [name for name in ("nccl", "gloo") if getattr(dist, f"is_{name}_available")()],
        "threads": threads,
        "machine": asdict(host) | {"gpu_vendors": list(host.gpu_vendors)},
        "warnings": machine.find_problems(host, backend(), torch.__version__, threads),
    }


def _n_gpus() -> int:
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def _versions(host: machine.Machine) -> dict[str, str | None]:
    """Versions of Python, PyTorch, GPU libraries and drivers. PyTorch reports MIOpen's version as cuDNN's."""
    version = torch.backends.cudnn.version()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "miopen" if torch.version.hip else "cudnn": None if version is None else str(version),
        **{f"driver_{vendor}": version for vendor, version in host.drivers.items()},
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


def format_report(facts: Mapping[str, Any]) -> str:
    """Formats a report as text, one entry per line, warnings last."""
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


def main(arguments: Sequence[str] | None = None) -> None:
    """Parses the command line and prints the report."""
    given = make_parser().parse_args(arguments)
    facts = report()
    print_json(facts) if given.json else print_text(f"{format_report(facts)}\n")


def make_parser() -> CommandParser:
    """The parser of the command line."""
    parser = CommandParser("device", f"Reports devices, versions and capabilities, with warnings.\n\n{__doc__}")
    add_json(parser)
    return parser


if __name__ == "__main__":
    run_main(main)
