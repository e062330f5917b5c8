"""Facts about the machine from the operating system and the scheduler, and checks for known configuration problems.

Independent of PyTorch; GPU capabilities are in `util.runtime.device`.
"""

import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

GIB = 1024**3
MIN_SHARED_MEMORY_GIB = 1.0  # Docker's default of 64 MiB is too small for DataLoader workers
MIOPEN_CACHE_VARIABLES = ("MIOPEN_USER_DB_PATH", "MIOPEN_CUSTOM_CACHE_DIR")
VISIBLE_DEVICE_VARIABLES = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
NETWORK_FILESYSTEMS = ("nfs", "lustre", "gpfs", "beegfs", "cifs")

# The only environment variables that are reported, because reports are attached to public issues.
REPORTED_VARIABLES = re.compile(
    r"(MIOPEN_|ROCR_|HIP_|HSA_|CUDA_VISIBLE|GPU_DEVICE|OMP_NUM|MKL_NUM|NCCL_|RCCL_|FI_|PYTORCH_|TORCH_HOME|HIPBLAS_|"
    r"CUBLAS_|TRITON_|TORCHINDUCTOR_|WORLD_SIZE$|LOCAL_WORLD_SIZE$|SLURM_(NTASKS|STEP_NUM|CPUS_PER|GPUS|JOB_NUM_NODES))"
)


@dataclass(frozen=True)
class Machine:
    """Facts that do not depend on PyTorch.

    Attributes:
        system: operating system, kernel release and CPU architecture.
        cores: available to this process.
        cores_installed: cores of the machine.
        memory_gib: available to this process; None if unknown.
        shared_memory_gib: size of /dev/shm; None if it does not exist.
        home_filesystem: file system type of the home folder, such as ext4 or nfs4; empty if unknown.
        gpu_vendors: vendors with a loaded GPU driver ("nvidia", "amd"), whether or not PyTorch can use it.
        drivers: vendor -> version of the kernel driver.
        environment: variables that configure GPUs, caches, threads and networks.
    """

    system: str = ""
    cores: int = 1
    cores_installed: int = 1
    memory_gib: float | None = None
    shared_memory_gib: float | None = None
    home_filesystem: str = ""
    gpu_vendors: tuple[str, ...] = ()
    drivers: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)


def inspect_machine(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Machine:
    """Collects the facts; `root` contains /proc, /sys and /dev."""
    shared = root / "dev/shm"
    attached = {"nvidia": root / "dev/nvidiactl", "amd": root / "dev/kfd"}
    versions = {"nvidia": root / "proc/driver/nvidia/version", "amd": root / "sys/module/amdgpu/version"}
    drivers = {vendor: re.search(r"\d+(\.\d+)+", _read(path)) for vendor, path in versions.items()}
    home = Path(environment.get("HOME", "/"))
    reported = {name: value for name, value in sorted(environment.items()) if REPORTED_VARIABLES.match(name)}
    memory = memory_bytes(root)
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cores_installed=os.cpu_count() or 1,
        memory_gib=None if memory is None else memory / GIB,
        shared_memory_gib=shutil.disk_usage(shared).total / GIB if shared.is_dir() else None,
        home_filesystem=filesystem_type(home, _read(root / "proc/mounts")),
        gpu_vendors=tuple(vendor for vendor, path in attached.items() if path.exists()),
        drivers={vendor: found[0] for vendor, found in drivers.items() if found},
        environment={name: _anonymize(value, home, environment.get("USER", "")) for name, value in reported.items()},
    )


def _anonymize(value: str, home: Path, user: str) -> str:
    """Removes the home folder and user name from the paths in a value."""
    value = value.replace(str(home), "~") if len(home.parts) > 1 else value
    return re.sub(rf"(?<=/){re.escape(user)}(?=/|$)", "USER", value) if user else value


def filesystem_type(folder: Path, mounts: str) -> str:
    """Type of the file system that contains `folder`, given the text of /proc/mounts; empty if unknown."""
    fields = [line.split() for line in mounts.splitlines() if len(line.split()) > 2]
    types = {Path(point): kind for _, point, kind, *_ in fields}
    parents = [point for point in types if folder.is_relative_to(point)]
    return types[max(parents, key=lambda point: len(point.parts))] if parents else ""


def memory_bytes(root: Path = Path("/")) -> int | None:
    """Memory of the machine, or the limit of the control group if it is lower; None: unknown."""
    total = re.search(r"MemTotal:\s*(\d+) kB", _read(root / "proc/meminfo"))
    limit = re.fullmatch(r"\d+", _read(root / "sys/fs/cgroup/memory.max").strip())
    sizes = [int(total[1]) * 1024] if total else []
    sizes += [int(limit[0])] if limit else []
    return min(sizes, default=None)


