"""What training resumes from, and how a shorter run is prolonged. The remedies in the messages are followed."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

import training  # noqa: F401 - registers the command
from config_ssl_upload import InputError, ex
from models.training.load import load_trained
from util.errors import CheckpointError
from util.runtime import checkpoint

SMALL = {
    "size_px": 32,
    "n_steps": 6,
    "round_steps": 2,
    "eval_every": 0,
    "batch_size": 4,
    "checkpoint_every": 3,
    "save_snapshot_every": 3,
    "num_workers": 0,
    "device": "cpu",
    "optim": {"lr": 0.01},
    "unet": {"base_features": 4, "max_features": 8, "halvings": [2, 2]},
    "noise": {"alpha": 0.7, "beta": 0.7},
    "superpixel": {"n_segments": 24},
}


def train(folder, logs, word: str = "ce", **changes: Any):
    values = SMALL | {"path": {"data_dir": str(folder), "log_dir": str(logs)}} | changes
    return Path(str(ex.run("train", named_configs=["isic2017", word], config_updates=values).result))


def assert_same_weights(one, other):
    one, other = checkpoint.load(one), checkpoint.load(other)
    for part in ("method", "ema"):
        assert all(value.equal(other[part][name]) for name, value in one[part].items())
    assert one["step"] == other["step"]


@pytest.fixture
def trained(image_folder, tmp_path):
    return train(image_folder, tmp_path)


def test_a_snapshot_in_place_of_the_checkpoint_is_refused_and_the_remedies_work(image_folder, tmp_path, trained):
    snapshot, previous = trained.parent / "snapshots" / "3.pth", checkpoint.previous_path(trained)
    for remains, then in ((True, r"resumes from checkpoint\.pt\.previous"), (False, "trains from the start")):
        shutil.copy(snapshot, trained)
        if not remains:
            previous.unlink()
        with pytest.raises(InputError, match=rf"checkpoint\.pt: a snapshot of step 3.*Move it elsewhere: .* {then}"):
            train(image_folder, tmp_path)
        trained.rename(tmp_path / "elsewhere.pt")
        assert checkpoint.load(train(image_folder, tmp_path))["step"] == 6
    settings = checkpoint.load(snapshot)["settings"]
    assert load_trained(snapshot, settings, "last", torch.device("cpu")).step == 3  # what it does serve


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ({"a": 1}, "holds a"),
        ({"state_dict": {"w": torch.ones(1)}, "epoch": 3}, "holds epoch, state_dict"),
        ({}, "holds nothing"),
        ({"format": "frugalseg-1", "settings": 3}, "holds format, settings"),
    ],
)
def test_a_file_of_another_program_is_named(image_folder, tmp_path, trained, content, held):
    torch.save(content, trained)
    with pytest.raises(InputError, match=rf"checkpoint\.pt: not a checkpoint of this program \({held}\)"):
        train(image_folder, tmp_path)
    with pytest.raises(CheckpointError, match=r"\.pt: (holds .*in place of weights|not a checkpoint of this)"):
        load_trained(trained, {"method": "supervised"}, "last", torch.device("cpu"))


def test_weights_that_no_longer_fit_are_named(image_folder, tmp_path, trained):
    content = checkpoint.load(trained)
    first = next(iter(content["method"]))
    content["method"][first] = torch.zeros(3)
    checkpoint.save(trained, content)
    with pytest.raises(InputError, match=r"checkpoint\.pt: does not fit the method of this version.*size mismatch"):
        train(image_folder, tmp_path, n_steps=6)


def test_a_longer_run_names_the_shorter_one_and_how_to_prolong_it(image_folder, tmp_path, caplog):
    """With a method that refines labels, which the prolonged run takes over."""
    word = "spguided"
    changes: dict[str, Any] = {"refine": {"patience": 1}, "optim": {"lr": 0.01, "schedule": "step"}}
    short = train(image_folder, tmp_path, word, n_steps=10, **changes)
    caplog.set_level("INFO")
    alone = train(image_folder, tmp_path, word, n_steps=14, **changes)
    said = re.search(r"(.*): the same training with another n_steps, at step 10\. .*run `(.*)` and", caplog.text)
    assert said
    assert said[1].endswith(str(short.parent))
    assert (short.parent / "refined_labels").exists()
    shutil.copy(alone, tmp_path / "alone.pt")
    shutil.rmtree(alone.parent)
    (alone.parent / "runs" / "1").mkdir(parents=True)  # as after the run has been stopped in its first steps
    subprocess.run(said[2], shell=True, check=True)
    caplog.clear()
    assert train(image_folder, tmp_path, word, n_steps=14, **changes) == alone
    assert "prolonged from n_steps=10 to 14" in caplog.text
    assert "from step 10;" in caplog.text
    assert_same_weights(alone, tmp_path / "alone.pt")
    assert train(image_folder, tmp_path, word, n_steps=14, **changes) == alone  # and so do its refined labels


def test_a_run_whose_learning_rate_follows_its_length_cannot_be_prolonged(image_folder, tmp_path, caplog):
    changes: dict[str, Any] = {"optim": {"lr": 0.01, "schedule": "polynomial"}}
    short = train(image_folder, tmp_path, n_steps=2, **changes)
    caplog.set_level("INFO")
    longer = train(image_folder, tmp_path, n_steps=3, **changes)
    assert "It cannot be prolonged: its learning rate follows n_steps" in caplog.text
    shutil.copy(short, longer)
    with pytest.raises(InputError, match=r"another run \(n_steps: 2 there, 3 here\)"):
        train(image_folder, tmp_path, n_steps=3, **changes)


def test_a_shorter_run_is_no_part_of_a_longer_one(image_folder, tmp_path, trained):
    shorter = train(image_folder, tmp_path, n_steps=2)
    shutil.copy(trained, shorter)
    with pytest.raises(InputError, match=r"another run \(n_steps: 6 there, 2 here\)"):
        train(image_folder, tmp_path, n_steps=2)


def test_a_run_that_is_refused_leaves_no_folder(image_folder, tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    refused: tuple[dict[str, Any], ...] = ({"noise": {"alpha": 0.3, "beta": 0.7}}, {"store": "sql:nothing"})
    for changes in refused:
        with pytest.raises(InputError):
            train(image_folder, logs, **changes)
        assert not list(logs.iterdir())
    path = train(image_folder, logs, n_steps=2)
    torch.save({"a": 1}, path)
    checkpoint.previous_path(path).unlink(missing_ok=True)
    with pytest.raises(InputError, match="not a checkpoint of this program"):
        train(image_folder, logs, n_steps=2)
    assert sorted(file.name for file in (path.parent / "runs").iterdir() if file.name != "_sources") == ["1"]
