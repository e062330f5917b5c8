"""The machine as the operating system and the scheduler show it, and the traps in which others were caught before.

Nothing here asks PyTorch: what a GPU is and can do, `util.runtime.device` knows.
"""

import os
import platform
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

GIB = 1024**3
SMALL_SHARED_MEMORY_GIB = 1.0  # Docker gives 64 MiB; batches of a few loader workers take more
MIOPEN_FOLDERS = ("MIOPEN_USER_DB_PATH", "MIOPEN_CUSTOM_CACHE_DIR")
VISIBLE = ("ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
NETWORK_FILESYSTEMS = ("nfs", "lustre", "gpfs", "beegfs", "cifs")

# What is reported of the environment, and all that is: a report is meant to be shown to others.
TOLD = re.compile(
    r"(MIOPEN_|ROCR_|HIP_|HSA_|CUDA_VISIBLE|GPU_DEVICE|OMP_NUM|MKL_NUM|NCCL_|RCCL_|FI_|PYTORCH_|TORCH_HOME|HIPBLAS_|"
    r"CUBLAS_|TRITON_|TORCHINDUCTOR_|WORLD_SIZE$|LOCAL_WORLD_SIZE$|SLURM_(NTASKS|STEP_NUM|CPUS_PER|GPUS|JOB_NUM_NODES))"
)


@dataclass(frozen=True)
class Machine:
    """Facts that do not depend on PyTorch.

    Attributes:
        cores: that this process may use.
        cores_installed: that the machine has.
        memory_gib: that this process may use; None where unknown.
        shared_memory_gib: size of /dev/shm; None where there is none.
        home_filesystem: type of the file system of the home folder, such as ext4 or nfs4; empty where unknown.
        gpu_vendors: whose GPU drivers are loaded ("nvidia", "amd"), whether or not PyTorch can use them.
        drivers: vendor -> version of the kernel's driver.
        environment: those variables that steer GPUs, caches, threads and networks.
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


def look_at(environment: Mapping[str, str] = os.environ, root: Path = Path("/")) -> Machine:
    """Gathers the facts; `root` is where /proc, /sys and /dev lie."""
    shared = root / "dev/shm"
    attached = {"nvidia": root / "dev/nvidiactl", "amd": root / "dev/kfd"}
    versions = {"nvidia": root / "proc/driver/nvidia/version", "amd": root / "sys/module/amdgpu/version"}
    drivers = {vendor: re.search(r"\d+(\.\d+)+", _read(path)) for vendor, path in versions.items()}
    home = Path(environment.get("HOME", "/"))
    told = {name: value for name, value in sorted(environment.items()) if TOLD.match(name)}
    return Machine(
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        cores_installed=os.cpu_count() or 1,
        memory_gib=_memory_gib(root),
        shared_memory_gib=shutil.disk_usage(shared).total / GIB if shared.is_dir() else None,
        home_filesystem=filesystem_of(home, _read(root / "proc/mounts")),
        gpu_vendors=tuple(vendor for vendor, path in attached.items() if path.exists()),
        drivers={vendor: found[0] for vendor, found in drivers.items() if found},
        environment={name: _impersonal(value, home, environment.get("USER", "")) for name, value in told.items()},
    )


def _impersonal(value: str, home: Path, user: str) -> str:
    """A variable's value without the user's name in its paths."""
    value = value.replace(str(home), "~") if len(home.parts) > 1 else value
    return re.sub(rf"(?<=/){re.escape(user)}(?=/|$)", "USER", value) if user else value


def filesystem_of(folder: Path, mounts: str) -> str:
    """Type of the file system that holds `folder`, from the text of /proc/mounts; empty where it tells nothing."""
    fields = [line.split() for line in mounts.splitlines() if len(line.split()) > 2]
    types = {Path(point): kind for _, point, kind, *_ in fields}
    holding = [point for point in types if folder.is_relative_to(point)]
    return types[max(holding, key=lambda point: len(point.parts))] if holding else ""


def _memory_gib(root: Path) -> float | None:
    """The machine's memory, or the control group's limit where that is less."""
    total = re.search(r"MemTotal:\s*(\d+) kB", _read(root / "proc/meminfo"))
    limit = re.fullmatch(r"\d+", _read(root / "sys/fs/cgroup/memory.max").strip())
    sizes = [int(total[1]) * 1024] if total else []
    sizes += [int(limit[0])] if limit else []
    return min(sizes) / GIB if sizes else None


def _read(path: Path) -> str:
    """A file's text; empty where it is absent or closed to us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def traps(machine: Machine, backend: str, torch_version: str, threads: int) -> list[str]:
    """What is likely to go wrong here, each with what to do about it.

    Args:
        machine: from `look_at`.
        backend: cuda, rocm or cpu, as `util.runtime.device.backend` tells.
        torch_version: such as "2.10.0+rocm7.1".
        threads: that PyTorch computes with in this process.
    """
    found = [*_traps_of_builds(machine, backend, torch_version), *_traps_of_the_machine(machine, threads)]
    if backend == "rocm" or "amd" in machine.gpu_vendors:
        found += _traps_of_rocm(machine)
    return found


def _traps_of_builds(machine: Machine, backend: str, torch_version: str) -> Iterator[str]:
    """A PyTorch that does not fit the GPU."""
    if backend == "cpu" and "amd" in machine.gpu_vendors:
        yield (
            f"an AMD GPU's driver is loaded, but torch {torch_version} cannot use it: install the ROCm build "
            "(requirements-rocm.txt), check that you may read /dev/kfd (groups video and render), and ask the "
            "scheduler for a GPU."
        )
    if backend == "cpu" and "nvidia" in machine.gpu_vendors:
        yield (
            f"an NVIDIA GPU's driver is loaded, but torch {torch_version} cannot use it: install the CUDA build "
            "(requirements.txt), a driver as new as it asks for, and ask the scheduler for a GPU."
        )
    numbers = re.match(r"(\d+)\.(\d+)", torch_version)
    if backend == "rocm" and numbers and (int(numbers[1]), int(numbers[2])) < (2, 1):
        yield f"torch {torch_version} is too old for ROCm: from 2.1, better as requirements-rocm.txt says."


def _traps_of_the_machine(machine: Machine, threads: int) -> Iterator[str]:
    """Threads, shared memory, home folder, network."""
    asked = re.match(r"\d+", machine.environment.get("OMP_NUM_THREADS", ""))  # PyTorch may have taken fewer
    threads = max(threads, int(asked[0]) if asked else 0)
    many = int(machine.environment.get("LOCAL_WORLD_SIZE") or machine.environment.get("SLURM_STEP_NUM_TASKS") or 1) > 1
    if machine.cores == 1 < machine.cores_installed and many:
        yield (
            f"this process is bound to one core of {machine.cores_installed}: under srun give -c CORES per task; "
            "torchrun inside srun binds all its workers to one core, so start with srun alone."
        )
    elif threads > machine.cores:
        yield (
            f"{threads} threads on {machine.cores} cores slow one another down: set OMP_NUM_THREADS={machine.cores} "
            "or less."
        )
    shared = machine.shared_memory_gib
    if shared is not None and shared < SMALL_SHARED_MEMORY_GIB:
        yield (
            f"/dev/shm holds {1024 * shared:.0f} MiB, too little for loader processes: start the container with "
            "--ipc=host or --shm-size=8g, or train with num_workers=0."
        )
    if machine.home_filesystem.startswith(NETWORK_FILESYSTEMS) and "TORCH_HOME" not in machine.environment:
        yield (
            f"the home folder lies on a network file system ({machine.home_filesystem}), and caches go there: set "
            "TORCH_HOME, TRITON_CACHE_DIR and TORCHINDUCTOR_CACHE_DIR to a folder on scratch or on the node."
        )
    if machine.environment.get("FI_MR_CACHE_MONITOR") == "memhooks":
        yield "FI_MR_CACHE_MONITOR=memhooks can deadlock: set it to kdreg2 or userfaultfd."


def _traps_of_rocm(machine: Machine) -> Iterator[str]:
    """MIOpen's caches, and lists of visible devices that contradict one another."""
    given = machine.environment
    unset = [name for name in MIOPEN_FOLDERS if not given.get(name)]
    in_job = any(name.startswith("SLURM_") for name in given)
    if unset and (in_job or machine.home_filesystem.startswith(NETWORK_FILESYSTEMS)):
        yield (
            f"{' and '.join(unset)} not set: MIOpen keeps its databases in the home folder, where tasks and nodes "
            "disturb one another (disk I/O errors). Set both to a folder on the node's own disk with the job id in "
            "its name, and make it on every node."
        )
    lists = {name: given[name].split(",") for name in VISIBLE if given.get(name)}
    outer = lists.pop("ROCR_VISIBLE_DEVICES", None)
    for name, inner in lists.items():
        beyond = [number for number in inner if number.isdigit() and outer and int(number) >= len(outer)]
        if beyond:
            yield (
                f"{name}={given[name]} beside ROCR_VISIBLE_DEVICES={given['ROCR_VISIBLE_DEVICES']}: the first counts "
                f"within the second, which leaves {len(outer or ())} GPU(s), so number {beyond[0]} does not exist and "
                "PyTorch sees none. Leave these variables to the scheduler; unset what a script sets."
            )
