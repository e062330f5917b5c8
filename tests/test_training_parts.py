"""Methods of several networks, optimisers and streams go through the training loop as all others do."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

import training  # noqa: F401 - registers the command
from config_ssl_upload import ex
from dataloaders.samples import ImageCase
from dataloaders.scans.normalise import Normalisation
from models.training.average import AverageConfig
from models.training.optim import OptimConfig, Optimisers
from models.training.state import build_state
from tests.models.toys import FIRST_UNLABELLED, TOYS, ToyAdversarial, batches, build_toy, install
from util.runtime import checkpoint

ROOT = Path(__file__).parents[1]
N_STEPS = 12
SETTINGS = {
    "n_steps": N_STEPS,
    "batch_size": 2,
    "print_interval": 4,
    "checkpoint_every": 3,
    "num_workers": 0,
    "device": "cpu",
    "optim": {"name": "adam", "lr": 0.01, "weight_decay": 0.0, "step_every": 5, "step_gamma": 0.5},
    "ema": {"decay": 0.5, "every": 1},
}
CPU = torch.device("cpu")
PLAIN = torch.autocast("cpu", enabled=False)


def settings(name, logs, **changes):
    return SETTINGS | {"method": name, "path": {"log_dir": str(logs)}} | changes


def train(name, logs, **changes):
    run = ex.run("train", config_updates=settings(name, logs, **changes))
    return Path(str(run.result))


def logged(path):
    """name -> value of each step, of the last run."""
    last = max((path.parent / "runs").glob("[0-9]*"), key=lambda folder: int(folder.name))
    metrics = json.loads((last / "metrics.json").read_text())
    return {name: dict(zip(found["steps"], found["values"], strict=True)) for name, found in metrics.items()}


@pytest.fixture(params=TOYS)
def toy(request, monkeypatch):
    install(request.param, monkeypatch)
    return request.param


class Killed(BaseException):
    """What is not written when it comes, never will be."""


def test_kill_and_resume_gives_the_same_run(toy, tmp_path, monkeypatch):
    unbroken = checkpoint.load(train(toy, tmp_path / "unbroken"))
    save = checkpoint.save

    def save_or_die(path, content, **options):
        if content["step"] == 9:
            raise Killed
        save(path, content, **options)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save_or_die)
        with pytest.raises(Killed):
            train(toy, tmp_path / "broken")
    (path,) = (tmp_path / "broken").rglob("checkpoint.pt")
    assert checkpoint.load(path)["step"] == 6
    resumed = checkpoint.load(train(toy, tmp_path / "broken"))
    assert resumed["scalars"] == unbroken["scalars"]
    assert resumed["optimisers"].keys() == unbroken["optimisers"].keys()
    for part in ("method", "ema"):
        assert (part in resumed) == (part in unbroken)
        for name, tensor in unbroken.get(part, {}).items():
            assert torch.equal(tensor, resumed[part][name]), f"{part} {name}"


def test_every_trained_parameter_has_one_optimiser_and_a_gradient(toy):
    method, last = build_toy(toy), list(batches(toy, 4))[-1]
    optimisers = Optimisers(method.optimisers(OptimConfig()), 1)
    trained = [p for each in optimisers.by_name.values() for group in each.param_groups for p in group["params"]]
    assert Counter(map(id, trained)) == Counter(id(p) for p in method.parameters() if p.requires_grad)
    losses = method(last)
    assert losses["loss"].item() == pytest.approx(sum(v.item() for name, v in losses.items() if name != "loss"))
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
    assert all(p.grad is None for p in method.parameters() if not p.requires_grad)


def test_each_optimiser_follows_its_own_rule(tmp_path, monkeypatch):
    install("toy_adversarial", monkeypatch)
    state = checkpoint.load(train("toy_adversarial", tmp_path))["optimisers"]
    last = N_STEPS - 1
    assert state["main"]["param_groups"][0]["lr"] == pytest.approx(0.01 * 0.5 ** (last // 5))
    own = ToyAdversarial.discriminator_optim
    assert state["discriminator"]["param_groups"][0]["lr"] == pytest.approx(own.lr * (1 - last / N_STEPS))
    taken = {name: {int(each["step"]) for each in found["state"].values()} for name, found in state.items()}
    assert taken == {"main": {N_STEPS}, "discriminator": {N_STEPS - FIRST_UNLABELLED}}


def test_logged_means_are_those_of_the_steps(toy, tmp_path):
    """Whatever the number of optimisers, and of the steps that have a loss."""
    state = build_state(
        {"method": toy, "n_steps": N_STEPS},
        1234,
        OptimConfig(**SETTINGS["optim"]),
        AverageConfig(),
        Normalisation(),
        CPU,
    )
    losses = [state.train_step(state.method, batch, PLAIN) for batch in batches(toy, 4, seed=1234)]
    found = logged(train(toy, tmp_path))
    for name in losses[-1]:
        expected = [each[name].item() for each in losses if name in each]
        assert found[f"train/{name}"][4] == pytest.approx(sum(expected) / len(expected), rel=1e-5)
        assert len(expected) == (4 - FIRST_UNLABELLED if name in ("adversarial", "discriminator") else 4)


def test_what_is_averaged_is_the_methods_choice(toy, tmp_path):
    content = checkpoint.load(train(toy, tmp_path))
    if toy == "toy_teacher":
        assert "ema" not in content
        return
    assert content["ema"].keys() == content["method"].keys()
    differing = {name.partition(".")[0] for name, t in content["ema"].items() if not t.equal(content["method"][name])}
    assert differing == ({"student"} if toy == "toy_student_average" else {"segmentor", "discriminator"})


def test_the_teacher_follows_the_student_and_predicts(tmp_path, monkeypatch):
    install("toy_teacher", monkeypatch)
    content = checkpoint.load(train("toy_teacher", tmp_path))["method"]
    fresh = build_toy("toy_teacher")
    fresh.load_state_dict(content)
    assert not torch.equal(content["student.0.weight"], content["teacher.0.weight"])
    image = torch.rand(2, 1, 16, 16)
    expected = fresh.get_submodule("teacher")(image).softmax(1)[:, 1].detach()
    assert torch.equal(fresh.probabilities(ImageCase(("a", "b"), (1,), image))[0], expected)


RANK = """
import json, sys
import training  # noqa: F401 - registers the command
from tests.models.toys import ForGood, install
from config_ssl_upload import ex

install(sys.argv[1], ForGood)
ex.run("train", config_updates=json.loads(sys.argv[2]))
"""


@pytest.mark.parametrize("toy", ["toy_adversarial", "toy_teacher"], indirect=True)
def test_two_processes_equal_one(toy, tmp_path):
    one = checkpoint.load(train(toy, tmp_path / "one"))
    given = json.dumps(settings(toy, tmp_path / "two"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, toy, given],
            cwd=ROOT,
            env=os.environ
            | address
            | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    finally:  # processes that wait for each other in vain
        for process in ranks:
            process.kill()
            process.wait()
    (path,) = (tmp_path / "two").rglob("checkpoint.pt")
    two = checkpoint.load(path)
    for name, tensor in one["method"].items():
        torch.testing.assert_close(tensor, two["method"][name], rtol=1e-4, atol=1e-5)
    assert two["scalars"].keys() == one["scalars"].keys()
    for name, (steps, values) in one["scalars"].items():
        assert two["scalars"][name] == [steps, pytest.approx(values, rel=1e-4)]
