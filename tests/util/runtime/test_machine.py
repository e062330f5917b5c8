import re
from dataclasses import replace
from pathlib import Path

import pytest

from util.runtime.machine import Machine, filesystem_type, find_problems, inspect_machine

HEALTHY = Machine(cores=8, cores_installed=8, shared_memory_gib=64.0, home_filesystem="ext4")
TORCH = "2.10.0+rocm7.1"
CACHES = {"MIOPEN_USER_DB_PATH": "/mnt/bb/me/7", "MIOPEN_CUSTOM_CACHE_DIR": "/mnt/bb/me/7"}
MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
scratch /home/me/scratch lustre rw 0 0
"""


@pytest.mark.parametrize("backend", ["cpu", "cuda", "rocm"])
def test_a_correctly_configured_machine_has_no_problems(backend):
    assert find_problems(HEALTHY, backend, TORCH, threads=8) == []
    in_job = replace(HEALTHY, environment={"SLURM_NTASKS": "8", "LOCAL_WORLD_SIZE": "8", **CACHES})
    assert find_problems(in_job, backend, TORCH, threads=1) == []


@pytest.mark.parametrize(
    ("changes", "backend", "torch", "threads", "expected"),
    [
        ({"gpu_vendors": ("amd",)}, "cpu", "2.14.1+cu130", 1, r"AMD GPU.*2\.14\.1\+cu130.*requirements-rocm\.txt"),
        ({"gpu_vendors": ("nvidia",)}, "cpu", "2.14.1+cpu", 1, r"NVIDIA GPU.*2\.14\.1\+cpu.*requirements\.txt"),
        ({}, "rocm", "2.0.1+rocm5.4.2", 1, r"2\.0\.1\+rocm5\.4\.2 is too old"),
        ({}, "cpu", TORCH, 9, "9 threads on 8 cores.*OMP_NUM_THREADS=8"),
        ({"environment": {"OMP_NUM_THREADS": "16,2"}}, "cpu", TORCH, 1, "16 threads on 8 cores"),
        ({"cores": 1, "environment": {"LOCAL_WORLD_SIZE": "8"}}, "cpu", TORCH, 1, "one core of 8.*srun"),
        ({"shared_memory_gib": 0.0625}, "cpu", TORCH, 1, "/dev/shm has 64 MiB.*--ipc=host.*num_workers=0"),
        ({"home_filesystem": "nfs4"}, "cuda", TORCH, 1, "network file system.*TORCH_HOME"),
        ({"environment": {"FI_MR_CACHE_MONITOR": "memhooks"}}, "cuda", TORCH, 1, "memhooks can deadlock.*kdreg2"),
        ({"environment": {"SLURM_NTASKS": "8"}}, "rocm", TORCH, 1, "MIOPEN_USER_DB_PATH and MIOPEN_CUSTOM.*not set"),
        (
            {"environment": {"ROCR_VISIBLE_DEVICES": "3", "CUDA_VISIBLE_DEVICES": "3"}},
            "rocm", TORCH, 1, "CUDA_VISIBLE_DEVICES=3 with ROCR_VISIBLE_DEVICES=3.*leaves 1 GPU.*index 3",
        ),
    ],
)  # fmt: skip
def test_each_problem_is_reported_with_a_fix(changes, backend, torch, threads, expected):
    (found,) = find_problems(replace(HEALTHY, **changes), backend, torch, threads)
    assert re.search(expected, found)


def test_consistent_device_lists_from_slurm_are_no_problem():
    names = ("ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
    for lists in (("0", "0", "0"), ("4,5", "0,1", "0,1"), ("GPU-8f2", "GPU-8f2", "0")):
        given = replace(HEALTHY, environment=dict(zip(names, lists, strict=True)))
        assert find_problems(given, "rocm", TORCH, 1) == []


def test_conflicting_device_lists_are_found_when_pytorch_sees_no_gpu():
    given = {"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "0,2", **CACHES}
    found = find_problems(replace(HEALTHY, gpu_vendors=("amd",), environment=given), "cpu", TORCH, 1)
    assert any("HIP_VISIBLE_DEVICES=0,2" in problem and "index 2 does not exist" in problem for problem in found)


def test_miopen_databases_in_a_network_home_are_a_problem_outside_jobs_too():
    found = find_problems(replace(HEALTHY, home_filesystem="nfs"), "rocm", TORCH, 1)
    assert any("MIOPEN_USER_DB_PATH" in problem for problem in found)
    assert not find_problems(
        replace(HEALTHY, home_filesystem="nfs", environment={"TORCH_HOME": "/x", **CACHES}), "rocm", TORCH, 1
    )


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("/home/me", "nfs4"), ("/home/me/scratch/x", "lustre"), ("/homes/me", "ext4"), ("/", "ext4")],
)
def test_filesystem_type(folder, expected):
    assert filesystem_type(Path(folder), MOUNTS) == expected
    assert filesystem_type(Path(folder), "") == ""


def test_facts_are_read_from_the_system(tmp_path):
    files = {
        "proc/mounts": MOUNTS,
        "proc/meminfo": "MemTotal:       67108864 kB\nMemFree: 1 kB\n",
        "sys/fs/cgroup/memory.max": "max\n",
        "sys/module/amdgpu/version": "6.12.12\n",
        "proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.86.15  Release\nGCC 13\n",
        "dev/kfd": "",
        "dev/shm/.keep": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    caches = {"MIOPEN_USER_DB_PATH": "/home/me/db", "TORCH_HOME": "/scratch/me/mean"}
    environment = {"HOME": "/home/me", "USER": "me", "SECRET_TOKEN": "x"} | caches
    here = inspect_machine(environment, tmp_path)
    assert here.memory_gib == 64
    assert here.gpu_vendors == ("amd",)
    assert here.drivers == {"amd": "6.12.12", "nvidia": "570.86.15"}
    assert here.home_filesystem == "nfs4"
    assert here.shared_memory_gib
    assert here.environment == {"MIOPEN_USER_DB_PATH": "~/db", "TORCH_HOME": "/scratch/USER/mean"}  # without names
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{2**30}\n")
    assert inspect_machine(environment, tmp_path).memory_gib == 1


def test_an_unknown_system_has_no_facts_and_no_problems(tmp_path):
    here = inspect_machine({}, tmp_path)
    assert (here.memory_gib, here.shared_memory_gib, here.home_filesystem, here.gpu_vendors) == (None, None, "", ())
    assert find_problems(here, "cpu", TORCH, 1) == []
    assert here.cores >= 1
