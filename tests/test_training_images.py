"""Training on images with noisy masks: the same to the last bit after a stop, across workers and processes."""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import training  # noqa: F401 - registers the command
from config_ssl_upload import InputError, ex
from dataloaders.images.config import DenseConfig
from dataloaders.io.png import read_mask, write_png
from util.runtime import checkpoint

ROOT = Path(__file__).parents[1]
METHODS = ("baseline", "tloss", "upper", "coteaching", "jocor", "trinet", "spguided")  # words of models.presets.noisy
SMALL = {
    "size_px": 32,
    "n_steps": 20,
    "round_steps": 2,
    "eval_every": 4,
    "batch_size": 4,
    "print_interval": 1,
    "checkpoint_every": 3,
    "num_workers": 0,
    "device": "cpu",
    "optim": {"lr": 0.01},
    "unet": {"base_features": 4, "max_features": 8, "halvings": [2, 2]},
    "noise": {"alpha": 0.7, "beta": 0.7},
    "superpixel": {"n_segments": 24},
}
REFINED_AT = 8  # the step after which spguided, so impatient, rewrites the labels


def settings(word, folder, logs, **changes):
    impatient = {"refine": {"patience": 1}} if word == "spguided" else {}
    return SMALL | impatient | {"path": {"data_dir": str(folder), "log_dir": str(logs)}} | changes


def train(word, folder, logs, **changes):
    run = ex.run("train", named_configs=["isic2017", word], config_updates=settings(word, folder, logs, **changes))
    return Path(str(run.result))


def logged(path):
    """name -> values, of the first run."""
    metrics = json.loads((path.parent / "runs/1/metrics.json").read_text())
    return {name: record["values"] for name, record in metrics.items()}


def refined(path):
    """Name -> content of the files of refined labels."""
    return {file.name: file.read_bytes() for file in sorted((path.parent / "refined_labels").glob("*"))}


def assert_same_training(one, other):
    states = [checkpoint.load(path) for path in (one, other)]
    for part in ("method", "ema"):
        for name, tensor in states[0][part].items():
            assert torch.equal(tensor, states[1][part][name]), f"{part} {name}"
    for name in ("step", "history", "n_replaced_labels"):
        assert states[0][name] == states[1][name], name
    assert one.parent.name == other.parent.name
    assert refined(one) == refined(other)


@pytest.fixture(scope="module")
def unbroken(image_folder, tmp_path_factory):
    """Trains a method without a stop, once for all tests."""
    found = {}

    def of(word):
        if word not in found:
            found[word] = train(word, image_folder, tmp_path_factory.mktemp(f"unbroken_{word}"))
        return found[word]

    return of


class Killed(BaseException):
    """What is not written when it comes, never will be."""


def train_until_killed(monkeypatch, step, *arguments, **changes):
    """Trains; the process dies as it is about to write the checkpoint of `step`."""
    save = checkpoint.save

    def save_or_die(path, content, **options):
        if content["step"] == step:
            raise Killed
        save(path, content, **options)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save_or_die)
        with pytest.raises(Killed):
            train(*arguments, **changes)


@pytest.mark.parametrize("word", METHODS)
def test_kill_and_resume_gives_the_same_training(word, image_folder, tmp_path, monkeypatch, unbroken):
    for step in (9, 12):  # resumed at 6, before labels are rewritten, although they were; and at 9, afterwards
        train_until_killed(monkeypatch, step, word, image_folder, tmp_path)
        (path,) = tmp_path.rglob("checkpoint.pt")
        assert checkpoint.load(path)["step"] == step - 3
        assert bool(refined(path)) == (word == "spguided")
    assert train(word, image_folder, tmp_path) == path
    assert_same_training(path, unbroken(word))


def test_labels_were_rewritten_where_these_tests_need_it(unbroken):
    path = unbroken("spguided")
    metrics = json.loads((path.parent / "runs/1/metrics.json").read_text())
    assert metrics["round/labels_changed"]["steps"] == [REFINED_AT]
    assert set(refined(path)) == {"1.npy", "1.json"}
    assert checkpoint.load(path)["n_replaced_labels"] == 1
    found = logged(path)
    assert found["round/labels_right_after"] > found["round/labels_right_before"]
    assert all(not refined(unbroken(word)) for word in METHODS if word != "spguided")


