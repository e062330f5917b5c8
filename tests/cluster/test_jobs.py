"""Job scripts on a local Slurm cluster: arrays, dependencies, requeueing, process groups."""

import re
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import training  # noqa: F401 - registers the command
from config_ssl_upload import ex
from util.runtime import checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
N_STEPS = 80
TINY = {
    "modelname": "resnet18",
    "encoder_weights": "none",
    "n_steps": N_STEPS,
    "checkpoint_every": 1000,
    "num_workers": 2,
    "device": "cpu",
    "proto_grid_size": 4,
    "label_sets": "all",
    "surface_scores": False,
    "save_predictions": False,
}


@contextmanager
def one_thread():
    """Uses as many threads as the jobs, because the number of threads determines the order of sums on a CPU."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@one_thread()
def train_here(folder, logs, **changes):
    paths = {"path": {"data_dir": str(folder), "log_dir": str(logs)}}
    nested = {"optim": {"lr": changes.pop("optim.lr")}} if "optim.lr" in changes else {}
    run = ex.run("train", named_configs=["alpnet", "chaost2"], config_updates=TINY | paths | changes | nested)
    return Path(str(run.result))


def settings(folder, logs, **changes):
    values = TINY | {"path.data_dir": folder, "path.log_dir": logs} | changes
    return ["--", "alpnet", "chaost2", *(f"{key}={value}" for key, value in values.items())]


def launch(slurm, *options):
    """Submits with the command line; returns its output."""
    site = str(slurm.adapt(ROOT / "examples" / "launch" / "sites" / "nvidia.toml"))
    command = [sys.executable, "-m", "util.launch", "--site", site, "--environment", sys.prefix, "--submit"]
    return slurm.call(*command, "--time", "00:10:00", *options)


def job_ids(printed):
    return re.findall(r"is job (\d+)", printed)


def weights(path):
    return checkpoint.load(path)["method"]


@pytest.fixture(scope="session")
def uninterrupted(prepared_folder, tmp_path_factory):
    """Weights of an uninterrupted run."""
    return weights(train_here(prepared_folder, tmp_path_factory.mktemp("uninterrupted")))


@pytest.fixture
def running(slurm, prepared_folder, tmp_path):
    """A job in the middle of its run: its id and folder."""
    (job,) = job_ids(
        launch(slurm, "--mode", "runs", "--train-only", *settings(prepared_folder, tmp_path, checkpoint_every=10))
    )
    slurm.wait(job, "RUNNING")
    slurm.wait_until(lambda: list(tmp_path.rglob("checkpoint.pt")), "the first checkpoint")
    return job, tmp_path


def finish(slurm, job, logs, uninterrupted):
    """Waits for the end of a job; checks that it was requeued once and has the weights of an uninterrupted run."""
    (end,) = slurm.wait(job, "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "1"), slurm.output(logs)
    text = slurm.output(logs)
    first, second = (int(step) for step in re.findall(r"from step (\d+);", text))
    assert first == 0 < second < N_STEPS, text
    (path,) = logs.rglob("checkpoint.pt")
    for name, tensor in weights(path).items():
        assert torch.equal(tensor, uninterrupted[name]), name
    return text


def test_usr1_saves_requeues_and_resumes(slurm, running, uninterrupted):
    job, logs = running
    slurm.call("scancel", "--signal=USR1", job)
    assert "stopped by signal 10" in finish(slurm, job, logs, uninterrupted)


def test_a_preempted_job_is_requeued_and_resumes(slurm, running, uninterrupted):
    job, logs = running
    urgent = ["--partition=urgent", "--exclusive", "--nodes=2", "--output=/dev/null"]
    slurm.call("sbatch", *urgent, "--wrap", "sleep 1")
    assert "stopped by signal 15" in finish(slurm, job, logs, uninterrupted)


def test_a_job_resumes_from_the_last_checkpoint_after_a_node_failure(slurm, running, uninterrupted):
    job, logs = running
    node = slurm.jobs(job)[0]["BatchHost"]
    slurm.kill_node(node, job)
    try:
        assert "stopped by signal" not in finish(slurm, job, logs, uninterrupted)
    finally:
        slurm.start_node(node)


def test_a_cancelled_job_is_not_requeued(slurm, running):
    job, logs = running
    slurm.call("scancel", job)
    (end,) = slurm.wait(job, "CANCELLED")
    assert (end["JobState"], end["Restarts"]) == ("CANCELLED", "0")
    slurm.wait_until(lambda: "stopped by signal 15" in slurm.output(logs), "the message about the signal")


def test_an_array_of_runs_and_their_table(slurm, prepared_folder, tmp_path):
    logs = tmp_path / "with space"
    printed = launch(
        slurm, "--mode", "runs", "--collect", "--sweep", "seed=1,2", *settings(prepared_folder, logs, n_steps=2)
    )
    array, collect = job_ids(printed)
    assert {one["Dependency"] for one in slurm.jobs(collect)} == {f"afterok:{array}_*(unfulfilled)"}
    (end,) = slurm.wait(collect, "COMPLETED", "FAILED", "CANCELLED")
    assert end["JobState"] == "COMPLETED", slurm.output(logs)
    assert {one["ArrayTaskId"]: one["ExitCode"] for one in slurm.jobs(array)} == {"0": "0:0", "1": "0:0"}
    runs = sorted(path.parent for path in logs.rglob("checkpoint.pt"))
    assert [re.findall(r"seed\d", run.name) for run in runs] == [["seed1"], ["seed2"]]
    assert all((run / "validation" / "1" / "scores.csv").exists() for run in runs)
    assert "mean over folds and seeds" in (logs / "table.md").read_text()


def test_a_requeued_run_on_two_nodes_equals_a_single_process(slurm, prepared_folder, tmp_path):
    frozen = {"freeze_batch_norm": True, "checkpoint_every": 5, "n_steps": 40, "optim.lr": 1e-4}
    options = ("--mode", "one", "--nodes", "2", "--gpus-per-node", "1", "--train-only")
    (job,) = job_ids(launch(slurm, *options, *settings(prepared_folder, tmp_path / "two", batch_size=2, **frozen)))
    slurm.wait_until(lambda: list(tmp_path.rglob("checkpoint.pt")), "the first checkpoint")
    slurm.call("scancel", "--signal=USR1", job)
    (end,) = slurm.wait(job, "COMPLETED", "FAILED")
    assert (end["JobState"], end["Restarts"]) == ("COMPLETED", "1"), slurm.output(tmp_path / "two")
    one = weights(train_here(prepared_folder, tmp_path / "one", batch_size=2, **frozen))
    two = weights(next((tmp_path / "two").rglob("checkpoint.pt")))
    for name, tensor in one.items():
        # A tenth of what weights move; processors round apart.
        torch.testing.assert_close(tensor, two[name], rtol=1e-4, atol=4e-5)
    assert len(list((tmp_path / "two").rglob("metrics.json"))) == 2  # one per start; only rank 0 logs
