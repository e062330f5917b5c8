import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import training  # noqa: F401 - registers the command
from config_ssl_upload import InputError, ex
from util.results.report.record import read_record
from util.runtime import checkpoint

ROOT = Path(__file__).parents[1]
SMALL = {
    "modelname": "resnet18",
    "encoder_weights": "none",
    "n_steps": 6,
    "print_interval": 2,
    "checkpoint_every": 3,
    "num_workers": 0,
    "device": "cpu",
    "proto_grid_size": 4,
    "label_sets": "all",
}


def settings(folder, logs, **changes):
    paths = {"data_dir": str(folder), "log_dir": str(logs)} | changes.pop("path", {})
    return SMALL | changes | {"path": paths}


def train(folder, logs, *named, **changes):
    run = ex.run("train", named_configs=["alpnet", "chaost2", *named], config_updates=settings(folder, logs, **changes))
    return Path(str(run.result))


def command_line(folder, logs, **changes):
    flat = settings(folder, logs, **changes)
    paths = flat.pop("path")
    updates = [f"{key}={value}" for key, value in flat.items()] + [f"path.{k}={v}" for k, v in paths.items()]
    return [sys.executable, "training.py", "with", "alpnet", "chaost2", *updates]


def weights(path):
    return checkpoint.load(path)["method"]


def assert_same_weights(one, other):
    for name, tensor in weights(one).items():
        assert torch.equal(tensor, weights(other)[name]), name


@pytest.fixture(scope="module")
def unbroken(prepared_folder, tmp_path_factory):
    """An uninterrupted run of 40 steps."""
    return train(prepared_folder, tmp_path_factory.mktemp("unbroken"), n_steps=40)


# Relative tolerances of the recorded losses, per step. They grow, for processors round differently: sooner or later the
# rounding of one flips a ReLU, and from there on their losses drift apart, about twofold per step. Later a pixel of the
# predicted mask flips too, and `align` jumps: it is compared up to step 13.
GROWING = [min(0.2, 5e-5 * 2.2 ** max(0, step - 5)) for step in range(1, 21)]
TOLERANCES = {
    "running statistics": {"query_ce": GROWING, "align": GROWING[:13]},
    "batch statistics": {"query_ce": [2e-4, 2e-4, 1e-3, 1e-2], "align": [2e-4, 2e-4, 1e-3, 1e-2]},
}


@pytest.mark.parametrize("statistics", ["running statistics", "batch statistics"])
def test_the_losses_are_the_recorded_ones(prepared_folder, tmp_path, statistics):
    """Twenty steps; four where the batch norm sees two images of 64 px, because rounding then grows tenfold a step.

    The tolerances are about four times the largest deviation, or more. It was measured with instruction sets from
    SSE4.1 to AVX-512, without oneDNN, with one and two threads, and with weights disturbed by 1e-7 in every step.
    Running statistics: 5e-6 in steps 1 to 5, 6e-5 in step 7, 3e-4 in 9, 8e-4 in 11, 1.3e-3 in 13; 0.04 of
    `query_ce` in 18 (of `align`: 0.5 in step 14). Batch statistics: 4e-6, 3e-6, 2e-4 and 2e-3.
    """
    golden = json.loads((ROOT / "tests/golden/fewshot/alpnet_losses.json").read_text())[statistics]
    n_steps = len(golden["align"])
    is_frozen = statistics == "running statistics"
    path = train(prepared_folder, tmp_path, n_steps=n_steps, print_interval=1, freeze_batch_norm=is_frozen)
    metrics = json.loads((path.parent / "runs" / "1" / "metrics.json").read_text())
    for name, values in golden.items():
        found, tolerances = metrics[f"train/{name}"]["values"], TOLERANCES[statistics][name]
        assert len(found) == n_steps
        expected = [pytest.approx(value, rel=rel) for value, rel in zip(values, tolerances, strict=False)]
        assert found[: len(expected)] == expected, name
    assert metrics["loss"]["values"] == metrics["train/query_ce"]["values"]  # the reference's names
    assert metrics["align_loss"]["steps"] == list(range(1, n_steps + 1))


