"""Training on several sources from a download's files to tables and masks, on a tiny phantom."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nibabel.nifti1 import load

import training  # noqa: F401 - registers its command
import validation  # noqa: F401
from config_ssl_upload import InputError, ex
from data.phantom import write_phantom
from data.prepare.__main__ import main as prepare
from dataloaders.io.nifti import read_frames, read_nifti, write_nifti
from dataloaders.samples import Volume
from dataloaders.scans.manifest import Manifest
from models.predict import main as predict
from models.training.state import TrainingState
from tests.test_training_together import free_address
from util.errors import ConfigError
from util.results.scores import read_scores
from util.runtime import checkpoint

ROOT = Path(__file__).parents[1]
SIZE, N_STEPS, DIES_AT = 48, 6, 3
KILLED = ("cacps", "mixed_teacher")
SMALL = {
    **{"test_domains": ["A"], "selection": "ceil", "size_px": SIZE, "crop_px": 40, "surface_scores": False},
    **{"n_steps": N_STEPS, "batch_size": 2, "print_interval": 2, "checkpoint_every": 1, "num_workers": 0},
    **{"device": "cpu", "optim": {"lr": 1e-3}},
    "network": {"kind": "unet", "unet": {"base_features": 4, "max_features": 8, "halvings": [2, 2]}},
}
# Two processes have whole groups of batch norm; the sums of two gradients are rounded in another order than one.
TOGETHER: dict[str, Any] = {"batch_size": 4, "norm_group": 2}
ROUNDING = 2e-5


def run(command, folder, logs, method="cacps", **changes):
    paths = {"path": {"data_dir": str(folder), "log_dir": str(logs)}}
    return ex.run(command, named_configs=["mms", method], config_updates=SMALL | paths | changes).result


def train(folder, logs, method="cacps", **changes):
    return Path(str(run("train", folder, logs, method, **changes)))


def weights(path):
    return checkpoint.load(path)["method"]


def assert_same_weights(one, other):
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def train_and_die(folder, logs, method):
    """Kills its own process when the step after checkpoint `DIES_AT` has been taken, before it is saved."""
    save = TrainingState.save

    def save_or_die(self, path):
        if self.step > DIES_AT:
            os.kill(os.getpid(), signal.SIGKILL)
        save(self, path)

    TrainingState.save = save_or_die
    train(Path(folder), Path(logs), method)


def train_together(folder, logs, rank, address):
    """One of two processes."""
    os.environ.update(address, WORLD_SIZE="2", RANK=rank, LOCAL_RANK=rank)
    train(Path(folder), Path(logs), **TOGETHER)


def train_all(folder, logs, address):
    """Runs the processes of `others`, forked from this one, which must not have used threads yet."""
    fork = multiprocessing.get_context("fork").Process
    calls = [(train_and_die, (folder, f"{logs}/{method}", method)) for method in KILLED]
    calls += [(train_together, (folder, f"{logs}/together", rank, json.loads(address))) for rank in "01"]
    processes = [fork(target=function, args=arguments) for function, arguments in calls]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [*[-signal.SIGKILL] * len(KILLED), 0, 0]


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Two patients of each vendor."""
    out = tmp_path_factory.mktemp("raw")
    write_phantom("mms", out, 8, SIZE)
    return out


@pytest.fixture(scope="module")
def folder(raw, tmp_path_factory):
    """The same, prepared; tests must not change it."""
    out = tmp_path_factory.mktemp("data")
    prepare(["mms", "--raw", str(raw), "--out", str(out), "--size-px", str(SIZE)])
    return out / "MMS/prepared"