def _read(path: Path) -> str:
    """Text of a file; empty if it is missing or not readable."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def find_problems(machine: Machine, backend: str, torch_version: str, threads: int) -> list[str]:
    """Finds known configuration problems; each message includes a fix.

    Args:
        machine: from `inspect_machine`.
        backend: cuda, rocm or cpu, from `util.runtime.device.backend`.
        torch_version: such as "2.10.0+rocm7.1".
        threads: intra-op threads of PyTorch in this process.
    """
    found = [*_build_problems(machine, backend, torch_version), *_system_problems(machine, threads)]
    if backend == "rocm" or "amd" in machine.gpu_vendors:
        found += _rocm_problems(machine)
    return found


def _build_problems(machine: Machine, backend: str, torch_version: str) -> Iterator[str]:
    """PyTorch builds that do not match the GPU."""
    if backend == "cpu" and "amd" in machine.gpu_vendors:
        yield (
            f"an AMD GPU driver is loaded, but torch {torch_version} cannot use it: install the ROCm build "
            "(requirements-rocm.txt), check your access to /dev/kfd (groups video and render), and request a GPU "
            "from the scheduler."
        )
    if backend == "cpu" and "nvidia" in machine.gpu_vendors:
        yield (
            f"an NVIDIA GPU driver is loaded, but torch {torch_version} cannot use it: install the CUDA build "
            "(requirements.txt) and a driver recent enough for it, and request a GPU from the scheduler."
        )
    numbers = re.match(r"(\d+)\.(\d+)", torch_version)
    if backend == "rocm" and numbers and (int(numbers[1]), int(numbers[2])) < (2, 1):
        yield f"torch {torch_version} is too old for ROCm: install 2.1 or later, preferably requirements-rocm.txt."


def _system_problems(machine: Machine, threads: int) -> Iterator[str]:
    """Threads, shared memory, home folder and network."""
    requested = re.match(r"\d+", machine.environment.get("OMP_NUM_THREADS", ""))  # PyTorch may use fewer
    threads = max(threads, int(requested[0]) if requested else 0)
    tasks = int(machine.environment.get("LOCAL_WORLD_SIZE") or machine.environment.get("SLURM_STEP_NUM_TASKS") or 1)
    if machine.cores == 1 < machine.cores_installed and tasks > 1:
        yield (
            f"this process is bound to one core of {machine.cores_installed}: pass -c CORES to srun. torchrun inside "
            "srun binds all its workers to one core; use srun alone."
        )
    elif threads > machine.cores:
        yield (
            f"{threads} threads on {machine.cores} cores slow each other down: set OMP_NUM_THREADS={machine.cores} "
            "or lower."
        )
    shared = machine.shared_memory_gib
    if shared is not None and shared < MIN_SHARED_MEMORY_GIB:
        yield (
            f"/dev/shm has {1024 * shared:.0f} MiB, too little for DataLoader workers: start the container with "
            "--ipc=host or --shm-size=8g, or use num_workers=0."
        )
    if machine.home_filesystem.startswith(NETWORK_FILESYSTEMS) and "TORCH_HOME" not in machine.environment:
        yield (
            f"the home folder, which contains the caches, is on a network file system ({machine.home_filesystem}): set "
            "TORCH_HOME, TRITON_CACHE_DIR and TORCHINDUCTOR_CACHE_DIR to a folder on scratch or on the node."
        )
    if machine.environment.get("FI_MR_CACHE_MONITOR") == "memhooks":
        yield "FI_MR_CACHE_MONITOR=memhooks can deadlock: set it to kdreg2 or userfaultfd."


def _rocm_problems(machine: Machine) -> Iterator[str]:
    """MIOpen caches and conflicting lists of visible devices."""
    variables = machine.environment
    unset = [name for name in MIOPEN_CACHE_VARIABLES if not variables.get(name)]
    in_job = any(name.startswith("SLURM_") for name in variables)
    if unset and (in_job or machine.home_filesystem.startswith(NETWORK_FILESYSTEMS)):
        yield (
            f"{' and '.join(unset)} not set: MIOpen stores its databases in the home folder, where concurrent access "
            "by tasks and nodes causes disk I/O errors. Set both to a folder on the node's local disk with the job id "
            "in its name, and create it on every node."
        )
    lists = {name: variables[name].split(",") for name in VISIBLE_DEVICE_VARIABLES if variables.get(name)}
    outer = lists.pop("ROCR_VISIBLE_DEVICES", None)
    for name, inner in lists.items():
        invalid = [number for number in inner if number.isdigit() and outer and int(number) >= len(outer)]
        if invalid:
            yield (
                f"{name}={variables[name]} with ROCR_VISIBLE_DEVICES={variables['ROCR_VISIBLE_DEVICES']}: the first "
                f"indexes into the second, which leaves {len(outer or ())} GPU(s); index {invalid[0]} does not exist "
                "and PyTorch sees no GPU. Leave these variables to the scheduler: do not set them in scripts."
            )