def test_kill_and_resume_gives_the_same_weights(prepared_folder, tmp_path, unbroken):
    command = command_line(prepared_folder, tmp_path, n_steps=40)
    kills = 0
    for _ in range(2):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        before = {path.stat().st_mtime_ns for path in tmp_path.rglob("checkpoint.pt")}
        while process.poll() is None and {p.stat().st_mtime_ns for p in tmp_path.rglob("checkpoint.pt")} <= before:
            time.sleep(0.02)
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        process.communicate()
    (path,) = tmp_path.rglob("checkpoint.pt")
    assert kills == 2
    assert 0 < checkpoint.load(path)["step"] < 40
    assert train(prepared_folder, tmp_path, n_steps=40) == path
    assert_same_weights(path, unbroken)


def test_signals_to_all_processes_save_and_resume_gives_the_same_weights(prepared_folder, tmp_path, unbroken):
    """With loader processes: while the data are opened, as training begins, and while the process ends."""
    moments = ("Started", "training on scans", "the same command resumes")
    command = command_line(prepared_folder, tmp_path, n_steps=40, checkpoint_every=1000, num_workers=2)
    lines = []
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        for line in process.stderr or ():
            lines.append(line)
            if any(moment in line for moment in moments):
                os.killpg(process.pid, signal.SIGTERM)
    assert process.returncode == os.EX_TEMPFAIL, "".join(lines)
    assert "the same command resumes" in "".join(lines)
    (path,) = tmp_path.rglob("checkpoint.pt")
    assert checkpoint.load(path)["step"] < 40
    train(prepared_folder, tmp_path, n_steps=40, checkpoint_every=1000)
    assert_same_weights(path, unbroken)


def test_a_damaged_checkpoint_is_reported_and_the_previous_one_resumed(prepared_folder, tmp_path, unbroken, caplog):
    path = train(prepared_folder, tmp_path, n_steps=40)
    damaged = bytearray(path.read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 1000] = bytes(1000)
    path.write_bytes(damaged)
    assert checkpoint.load(checkpoint.previous_path(path))["step"] == 39
    train(prepared_folder, tmp_path, n_steps=40)
    assert "checkpoint.pt: damaged" in caplog.text
    assert_same_weights(path, unbroken)


def test_determinism_of_weights_across_workers(prepared_folder, tmp_path):
    alone = train(prepared_folder, tmp_path / "a")
    assert_same_weights(alone, train(prepared_folder, tmp_path / "b", num_workers=2))


def test_a_checkpoint_of_another_experiment_is_refused_with_what_differs(prepared_folder, tmp_path):
    path = train(prepared_folder, tmp_path, n_steps=1)
    state = checkpoint.load(path)
    state["settings"] |= {"proto_grid_size": 8, "seed": 7, "num_workers": 5}
    checkpoint.save(path, state)
    with pytest.raises(InputError, match=r"another run \(proto_grid_size: 8 there, 4 here; seed: 7 there, 1234"):
        train(prepared_folder, tmp_path, n_steps=1)
    assert checkpoint.load(path)["settings"]["seed"] == 7


def test_the_learning_rate_follows_its_schedule(prepared_folder, tmp_path):
    still = {"optim": {"step_every": 2, "step_gamma": 0.0}}  # nothing moves after the second step
    two, five = (train(prepared_folder, tmp_path, n_steps=n, **still) for n in (2, 5))
    name = "encoder.localconv.weight"
    assert torch.equal(weights(two)[name], weights(five)[name])
    moving = train(prepared_folder, tmp_path, n_steps=5)
    assert not torch.equal(weights(two)[name], weights(moving)[name])


def test_a_finished_run_is_left_alone(prepared_folder, tmp_path, caplog):
    path = train(prepared_folder, tmp_path)
    before = path.stat().st_mtime_ns
    caplog.set_level("INFO")
    assert train(prepared_folder, tmp_path) == path
    assert path.stat().st_mtime_ns == before
    assert "nothing to do" in caplog.text