@pytest.fixture(scope="module")
def others(folder, tmp_path_factory):
    """Folder of results of killed runs, by method, and of one by two processes: "together"."""
    train(folder, tmp_path_factory.mktemp("packs"), n_steps=1)  # else all would pack the scans
    logs = tmp_path_factory.mktemp("others")
    code = "import sys; from tests.test_training_sources import train_all; train_all(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(folder), str(logs), json.dumps(free_address())]
    subprocess.run(command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"}, check=True)
    return logs


@pytest.fixture(scope="module")
def trained(folder, tmp_path_factory):
    """Folder of results of two runs, with another domain held out each, validated and collected."""
    logs = tmp_path_factory.mktemp("logs")
    for domain in "AB":
        train(folder, logs, test_domains=[domain])
        run("validate", folder, logs, test_domains=[domain])
    run("collect", folder, logs)
    return logs


def checkpoint_of(logs, domain="A"):
    (path,) = logs.glob(f"*_to-{domain}_*/checkpoint.pt")
    return path


@pytest.mark.parametrize("method", KILLED)
def test_a_killed_run_resumes_to_the_same_weights(folder, others, tmp_path, method):
    logs = shutil.copytree(others / method, tmp_path / "killed")
    assert checkpoint.load(checkpoint_of(logs))["step"] == DIES_AT
    resumed = train(folder, logs, method)
    assert checkpoint.load(resumed)["step"] == N_STEPS
    assert_same_weights(train(folder, tmp_path / "whole", method), resumed)


def test_weights_do_not_depend_on_the_number_of_workers(folder, trained, tmp_path):
    assert_same_weights(train(folder, tmp_path, num_workers=2), checkpoint_of(trained))


def test_two_processes_equal_one_with_the_whole_batch(folder, others, tmp_path):
    one = weights(train(folder, tmp_path, **TOGETHER))
    two = weights(checkpoint_of(others / "together"))
    assert one.keys() == two.keys()
    learned = [name for name in one if not name.endswith(("running_mean", "running_var", "num_batches_tracked"))]
    for name in learned:  # each process gathers statistics of its own groups
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=ROUNDING, msg=name)
    alone = weights(train(folder, tmp_path / "alone"))
    assert any((alone[name] - one[name]).abs().max() > 10 * ROUNDING for name in learned)


def test_a_changed_label_of_a_source_is_named_on_resume(folder, others, tmp_path):
    logs, changed = shutil.copytree(others / "cacps", tmp_path / "logs"), shutil.copytree(folder, tmp_path / "data")
    (scan, *_) = (name for name, each in Manifest.load(changed, "MMS").scans.items() if each["domain"] == "C")
    label = read_nifti(changed / f"label_{scan}.nii.gz")
    write_nifti(changed / f"label_{scan}.nii.gz", Volume(np.roll(label.array, 1, 2), label.affine))
    with pytest.raises(InputError, match=rf"the data have changed since its step {DIES_AT} .*label_{scan}\.nii\.gz"):
        train(changed, logs)
    tested = next(name for name, each in Manifest.load(changed, "MMS").scans.items() if each["domain"] == "A")
    shutil.copy(folder / f"label_{scan}.nii.gz", changed)
    (changed / f"label_{tested}.nii.gz").write_bytes(b"of the target: never opened in training")
    assert checkpoint.load(train(changed, logs))["step"] == N_STEPS


def test_validation_leaves_scores_tables_a_report_and_masks(raw, folder, trained):
    for domain in "AB":
        (out,) = trained.glob(f"CACPS_MMS_*_to-{domain}_*/validation/1")
        scores = read_scores(out / "scores.csv")
        assert set(scores["domain"]) == {domain}
        frames = scores[scores["structure"] != "all"]  # together they are scored as published, slice by slice
        assert set(frames["structure"]) == {"LV", "MYO", "RV"}
        assert set(frames["grid"]) == {"original"}
        assert (out / "report.html").stat().st_size > 1000
        assert "| CACPS | MMS | 2 % |" in (out / "table.md").read_text()
        masks = sorted((out / "predictions").iterdir())
        assert len(masks) == 4  # two patients, two phases
        for path in masks:
            scan = path.name.partition("_")[0]
            (source,) = raw.rglob(f"{scan}_sa.nii.gz")
            assert load(path).shape == load(source).shape[:3]
            assert np.allclose(load(path).affine, load(source).affine, atol=1e-4)  # type: ignore[arg-type]