def test_predictions_are_compared_with_the_given_masks_even_after_they_were_rewritten(unbroken, image_folder):
    path = unbroken("spguided")
    kept = np.load(path.parent / "refined_labels/1.npy")
    last = checkpoint.load(path)["history"][-1]
    given = {name: value for name, value in last.items() if name.startswith("train_set/dice_to_given")}
    clean = {name: value for name, value in last.items() if name.startswith("train_set/dice_to_clean")}
    assert given["train_set/dice_to_given/clean"] == clean["train_set/dice_to_clean/clean"]  # which the refined are not
    assert given["train_set/dice_to_given/erode"] < clean["train_set/dice_to_clean/erode"]
    assert kept.shape == (12, 32, 32)


# Of the recorded losses per step, relative to the largest one, for T-Loss passes zero. They grow because processors
# round differently: the rounding of one flips a ReLU or a selected pixel, and their losses drift apart.
TOLERANCES = [min(1e-2, 2e-4 * 2 ** max(0, step - 2)) for step in range(1, 21)]


@pytest.mark.parametrize("word", METHODS)
def test_losses_of_twenty_steps_are_the_recorded_ones(word, unbroken):
    """The tolerances are four times the largest deviation of any method, or more.

    It was measured with instruction sets from SSE4.1 to AVX-512, without oneDNN, with one and two threads, and with
    weights disturbed by 1e-7 in every step: 5e-5 in steps 1 to 3, 1.5e-4 to 6, 5e-4 to 13, 2.5e-3 to 20.
    """
    golden = json.loads((ROOT / "tests/golden/noisy/losses.json").read_text())[word]
    found = logged(unbroken(word))
    for name, values in golden.items():
        bounds = [share * max(map(abs, values)) for share in TOLERANCES]
        expected = [pytest.approx(value, rel=0, abs=bound) for value, bound in zip(values, bounds, strict=True)]
        assert found[f"train/{name}"] == expected, name


def test_the_history_holds_every_evaluation(unbroken):
    history = checkpoint.load(unbroken("baseline"))["history"]
    assert [values["step"] for values in history] == [4, 8, 12, 16, 20]
    assert history[-1]["val/dice"] > 0.7
    assert history[-1]["val/dice"] == logged(unbroken("baseline"))["val/dice"][-1]


def test_determinism_across_workers(image_folder, tmp_path, unbroken):
    few = {"n_steps": 10}  # past the rewriting of labels
    alone = train("spguided", image_folder, tmp_path / "alone", **few)
    assert refined(alone)
    assert_same_training(alone, train("spguided", image_folder, tmp_path / "helped", num_workers=2, **few))


RANK = """
import json, sys
import torch
import training
from config_ssl_upload import ex

states, build = [], training.build_state
training.build_state = lambda *given, **more: states.append(build(*given, **more)) or states[-1]
ex.run("train", named_configs=["isic2017", "spguided"], config_updates=json.loads(sys.argv[1]))
method, labels = states[0].method, states[0].labels
state = {name: t for name, t in method.state_dict().items() if "running" not in name and "monitor" not in name}
torch.save({"state": state, "label": torch.from_numpy(labels.label.copy()), "n": labels.n_replaced}, sys.argv[2])
"""


def test_two_processes_rewrite_the_labels_together_and_stay_the_same(image_folder, tmp_path):
    given = json.dumps(settings("spguided", image_folder, tmp_path / "logs", n_steps=13, batch_size=4))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, given, str(tmp_path / f"{rank}.pt")],
            cwd=ROOT,
            env=os.environ | address | {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)},
        )
        for rank in range(2)
    ]
    try:
        assert [process.wait(timeout=120) for process in ranks] == [0, 0]
    finally:  # processes that wait for each other in vain
        for process in ranks:
            process.kill()
            process.wait()
    one, two = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert one["n"] == two["n"] == 1
    assert torch.equal(one["label"], two["label"])
    for name, tensor in one["state"].items():
        assert torch.equal(tensor, two["state"][name]), name
    (path,) = tmp_path.rglob("checkpoint.pt")
    assert set(refined(path)) == {"1.npy", "1.json"}
    assert np.array_equal(np.load(path.parent / "refined_labels/1.npy"), one["label"])
    assert len(list(tmp_path.rglob("metrics.json"))) == 1  # the first process logs, alone


def test_the_upper_bound_learns_the_experts_masks_whatever_the_noise(make_image_folder, tmp_path, unbroken):
    folder = make_image_folder(tmp_path / "isic", noise=None, superpixel=None)
    path = train("baseline", folder, tmp_path, noise={"alpha": 0.0})
    clean, upper = (checkpoint.load(each)["method"] for each in (path, unbroken("upper")))
    assert all(torch.equal(tensor, upper[name]) for name, tensor in clean.items())
    noisy = checkpoint.load(unbroken("baseline"))["method"]
    assert not all(torch.equal(tensor, upper[name]) for name, tensor in noisy.items())