def test_a_resumed_run_has_the_complete_record_once(prepared_folder, tmp_path):
    path = train(prepared_folder, tmp_path, n_steps=6, print_interval=2)
    state = checkpoint.load(checkpoint.previous_path(path))
    assert state["step"] == 3
    checkpoint.save(path, state)
    train(prepared_folder, tmp_path, n_steps=6, print_interval=2)
    first, second = (json.loads((path.parent / "runs" / n / "metrics.json").read_text()) for n in ("1", "2"))
    assert second["loss"]["steps"] == [2, 4, 6]
    assert second["loss"]["values"] == first["loss"]["values"]


def test_a_resumed_run_continues_its_picture(prepared_folder, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("util.results.progress.save_curves", lambda path, curves, title: drawn.append((curves, title)))
    path = train(prepared_folder, tmp_path)
    checkpoint.save(path, checkpoint.load(checkpoint.previous_path(path)))
    train(prepared_folder, tmp_path)
    (whole, title), (resumed, again) = drawn
    assert whole == resumed
    assert whole["train/loss"][0] == [2, 4, 6]
    assert title == again
    assert title.startswith("SSL-ALPNet on CHAOST2\nstep 6 of 6")


def test_the_picture_is_drawn_while_training_runs_and_does_not_stop_it(prepared_folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("util.results.progress.SHORTEST_WAIT_S", 0.0)
    titles = []

    def fails(path, curves, title):
        titles.append(title)
        raise OverflowError("too large")

    monkeypatch.setattr("util.results.progress.save_curves", fails)
    monkeypatch.setattr("util.results.progress.LARGEST_SHARE", 1e9)
    assert checkpoint.load(train(prepared_folder, tmp_path))["step"] == 6
    assert [title.partition(" of 6")[0][-6:] for title in titles] == [f"step {n}" for n in (2, 3, 4, 5, 6, 6)]
    assert caplog.text.count("progress.png: left out, the scores are not affected") == 6


@pytest.mark.parametrize("named", ["panet", "ssl_panet", "alpnet_annotated", "setting2"])
def test_every_named_configuration_trains(prepared_folder, tmp_path, named):
    path = train(prepared_folder, tmp_path, named, n_steps=2, label_sets=0)
    expected = {"panet": "PANet", "ssl_panet": "SSL-PANet", "alpnet_annotated": "ALPNet", "setting2": "SSL-ALPNet"}
    assert path.parent.name.startswith(f"{expected[named]}_CHAOST2")
    excluded = checkpoint.load(path)["settings"]["exclude_cls_list"]
    assert excluded == ([2, 3] if named == "setting2" else [])


def test_snapshots_and_curves_are_written(prepared_folder, tmp_path):
    path = train(prepared_folder, tmp_path, save_snapshot_every=4, eval_every=6, ema={"decay": 0.5, "every": 2})
    snapshot = checkpoint.load(path.parent / "snapshots" / "4.pth")
    assert snapshot["step"] == 4
    assert "optimisers" not in snapshot
    assert not torch.equal(snapshot["method"]["encoder.localconv.weight"], snapshot["ema"]["encoder.localconv.weight"])
    metrics = json.loads((path.parent / "runs" / "1" / "metrics.json").read_text())
    assert metrics["val/dice/liver"]["steps"] == [6]
    assert metrics["train/lr"] | {"timestamps": []} == {"steps": [2, 4, 6], "values": [1e-3] * 3, "timestamps": []}
    assert (path.parent / "progress.png").read_bytes().startswith(b"\x89PNG")
    record = read_record(path.parent)
    assert record is not None
    assert record.curves == {"training": "progress.png"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_step": 3}, "n_step: unknown setting; did you mean n_steps"),
        ({"optim": {"lrr": 1}}, r"optim\.lrr: unknown setting; did you mean lr"),
        ({"n_steps": "many"}, r"n_steps='many' \(str\): expected int"),
        ({"method": "alpnett"}, "expected one of alpnet, propagation, self_training, registration, threshold"),
        ({"dataset": "CHAOS3"}, "expected one of CHAOST2, MMS, SABS, SCGM"),
        ({"eval_fold": 7}, "expected 0 to 4"),
        ({"checkpoint_every": 0}, "checkpoint_every=0: expected 1 or more"),
        ({"ema": {"every": 0}}, r"ema\.every=0: expected 1 or more"),
        ({"temperature": 50.0}, r"temperature=50\.0: expected a value above 0, up to 40"),
        ({"encoder_weights": "nowhere.pt"}, "coco, imagenet, package, none, or an existing file"),
        ({"path": {"data_dir": "/nowhere"}}, r"/nowhere.*frugalseg prepare"),
        ({"exclude_cls_list": [1, 2, 3, 4, 5]}, "no classes of CHAOST2"),
    ],
)
def test_bad_settings_stop_with_one_clear_message(prepared_folder, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train(prepared_folder, tmp_path, **changes)
    assert not list(tmp_path.iterdir())  # no empty experiment


def test_features_too_few_for_the_grid_stop_the_first_step(prepared_folder, tmp_path):
    with pytest.raises(InputError, match="give only 8 features"):
        train(prepared_folder, tmp_path, proto_grid_size=64)
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_a_method_without_training_is_sent_to_validation(prepared_folder, tmp_path):
    paths = {"path": {"data_dir": str(prepared_folder), "log_dir": str(tmp_path)}}
    with pytest.raises(InputError, match=r"nothing to train; run `frugalseg validate`"):
        ex.run("train", named_configs=["threshold", "chaost2"], config_updates=paths)


@pytest.mark.parametrize("obstacle", ["file in the way", "full disk"])
def test_an_output_folder_that_cannot_be_written_to_is_named_before_training(
    prepared_folder, tmp_path, monkeypatch, obstacle
):
    logs = tmp_path / "logs"
    if obstacle == "full disk":
        monkeypatch.setattr("os.fsync", Full())
    else:
        logs.write_text("")
    with pytest.raises(InputError, match=r"logs.*cannot be written.*choose another output folder"):
        train(prepared_folder, logs)


def test_a_disk_that_fills_up_leaves_the_last_checkpoint_intact(prepared_folder, tmp_path, monkeypatch):
    path = train(prepared_folder, tmp_path, n_steps=3)
    monkeypatch.setattr("torch.save", Full())
    with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be written \(No space left"):
        train(prepared_folder, tmp_path, n_steps=3, checkpoint_every=1, seed=2)
    assert checkpoint.load(path)["step"] == 3


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_scratch_disk_that_vanishes(prepared_folder, tmp_path, monkeypatch, is_replaced):
    logs, save = tmp_path / "scratch" / "logs", checkpoint.save

    def vanish_and_save(path, content, **options):
        if content["step"] == 2:
            shutil.rmtree(tmp_path / "scratch")
            if is_replaced:
                (tmp_path / "scratch").write_text("no folder any more")
        save(path, content, **options)

    monkeypatch.setattr(checkpoint, "save", vanish_and_save)
    if is_replaced:
        with pytest.raises(InputError, match=r"checkpoint\.pt: cannot be written .*choose another output folder"):
            train(prepared_folder, logs, n_steps=3, checkpoint_every=1)
    else:  # it is there again, empty
        assert checkpoint.load(train(prepared_folder, logs, n_steps=3, checkpoint_every=1))["step"] == 3


class Full:
    """A disk without room."""

    def __call__(self, *_):
        raise OSError(28, "No space left on device")


def test_a_loss_that_is_not_finite_stops_the_run_and_spares_the_checkpoint(prepared_folder, tmp_path):
    path = train(prepared_folder, tmp_path, n_steps=3)
    with pytest.raises(InputError, match=r"not finite between steps .*lower optim\.lr"):
        train(prepared_folder, tmp_path / "hot", optim={"lr": 1e18}, n_steps=30)
    assert all(tensor.isfinite().all() for tensor in weights(path).values())
    assert not list((tmp_path / "hot").rglob("checkpoint.pt"))
    rare = {"print_interval": 1000, "checkpoint_every": 1000, "save_snapshot_every": 5}
    with pytest.raises(InputError, match="not finite"):
        train(prepared_folder, tmp_path / "hot", optim={"lr": 1e18}, n_steps=30, **rare)
    assert not list((tmp_path / "hot").rglob("*.pth"))


def test_the_command_line_prints_the_message_alone(tmp_path):
    command = command_line(tmp_path, tmp_path / "logs", eval_fold=0)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Run `frugalseg prepare CHAOST2 --raw DIR --out DIR`" in done.stderr
    assert "Traceback" not in done.stderr
