"""Frontier's job script on nodes of Frontier's shape, with a training that only writes down where it is."""

import json
import re
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples" / "launch"
# What the site's login shells bring along; each writes down how it was called.
FUNCTIONS = {
    "BASH_FUNC_module%%": '() { echo "module $*" >> "$CALLS"; export CRAY_LD_LIBRARY_PATH=/opt/cray/lib; }',
    "BASH_FUNC_conda%%": '() { echo "conda $*" >> "$CALLS"; }',
}
ENTRY = """\
import json, os, sys
from pathlib import Path
place = f"{Path(sys.argv[0]).stem}-{os.environ['SLURM_JOB_ID']}-{os.environ['SLURM_PROCID']}"
Path("seen", place).write_text(json.dumps({"words": sys.argv[1:], "variables": dict(os.environ)}))
"""


@pytest.fixture
def checkout(tmp_path):
    """A repository whose training and validation do nothing but leave their words and variables in `seen`."""
    for name in ("training.py", "validation.py"):
        (tmp_path / name).write_text(ENTRY)
    for name in ("util", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "seen").mkdir()
    return tmp_path


def launch(slurm, checkout, *options):
    """Submits; returns the job's number and its environment."""
    site = ["--site", str(slurm.fitting(EXAMPLES / "sites" / "frontier.toml"))]
    site += ["--account", "ABC123", "--environment", "/env", "--scratch", str(checkout / "nvme")]
    command = [sys.executable, "-m", "util.launch", *site, "--submit", *options]
    path = f"{Path(sys.executable).parent}:{slurm.environment['PATH']}"
    variables = FUNCTIONS | {"CALLS": str(checkout / "calls"), "PATH": path}
    return re.findall(r"is job (\d+)", slurm.call(*command, folder=checkout, **variables))[0]


def seen(checkout, name):
    return [json.loads(path.read_text()) for path in sorted((checkout / "seen").glob(f"{name}-*"))]


def test_independent_runs_fill_the_nodes(slurm, checkout):
    sweep = ["--sweep", "eval_fold=0,1,2,3,4", "label_sets=0,1", "--", "alpnet", "chaost2", "exclude_cls_list=[2,3]"]
    job = launch(slurm, checkout, "--mode", "runs", *sweep)
    ends = slurm.wait(job, "COMPLETED", "FAILED", "CANCELLED")
    assert [one["JobState"] for one in ends] == ["COMPLETED"] * 2, slurm.output(checkout / "exps")
    trainings = seen(checkout, "training")
    given = {tuple(one["words"][-2:]) for one in trainings}
    assert len(trainings) == 10
    assert given == {(f"eval_fold={fold}", f"label_sets={group}") for fold in range(5) for group in range(2)}
    assert trainings[0]["words"][:-2] == ["with", "alpnet", "chaost2", "exclude_cls_list=[2,3]"]
    assert sorted(one["words"] for one in seen(checkout, "validation")) == sorted(one["words"] for one in trainings)
    for one in trainings:
        variables = one["variables"]
        assert (variables["RANK"], variables["WORLD_SIZE"]) == ("0", "1")
        assert variables["LOCAL_RANK"] == variables["SLURM_LOCALID"]
        assert "MASTER_ADDR" not in variables
        assert Path(variables["MIOPEN_USER_DB_PATH"]).is_dir()
        assert variables["MIOPEN_USER_DB_PATH"].endswith(f"nvme/miopen-{variables['SLURM_JOB_ID']}")
        assert variables["LD_LIBRARY_PATH"].startswith("/opt/cray/lib:")
    assert len({one["variables"]["MIOPEN_USER_DB_PATH"] for one in trainings}) == 2
    modules = tomllib.loads((EXAMPLES / "sites" / "frontier.toml").read_text())["modules"]
    calls = Counter((checkout / "calls").read_text().splitlines())
    assert calls == Counter(2 * [*(f"module load {module}" for module in modules), "conda activate /env"])


def test_one_training_has_a_process_per_gpu_on_all_nodes(slurm, checkout):
    job = launch(slurm, checkout, "--mode", "one", "--nodes", "2", "--", "alpnet", "sabs")
    (end,) = slurm.wait(job, "COMPLETED", "FAILED")
    assert end["JobState"] == "COMPLETED", slurm.output(checkout / "exps")
    places = [one["variables"] for one in seen(checkout, "training")]
    assert {int(place["SLURM_PROCID"]) for place in places} == set(range(16))
    assert {place["SLURM_STEP_NUM_TASKS"] for place in places} == {"16"}
    assert {place["MASTER_PORT"] for place in places} == {"3442"}
    assert len({place["MASTER_ADDR"] for place in places} - {""}) == 1
    assert [one["variables"]["SLURM_STEP_NUM_TASKS"] for one in seen(checkout, "validation")] == ["1"]


@pytest.mark.parametrize("name", ["slurm.sbatch", "frontier.sbatch"])
def test_slurm_accepts_the_examples(slurm, name):
    slurm.call("sbatch", "--test-only", str(slurm.fitting(EXAMPLES / name)))


def test_the_cluster_listens_on_this_machine_only(slurm):
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    listening = [line.split()[1].split(":") for line in lines if line.split()[3] == "0A"]
    ours = [address for address, port in listening if slurm.port <= int(port, 16) < slurm.port + 200]
    assert len(ours) == 5
    assert set(ours) == {"0100007F"}  # 127.0.0.1