def test_a_structure_of_a_grey_set_trains_in_its_window(chest_folder, tmp_path):
    few = {"n_steps": 2, "unet": {"base_features": 4, "max_features": 8}}
    given = settings("spguided", chest_folder, tmp_path, **few)
    run = ex.run("train", named_configs=["jsrt_clavicle", "spguided"], config_updates=given)
    content = checkpoint.load(Path(str(run.result)))["settings"]
    assert content["unet"]["in_channels"] == 1
    assert content["unet"]["halvings"] == [1, 2]  # 12 x 28 pixels
    assert Path(str(run.result)).parent.name.startswith("Superpixel-guided_JSRT_clavicle_a0.7_b0.7_seed1234_")


def test_several_structures_train_as_classes_of_one_network(chest_folder, tmp_path):
    given = settings("tloss", chest_folder, tmp_path, n_steps=2, structures=["lung", "heart", "clavicle"])
    run = ex.run("train", named_configs=["tloss"], config_updates=given | {"dataset": "JSRT"})
    path = Path(str(run.result))
    assert checkpoint.load(path)["settings"]["unet"]["n_classes"] == 4
    assert {"train/nu_1", "train/nu_2", "train/nu_3"} <= logged(path).keys()


@pytest.mark.parametrize(
    ("word", "changes", "message"),
    [
        ("baseline", {"sizepx": 32}, "sizepx: unknown setting; did you mean size_px"),
        ("spguided", {"refine": {"patiense": 1}}, r"refine\.patiense: unknown setting; did you mean patience"),
        ("baseline", {"refine": {"patience": 1}}, "refine: unknown setting"),  # another method's
        ("baseline", {"eval_fold": 0}, "eval_fold: unknown setting"),  # the other family's
        ("baseline", {"unet": {"halvings": [6, 6]}}, "32 x 32 pixels; expected multiples of 64 and 64"),
        ("baseline", {"loss": "tlos"}, "loss='tlos': expected one of ce"),
        ("baseline", {"noise": {"alpha": 1.5, "beta": 0.7}}, r"noise\.alpha=1\.5: expected a fraction"),
        (
            "baseline",
            {"noise": {"alpha": 0.3, "beta": 0.7}},
            r"noisy/lesion/a0\.3_b0\.7.*frugalseg noise .* --alpha 0\.3 --beta 0\.7",
        ),
        ("spguided", {"superpixel": {"n_segments": 99}}, r"rgb_99_10.*frugalseg superpixels .* --n-segments 99"),
        ("baseline", {"size_px": 64}, r"\(32, 32, 3\); expected \(64, 64, 3\)\. Set size_px"),
    ],
)
def test_bad_settings_stop_with_one_clear_message(image_folder, tmp_path, word, changes, message):
    with pytest.raises(InputError, match=message):
        train(word, image_folder, tmp_path, **changes)
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(InputError, match=rf"{tmp_path}.*frugalseg prepare isic2017.*set path\.data_dir"):
        train("baseline", tmp_path, tmp_path / "logs")


@pytest.mark.parametrize(
    ("word", "file"),
    [
        ("baseline", "masks/lesion/img_13.png"),  # of a test image
        ("baseline", "noisy/lesion/a0.7_b0.7/img_04.png"),
        ("spguided", "superpixels/rgb_24_10/img_04.png"),
        ("upper", "images/img_04.png"),
    ],
)
def test_a_missing_file_is_named_before_anything_is_trained(image_folder, tmp_path, word, file):
    folder = shutil.copytree(image_folder, tmp_path / "isic")
    (folder / file).unlink()
    with pytest.raises(InputError, match=rf"{file}: is missing"):
        train(word, folder, tmp_path / "logs")
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_what_a_method_does_not_read_may_be_missing(image_folder, tmp_path):
    folder = shutil.copytree(image_folder, tmp_path / "isic")
    shutil.rmtree(folder / "superpixels")
    assert train("baseline", folder, tmp_path, n_steps=1).exists()
    shutil.rmtree(folder / "noisy")
    assert train("upper", folder, tmp_path, n_steps=1).exists()


@pytest.fixture
def stopped(make_image_folder, tmp_path):
    """A folder, and a run on it that can be resumed at step 1 of 2."""
    folder = make_image_folder(tmp_path / "isic", n_train=4, n_test=1, noise=None, superpixel=None)
    path = train("baseline", folder, tmp_path / "logs", **FEW)
    path.replace(checkpoint.previous_path(path))
    checkpoint.save(path, checkpoint.load(checkpoint.previous_path(path)) | {"step": 1})
    return folder, path