def test_runs_of_several_domains_are_collected_in_one_table(trained):
    lines = (trained / "table.md").read_text().splitlines()
    assert lines[0].startswith("| Method | Dataset | Labelled | Hist match | A | B | Mean |")
    (line,) = [line for line in lines if line.startswith("| CACPS | MMS | 2 % |")][:1]
    assert line.count("|") == lines[0].count("|")


def test_prediction_from_the_raw_scan_equals_validation(raw, folder, trained, tmp_path):
    scans = {name: each for name, each in Manifest.load(folder, "MMS").scans.items() if each["domain"] == "A"}
    files = [str(next(raw.rglob(f"{scan}_sa.nii.gz"))) for scan in scans]
    given = ["--checkpoint", str(checkpoint_of(trained)), "--out", str(tmp_path), "--device", "cpu"]
    assert predict([*given, "--scans", *files]) == 0
    (masks,) = trained.glob("*_to-A_*/validation/1/predictions")
    for scan, entry in scans.items():
        frames = read_frames(tmp_path / f"{scan}_sa_segmentation.nii.gz")
        assert len(frames) == entry["frames"]
        for frame, phase in entry["labelled_frames"].items():
            written = read_nifti(masks / f"{scan}_{phase}_segmentation.nii.gz").array
            np.testing.assert_array_equal(frames[int(frame)].array, written)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_domains": ["A", "B"]}, "'A' is in both; expected a domain that is tested not to be seen"),
        ({"test_domains": ["E"]}, r"test_domains has 'E'; expected some of A, B, C, D"),
        ({"train_domains": ["B", "X"]}, r"train_domains has 'X'; expected some of A, B, C, D"),
        ({"crop_px": SIZE + 8}, rf"crop_px={SIZE + 8}: larger than the prepared slices, {SIZE} px"),
        ({"size_px": 64}, rf"slices of {SIZE} px; expected 64. Set size_px to what was prepared"),
        ({"labelled_fraction": 0.0}, "labelled_fraction"),
    ],
)
def test_settings_that_do_not_fit_are_explained_before_training(folder, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        train(folder, tmp_path, **changes)
    assert not list(tmp_path.rglob("checkpoint.pt"))


def test_a_source_without_labelled_patient_is_named(folder, tmp_path):
    changed = shutil.copytree(folder, tmp_path / "data")
    manifest = Manifest.load(changed, "MMS")
    for scan, entry in manifest.scans.items():
        if entry["domain"] == "C":
            entry["labelled_frames"] = {}
            (changed / f"label_{scan}.nii.gz").unlink()
    manifest.save(changed)
    with pytest.raises(InputError, match="the source domain C has no labelled patient"):
        train(changed, tmp_path / "logs")
    train(changed, tmp_path / "logs", train_domains=["B", "D"], n_steps=1)
    with pytest.raises(InputError, match="no scan of the tested domain C has a label"):
        run("validate", changed, tmp_path / "logs", test_domains=["C"], reload_model_path="none")


def test_validation_needs_a_tested_domain(folder, tmp_path):
    with pytest.raises(InputError, match=r"no domain is tested; set test_domains to some of A, B, C, D"):
        run("validate", folder, tmp_path, test_domains=[], reload_model_path="none")


def test_prediction_takes_no_annotated_scan(trained, tmp_path):
    given = ["--checkpoint", str(checkpoint_of(trained)), "--out", str(tmp_path), "--scans", str(tmp_path)]
    with pytest.raises(ConfigError, match=r"^--support-image: not for .*several sources"):
        predict([*given, "--support-image", "A.nii.gz"])
