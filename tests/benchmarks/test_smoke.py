import json
import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import smoke
from models import METHODS
from models.training import speed
from util.runtime.device import bf16_support, compile_support

ROOT = Path(__file__).parents[2]
FINE = {"losses": [1.0], "cpu_difference": 0.0, "restart_difference": 0.0, "rank_difference": 0.0, "compiled": False}
PLAIN = smoke.Mode("float32")
HAS_BF16, _ = bf16_support(torch.device("cpu"))  # elsewhere it is emulated, and takes minutes
PRECISIONS = ("float32", "bf16") if HAS_BF16 else ("float32",)
TRAINED = [name for name, method in METHODS.items() if method.batch_type is not None]


def run(monkeypatch, out, *arguments):
    monkeypatch.setattr(sys, "argv", ["smoke", "--out", str(out), "--device", "cpu", *arguments])
    return smoke.main(), json.loads(out.read_text())


def test_every_method_trains_in_every_precision(monkeypatch, tmp_path):
    n_problems, found = run(monkeypatch, tmp_path / "smoke.json")
    lines = found["methods"]
    assert n_problems == 0, lines
    assert {(line["method"], line["precision"]) for line in lines} == {
        (name, precision) for name in TRAINED for precision in PRECISIONS
    }
    for line in lines:
        assert len(line["losses"]) == smoke.STEPS + 1
        assert line["losses"][-1] < line["losses"][0]
        assert line["restart_difference"] == 0  # on a CPU, to the bit
        assert (line["cpu_difference"] == 0) == (line["precision"] == "float32")
    assert found["device"]["versions"]["torch"] == torch.__version__
    assert found["asked"] == {"size_px": 64, "device": "cpu", "processes": 1, "launcher": "python"}


def test_a_method_that_fails_is_told_and_the_others_go_on(monkeypatch, tmp_path, caplog):
    def fails(self, batch):
        raise RuntimeError("HIP error: invalid device function")

    monkeypatch.setattr(METHODS["jocor"], "forward", fails)
    with caplog.at_level(logging.INFO):
        n_problems, found = run(monkeypatch, tmp_path / "smoke.json", "--methods", "jocor", "upper")
    assert n_problems == len(PRECISIONS)
    told = {(line["method"], line["precision"]): line["problems"] for line in found["methods"]}
    assert told["jocor", "float32"] == ["RuntimeError: HIP error: invalid device function"]
    assert all(told["upper", precision] == [] for precision in PRECISIONS)
    assert "invalid device function" in caplog.text


def test_networks_in_channels_last_order_are_tried_too(monkeypatch, tmp_path):
    monkeypatch.setattr(speed, "prefers_channels_last", lambda device: True)  # as on a GPU
    n_problems, found = run(monkeypatch, tmp_path / "smoke.json", "--methods", "alpnet", "supervised")
    assert n_problems == 0, found["methods"]


def test_the_loss_on_the_cpu_is_computed_once_for_all_modes(monkeypatch, tmp_path):
    asked = []
    original = smoke.loss_on_cpu
    monkeypatch.setattr(smoke, "loss_on_cpu", lambda name, *rest: asked.append(name) or original(name, *rest))
    run(monkeypatch, tmp_path / "smoke.json", "--methods", "jocor", "upper")
    assert asked == ["jocor", "upper"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"losses": [1.0, math.nan]}, "not finite"),
        ({"cpu_difference": 0.05}, r"differs from the CPU by 5 %, more than 1 %"),
        ({"cpu_difference": math.nan}, "differs from the CPU"),
        ({"restart_difference": 0.02}, "differs from the uninterrupted run by 2 %"),
        ({"rank_difference": 0.001}, "the weights of the processes differ"),
        ({"compiled": True}, "could not be compiled"),
    ],
)
def test_problems_are_named(change, expected):
    (found,) = smoke.problems(FINE | change, PLAIN)
    assert expected in found
    assert smoke.problems(FINE, PLAIN) == []


@pytest.mark.slow
def test_compiled_methods_are_tried_too_where_asked_for_and_possible(tmp_path):
    out = tmp_path / "smoke.json"
    command = [sys.executable, "-m", "benchmarks.smoke", "--out", str(out), "--device", "cpu", "--compile", "on"]
    # With one thread and without vector instructions, PyTorch 2.14 generates C++ that does not compile.
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    command += ["--methods", "supervised"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = json.loads(out.read_text())["methods"]
    assert done.returncode == 0, lines
    tried = [(line["precision"], line["compiles"], line["compiled"], len(line["losses"])) for line in lines]
    plain = [(precision, False, False, 3) for precision in PRECISIONS]
    is_possible, reason = compile_support(torch.device("cpu"))
    assert tried == plain + ([(PRECISIONS[-1], True, True, 5)] if is_possible else [])
    assert is_possible or reason in done.stderr


def test_a_size_that_does_not_fit_is_refused(monkeypatch, tmp_path):
    with pytest.raises(ValueError, match=r"--size-px 50: expected a multiple of 32"):
        run(monkeypatch, tmp_path / "smoke.json", "--size-px", "50")


@pytest.mark.slow
def test_two_processes_see_different_patients_and_stay_together(tmp_path):
    first, second = (smoke.phantom_episode(64, rank) for rank in (0, 1))
    assert not torch.equal(first.query_image, second.query_image)
    assert first.support_mask.any()
    out = tmp_path / "smoke.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    command += ["benchmarks.smoke", "--out", str(out), "--device", "cpu", "--methods", "supervised"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert found["asked"]["processes"] == 2
    assert found["asked"]["launcher"] == "torchrun"
    assert [line["problems"] for line in found["methods"]] == [[]] * len(PRECISIONS)
    assert all(line["rank_difference"] < 1e-6 for line in found["methods"])