FEW = {"n_steps": 2, "noise": {"alpha": 0.0}, "eval_every": 0, "round_steps": 0}


def drop_and_invert(folder):
    table = folder / "manifest.csv"
    table.write_text(table.read_text().replace("img_01,train\n", ""))
    path = folder / "masks/lesion/img_02.png"
    write_png(path, ~read_mask(path))


def test_a_run_is_not_resumed_on_other_data_unless_asked_to(stopped, tmp_path, caplog):
    folder, path = stopped
    drop_and_invert(folder)
    told = (
        r"since its step 1 \(changed: masks/lesion/img_02\.png; gone: images/img_01\.png, line img_01 of manifest\.csv"
    )
    with pytest.raises(InputError, match=rf"checkpoint\.pt: the data have changed {told}.*accept_changed_data=True"):
        train("baseline", folder, tmp_path / "logs", **FEW)
    assert checkpoint.load(path)["step"] == 1
    assert train("baseline", folder, tmp_path / "logs", accept_changed_data=True, **FEW) == path
    assert "Accepted with accept_changed_data=True" in caplog.text
    assert checkpoint.load(path)["step"] == 2
    caplog.clear()
    train("baseline", folder, tmp_path / "logs", **FEW)  # on the data that were accepted
    assert "the data have changed" not in caplog.text


def test_the_same_data_are_the_same_whatever_their_times_and_their_place(stopped, tmp_path):
    folder, path = stopped
    moved = folder.rename(tmp_path / "moved")
    for file in moved.rglob("*.png"):
        file.touch()
    assert train("baseline", moved, tmp_path / "logs", **FEW) == path
    assert checkpoint.load(path)["step"] == 2


def test_a_finished_run_tells_of_other_data(make_image_folder, tmp_path, caplog):
    folder = make_image_folder(tmp_path / "isic", n_train=4, n_test=1, noise=None, superpixel=None)
    path = train("baseline", folder, tmp_path / "logs", **FEW)
    before = (path.read_bytes(), (path.parent / "training_data.json").read_bytes())
    drop_and_invert(folder)
    train("baseline", folder, tmp_path / "logs", **FEW)
    assert "has all its steps, and the data have changed since (changed: masks/lesion/img_02.png" in caplog.text
    assert (path.read_bytes(), (path.parent / "training_data.json").read_bytes()) == before


def test_checkpoints_without_a_record_of_the_data_are_resumed_and_said_so(stopped, tmp_path, caplog):
    folder, path = stopped
    checkpoint.save(path, {key: value for key, value in checkpoint.load(path).items() if key != "data_sha256"})
    (path.parent / "training_data.json").unlink()
    drop_and_invert(folder)
    caplog.set_level("INFO")
    train("baseline", folder, tmp_path / "logs", **FEW)
    assert "of an earlier version, which did not record the training data" in caplog.text
    assert "data_sha256" in checkpoint.load(path)


def test_what_has_changed_is_said_to_be_unknown_where_it_is(stopped, tmp_path):
    folder, path = stopped
    (path.parent / "training_data.json").write_text("{")
    drop_and_invert(folder)
    with pytest.raises(InputError, match=r"what has changed is not known, as training_data\.json is missing"):
        train("baseline", folder, tmp_path / "logs", **FEW)


def test_estimated_rates_without_rounds_are_refused(make_image_folder, tmp_path, monkeypatch):
    folder = make_image_folder(tmp_path / "isic", n_train=4, n_test=1, noise=None, superpixel=None)
    monkeypatch.setattr(DenseConfig, "spec", dataclasses.replace(DenseConfig().spec, masks="suspect"))
    with pytest.raises(InputError, match=r"round_steps=0: without rounds the remember rates are never estimated"):
        train("coteaching", folder, tmp_path / "logs", **FEW)
    given = {"selection": {"remember": [0.98, 0.93]}}
    assert train("coteaching", folder, tmp_path / "logs", **FEW, **given).exists()


def test_labels_refined_by_another_training_are_refused(image_folder, tmp_path, monkeypatch):
    train_until_killed(monkeypatch, 12, "spguided", image_folder, tmp_path)
    (note,) = tmp_path.rglob("refined_labels/1.json")
    note.write_text(json.dumps(json.loads(note.read_text()) | {"experiment": "another"}))
    with pytest.raises(InputError, match=r"1\.npy: refined by the run 'another'"):
        train("spguided", image_folder, tmp_path)
