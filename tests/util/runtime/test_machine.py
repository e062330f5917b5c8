import re
from dataclasses import replace
from pathlib import Path

import pytest

from util.runtime.machine import Machine, filesystem_of, look_at, traps

SOUND = Machine(cores=8, cores_installed=8, shared_memory_gib=64.0, home_filesystem="ext4")
TORCH = "2.10.0+rocm7.1"
CACHES = {"MIOPEN_USER_DB_PATH": "/mnt/bb/me/7", "MIOPEN_CUSTOM_CACHE_DIR": "/mnt/bb/me/7"}
MOUNTS = """\
/dev/sda1 / ext4 rw 0 0
server:/home /home nfs4 rw 0 0
scratch /home/me/scratch lustre rw 0 0
"""


@pytest.mark.parametrize("backend", ["cpu", "cuda", "rocm"])
def test_a_sound_machine_has_no_traps(backend):
    assert traps(SOUND, backend, TORCH, threads=8) == []
    in_job = replace(SOUND, environment={"SLURM_NTASKS": "8", "LOCAL_WORLD_SIZE": "8", **CACHES})
    assert traps(in_job, backend, TORCH, threads=1) == []


@pytest.mark.parametrize(
    ("changes", "backend", "torch", "threads", "expected"),
    [
        ({"gpu_vendors": ("amd",)}, "cpu", "2.14.1+cu130", 1, r"AMD GPU.*2\.14\.1\+cu130.*requirements-rocm\.txt"),
        ({"gpu_vendors": ("nvidia",)}, "cpu", "2.14.1+cpu", 1, r"NVIDIA GPU.*2\.14\.1\+cpu.*requirements\.txt"),
        ({}, "rocm", "2.0.1+rocm5.4.2", 1, r"2\.0\.1\+rocm5\.4\.2 is too old"),
        ({}, "cpu", TORCH, 9, "9 threads on 8 cores.*OMP_NUM_THREADS=8"),
        ({"environment": {"OMP_NUM_THREADS": "16,2"}}, "cpu", TORCH, 1, "16 threads on 8 cores"),
        ({"cores": 1, "environment": {"LOCAL_WORLD_SIZE": "8"}}, "cpu", TORCH, 1, "one core of 8.*srun"),
        ({"shared_memory_gib": 0.0625}, "cpu", TORCH, 1, "/dev/shm holds 64 MiB.*--ipc=host.*num_workers=0"),
        ({"home_filesystem": "nfs4"}, "cuda", TORCH, 1, "network file system.*TORCH_HOME"),
        ({"environment": {"FI_MR_CACHE_MONITOR": "memhooks"}}, "cuda", TORCH, 1, "memhooks can deadlock.*kdreg2"),
        ({"environment": {"SLURM_NTASKS": "8"}}, "rocm", TORCH, 1, "MIOPEN_USER_DB_PATH and MIOPEN_CUSTOM.*not set"),
        (
            {"environment": {"ROCR_VISIBLE_DEVICES": "3", "CUDA_VISIBLE_DEVICES": "3"}},
            "rocm", TORCH, 1, "CUDA_VISIBLE_DEVICES=3 beside ROCR_VISIBLE_DEVICES=3.*leaves 1 GPU.*number 3",
        ),
    ],
)  # fmt: skip
def test_each_trap_is_named_with_its_remedy(changes, backend, torch, threads, expected):
    (found,) = traps(replace(SOUND, **changes), backend, torch, threads)
    assert re.search(expected, found)


def test_slurms_three_lists_that_agree_are_no_trap():
    names = ("ROCR_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
    for lists in (("0", "0", "0"), ("4,5", "0,1", "0,1"), ("GPU-8f2", "GPU-8f2", "0")):
        given = replace(SOUND, environment=dict(zip(names, lists, strict=True)))
        assert traps(given, "rocm", TORCH, 1) == []


def test_contradicting_lists_are_found_where_pytorch_therefore_sees_no_gpu():
    given = {"ROCR_VISIBLE_DEVICES": "2,3", "HIP_VISIBLE_DEVICES": "0,2", **CACHES}
    found = traps(replace(SOUND, gpu_vendors=("amd",), environment=given), "cpu", TORCH, 1)
    assert any("HIP_VISIBLE_DEVICES=0,2" in trap and "number 2 does not exist" in trap for trap in found)


def test_miopen_in_a_home_folder_on_the_network_is_a_trap_outside_jobs_too():
    found = traps(replace(SOUND, home_filesystem="nfs"), "rocm", TORCH, 1)
    assert any("MIOPEN_USER_DB_PATH" in trap for trap in found)
    assert not traps(
        replace(SOUND, home_filesystem="nfs", environment={"TORCH_HOME": "/x", **CACHES}), "rocm", TORCH, 1
    )


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("/home/me", "nfs4"), ("/home/me/scratch/x", "lustre"), ("/homes/me", "ext4"), ("/", "ext4")],
)
def test_file_systems(folder, expected):
    assert filesystem_of(Path(folder), MOUNTS) == expected
    assert filesystem_of(Path(folder), "") == ""


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
    here = look_at(environment, tmp_path)
    assert here.memory_gib == 64
    assert here.gpu_vendors == ("amd",)
    assert here.drivers == {"amd": "6.12.12", "nvidia": "570.86.15"}
    assert here.home_filesystem == "nfs4"
    assert here.shared_memory_gib
    assert here.environment == {"MIOPEN_USER_DB_PATH": "~/db", "TORCH_HOME": "/scratch/USER/mean"}  # fit to be shown
    (tmp_path / "sys/fs/cgroup/memory.max").write_text(f"{2**30}\n")
    assert look_at(environment, tmp_path).memory_gib == 1


def test_an_unknown_system_has_no_facts_and_no_traps(tmp_path):
    here = look_at({}, tmp_path)
    assert (here.memory_gib, here.shared_memory_gib, here.home_filesystem, here.gpu_vendors) == (None, None, "", ())
    assert traps(here, "cpu", TORCH, 1) == []
    assert here.cores >= 1
