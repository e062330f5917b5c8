"""Frontier's job script on nodes configured like Frontier's, with stubs of training.py and validation.py."""

import json
import re
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "launch"
# Stubs of the site's shell functions that log their calls.
FUNCTIONS = {
    "BASH_FUNC_module%%": '() { echo "module $*" >> "$CALLS"; export CRAY_LD_LIBRARY_PATH=/opt/cray/lib; }',
    "BASH_FUNC_conda%%": '() { echo "conda $*" >> "$CALLS"; }',
}
ENTRY = """\
import json, os, sys
from pathlib import Path
name = f"{Path(sys.argv[0]).stem}-{os.environ['SLURM_JOB_ID']}-{os.environ['SLURM_PROCID']}"
Path("seen", name).write_text(json.dumps({"settings": sys.argv[1:], "variables": dict(os.environ)}))
"""


@pytest.fixture
def checkout(tmp_path):
    """A repository with stubs of training.py and validation.py that write arguments and environment to `seen`."""
    for name in ("training.py", "validation.py"):
        (tmp_path / name).write_text(ENTRY)
    for name in ("util", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "seen").mkdir()
    return tmp_path


def launch(slurm, checkout, *options):
    """Submits a job; returns its id."""
    site = ["--site", str(slurm.adapt(EXAMPLES / "sites" / "frontier.toml"))]
    site += ["--account", "ABC123", "--environment", "/env", "--scratch", str(checkout / "nvme")]
    command = [sys.executable, "-m", "util.launch", *site, "--submit", *options]
    path = f"{Path(sys.executable).parent}:{slurm.environment['PATH']}"
    variables = FUNCTIONS | {"CALLS": str(checkout / "calls"), "PATH": path}
    return re.findall(r"is job (\d+)", slurm.call(*command, folder=checkout, **variables))[0]


def read_seen(checkout, name):
    return [json.loads(path.read_text()) for path in sorted((checkout / "seen").glob(f"{name}-*"))]


def test_independent_runs_fill_the_nodes(slurm, checkout):
    sweep = ["--sweep", "eval_fold=0,1,2,3,4", "label_sets=0,1", "--", "alpnet", "chaost2", "exclude_cls_list=[2,3]"]
    job = launch(slurm, checkout, "--mode", "runs", *sweep)
    ends = slurm.wait(job, "COMPLETED", "FAILED", "CANCELLED")
    assert [one["JobState"] for one in ends] == ["COMPLETED"] * 2, slurm.output(checkout / "exps")
    training_runs = read_seen(checkout, "training")
    given = {tuple(one["settings"][-2:]) for one in training_runs}
    assert len(training_runs) == 10
    assert given == {(f"eval_fold={fold}", f"label_sets={group}") for fold in range(5) for group in range(2)}
    assert training_runs[0]["settings"][:-2] == ["with", "alpnet", "chaost2", "exclude_cls_list=[2,3]"]
    assert sorted(one["settings"] for one in read_seen(checkout, "validation")) == sorted(
        one["settings"] for one in training_runs
    )
    for one in training_runs:
        variables = one["variables"]
        assert (variables["RANK"], variables["WORLD_SIZE"]) == ("0", "1")
        assert variables["LOCAL_RANK"] == variables["SLURM_LOCALID"]
        assert "MASTER_ADDR" not in variables
        assert Path(variables["MIOPEN_USER_DB_PATH"]).is_dir()
        assert variables["MIOPEN_USER_DB_PATH"].endswith(f"nvme/miopen-{variables['SLURM_JOB_ID']}")
        assert variables["LD_LIBRARY_PATH"].startswith("/opt/cray/lib:")
    assert len({one["variables"]["MIOPEN_USER_DB_PATH"] for one in training_runs}) == 2
    modules = tomllib.loads((EXAMPLES / "sites" / "frontier.toml").read_text())["modules"]
    calls = Counter((checkout / "calls").read_text().splitlines())
    assert calls == Counter(2 * [*(f"module load {module}" for module in modules), "conda activate /env"])


def test_a_list_of_runs_is_resumed(slurm, checkout):
    (checkout / "my.runs").write_text("alpnet eval_fold=0\n--validate-only threshold eval_fold=0\n")
    options = ["--mode", "runs", "--runs", "my.runs", "--finished", "exps/finished", "--", "seed=1"]
    for _ in range(2):  # the second job finds nothing to do
        ends = slurm.wait(launch(slurm, checkout, *options), "COMPLETED", "FAILED", "CANCELLED")
        assert [one["JobState"] for one in ends] == ["COMPLETED"], slurm.output(checkout / "exps")
    trained, validated = ([one["settings"] for one in read_seen(checkout, name)] for name in ("training", "validation"))
    assert trained == [["with", "seed=1", "alpnet", "eval_fold=0"]]
    assert sorted(validated) == [*trained, ["with", "seed=1", "threshold", "eval_fold=0"]]
    assert len(list((checkout / "exps/finished").iterdir())) == 2


def test_a_distributed_run_has_a_process_per_gpu_on_all_nodes(slurm, checkout):
    job = launch(slurm, checkout, "--mode", "one", "--nodes", "2", "--", "alpnet", "sabs")
    (end,) = slurm.wait(job, "COMPLETED", "FAILED")
    assert end["JobState"] == "COMPLETED", slurm.output(checkout / "exps")
    ranks = [one["variables"] for one in read_seen(checkout, "training")]
    assert {int(rank["SLURM_PROCID"]) for rank in ranks} == set(range(16))
    assert {rank["SLURM_STEP_NUM_TASKS"] for rank in ranks} == {"16"}
    assert {rank["MASTER_PORT"] for rank in ranks} == {"3442"}
    assert len({rank["MASTER_ADDR"] for rank in ranks} - {""}) == 1
    assert [one["variables"]["SLURM_STEP_NUM_TASKS"] for one in read_seen(checkout, "validation")] == ["1"]


@pytest.mark.parametrize("name", ["slurm.sbatch", "frontier.sbatch"])
def test_slurm_accepts_the_examples(slurm, name):
    slurm.call("sbatch", "--test-only", str(slurm.adapt(EXAMPLES / name)))


def test_the_cluster_listens_on_localhost_only(slurm):
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = [line.split()[1].split(":") for line in lines if line.split()[3] == "0A"]
    ours = [address for address, port in listening if slurm.port <= int(port, 16) < slurm.port + 200]
    assert len(ours) == 5
    assert set(ours) == {"0100007F"}  # 127.0.0.1
