"""Training on several processes."""

import os
import shutil
import socket
import subprocess

import torch

from tests.test_training import ROOT, command_line, train, weights
from util.runtime import checkpoint

# Of weights after four steps, which move them by 4e-4: rounding may tip a ReLU or a maximum.
ROUNDING = 1e-5


def free_address():
    """Where processes can meet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}


def train_with_two(folder, logs, **changes):
    """The exit codes of two processes that train together."""
    address = free_address()
    ranks = [
        subprocess.Popen(
            command_line(folder, logs, **changes),
            cwd=ROOT,
            env=os.environ
            | address
            | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    return [process.wait() for process in ranks]


def test_two_processes_equal_one_and_one_resumes_where_two_stopped(prepared_folder, tmp_path):
    frozen = {"freeze_batch_norm": True, "batch_size": 2}
    one = train(prepared_folder, tmp_path / "one", n_steps=4, **frozen)
    assert train_with_two(prepared_folder, tmp_path / "two", n_steps=4, **frozen) == [0, 0]
    (two,) = (tmp_path / "two").rglob("checkpoint.pt")
    assert two.parent.name == one.parent.name
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, weights(two)[name], rtol=1e-4, atol=ROUNDING)
    assert len(list((tmp_path / "two").rglob("metrics.json"))) == 1  # the first process logs, alone

    state = checkpoint.load(checkpoint.previous_path(two))  # of step 3, by two processes
    assert state["step"] == 3
    checkpoint.save(two, state)
    assert train(prepared_folder, tmp_path / "two", n_steps=4, **frozen) == two
    for name, tensor in weights(one).items():
        torch.testing.assert_close(tensor, weights(two)[name], rtol=1e-4, atol=ROUNDING)


def test_more_processes_than_episodes_are_refused(prepared_folder, tmp_path):
    assert train_with_two(prepared_folder, tmp_path, batch_size=1) == [2, 2]


def test_processes_end_together_where_the_first_finds_the_data_damaged(prepared_folder, tmp_path, capfd):
    damaged = shutil.copytree(prepared_folder, tmp_path / "data")
    next(damaged.glob("label_*.nii.gz")).write_bytes(b"cut short")
    assert train_with_two(damaged, tmp_path, batch_size=2) == [1, 1]
    told = capfd.readouterr().err
    assert told.count("the first process stopped with an error") == 1
    assert "label_" in told
    assert "Connection" not in told
