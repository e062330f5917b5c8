"""Two processes that train a method for partially annotated data sets equal one with the whole batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from tests.models.methods.partial_helpers import NAMES, joint_batch, make, part_of

ROOT = Path(__file__).parents[3]


def gradients(net, batch):
    net(batch)["loss"].backward()
    return {name: weight.grad for name, weight in net.named_parameters() if weight.grad is not None}


def run_process(folder: Path, rank: int, port: str) -> None:
    """One of two processes: saves its gradients for its half of each data set."""
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    found = {}
    for name in NAMES:
        net = torch.nn.parallel.DistributedDataParallel(make(name))
        found[name] = gradients(net, part_of(joint_batch(4), rank, 2))
    torch.save(found, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_have_the_gradients_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    code = "import sys; from pathlib import Path; from tests.models.methods.test_partial_together import run_process\n"
    code += "run_process(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), str(rank), port], cwd=ROOT, env=environment)
        for rank in range(2)
    ]
    assert [process.wait() for process in ranks] == [0, 0]
    together = [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name in NAMES:
        expected = gradients(make(name), joint_batch(4))
        for found in together:
            assert found[name].keys() == {f"module.{key}" for key in expected}
            for key, gradient in expected.items():
                told = f"{name}: {key}"
                torch.testing.assert_close(found[name][f"module.{key}"], gradient, rtol=1e-3, atol=2e-5, msg=told)
