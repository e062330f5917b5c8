"""A short soak test: every kind of interruption once."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


@pytest.mark.parametrize(("method", "steps"), [("alpnet", 60), ("spguided", 240)])
def test_an_interrupted_run_has_the_result_of_an_uninterrupted_one(method, steps, tmp_path):
    command = [sys.executable, str(HERE / "soak.py"), "--forked", f"--out={tmp_path / 'soak'}", f"--method={method}"]
    command += [f"--steps={steps}", "--blows=6", "--seed=1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "soak" / "report.json").read_text())
    assert report["differences"] == []
    assert len(report["blows"]) >= 3
    assert len({blow["how"] for blow in report["blows"]}) == len(report["blows"])  # each another way
    assert any(0 < blow["step"] < steps for blow in report["blows"])


@pytest.fixture(scope="module")
def differences():
    spec = importlib.util.spec_from_file_location("soak_differences", HERE / "differences.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return lambda one, other: list(module.differences(one, other))


def state():
    return {
        "ema": {"w": torch.tensor([1.0, float("nan")])},
        "history": [{"dice": float("nan")}],
        "step": torch.tensor(3),
    }


def test_equal_states_do_not_differ(differences):
    assert differences(state(), state()) == []


def test_a_single_bit_is_seen(differences):
    flipped = state()
    flipped["ema"]["w"].view(torch.int32)[0] ^= 1
    assert differences(state(), flipped) == ["/ema/w: torch.float32 of shape (2,)"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"step": torch.tensor(3, dtype=torch.int32)}, "/step: torch.int64 of shape ()"),
        ({"step": 3}, "/step: Tensor and int"),
        ({"history": [{"dice": 0.5}]}, "/history/0/dice: nan and 0.5"),
        ({"history": []}, "/history: [{'dice': nan}] and []"),
        ({"further": 1}, "/further: str and int"),
    ],
)
def test_what_else_differs_is_named(differences, changes, expected):
    assert differences(state(), state() | changes) == [expected]


def test_a_negative_zero_is_not_zero(differences):
    assert len(differences({"w": torch.tensor([0.0])}, {"w": torch.tensor([-0.0])})) == 1
