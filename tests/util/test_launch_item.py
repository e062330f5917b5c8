"""Single runs of a job array: which run a task takes, and what becomes of it."""

import os
import re
import signal
import threading
from pathlib import Path

import pytest

from util.errors import ConfigError
from util.launch import __main__ as launch
from util.launch import item
from util.launch.sweeps import read_runs
from util.runtime import distributed

STEP = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "5", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "5"}


@pytest.mark.parametrize(
    ("environment", "number"),
    [({}, 0), (STEP, 5), (STEP | {"SLURM_ARRAY_TASK_ID": "2"}, 21), ({"SLURM_PROCID": "0"}, 0)],
)
def test_item_index_of_a_task(environment, number):
    assert item.item_index(environment) == number


def test_an_item_is_a_single_process_that_keeps_its_gpu():
    assert distributed.plan(STEP).world_size == 8
    place = distributed.plan(item.single_process_environment(STEP))
    assert (place.rank, place.world_size, place.local_rank) == (0, 1, 5)
    assert distributed.plan(item.single_process_environment({})).local_rank == 0


@pytest.fixture
def entries(tmp_path, monkeypatch):
    """Stubs of training.py and validation.py that append their arguments to `ran` in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(item, "ROOT", tmp_path)
    for name in ("training", "validation"):
        script = f"import sys\nopen('ran', 'a').write(' '.join(['{name}', *sys.argv[1:]]) + '\\n')\n"
        (tmp_path / f"{name}.py").write_text(script)
    return tmp_path


def test_an_item_trains_then_validates(entries):
    sweep = ["--sweep", "seed=1,2", "label_sets=0,1"]
    assert item.main([*sweep, "--", "alpnet", "chaost2"], {"SLURM_PROCID": "2", "SLURM_STEP_NUM_TASKS": "4"}) == 0
    settings = "with alpnet chaost2 seed=2 label_sets=0"
    assert (entries / "ran").read_text() == f"training {settings}\nvalidation {settings}\n"
    assert item.main([*sweep, "--item", "1", "--train-only", "--", "alpnet"], {}) == 0
    assert (entries / "ran").read_text().endswith("\ntraining with alpnet seed=1 label_sets=1\n")


def test_a_task_beyond_the_last_item_does_nothing(entries, caplog):
    caplog.set_level("INFO")
    assert item.main(["--sweep", "seed=1,2"], {"SLURM_PROCID": "2"}) == 0
    assert "item 2: nothing to do" in caplog.text
    assert not (entries / "ran").exists()


RUNS = """\
# a list
alpnet chaost2 'exclude_cls_list=[2, 3]'

--validate-only threshold chaost2
"""


def test_items_of_a_list_and_runs_without_training(entries):
    (entries / "runs").write_text(RUNS)
    for number in ("0", "1", "2"):
        assert item.main(["--runs", "runs", "--item", number, "--", "seed=1"], {}) == 0
    assert item.main(["--validate-only", "--", "propagation"], {}) == 0
    words = "seed=1 alpnet chaost2 exclude_cls_list=[2, 3]"
    assert (entries / "ran").read_text().splitlines() == [
        f"training with {words}",
        f"validation with {words}",
        "validation with seed=1 threshold chaost2",
        "validation with propagation",
    ]


def test_a_finished_run_is_skipped_and_a_failed_one_repeated(entries, caplog):
    caplog.set_level("INFO")
    command = ["--finished", "logs/finished", "--", "alpnet", "seed=1"]
    good = (entries / "validation.py").read_text()
    (entries / "validation.py").write_text("raise SystemExit(3)")
    assert item.main(command, {}) == 3
    assert not (entries / "logs").exists()
    (entries / "validation.py").write_text(good)
    for _ in range(2):
        assert item.main(command, {}) == 0
    assert item.main([*command, "n_steps=5"], {}) == 0
    assert (entries / "ran").read_text().split("\n") == [
        *["training with alpnet seed=1"] * 2,  # the first one's validation failed
        "validation with alpnet seed=1",
        "training with alpnet seed=1 n_steps=5",
        "validation with alpnet seed=1 n_steps=5",
        "",
    ]
    (record,) = re.findall(r"alpnet seed=1: has run before\. To run it again, delete (\S+)", caplog.text)
    assert Path(record).read_text() == "alpnet seed=1\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "no run; expected a line per run"), ("a b\nc\na b\n", "a b twice"), ("a 'b", "No closing quotation")],
)
def test_invalid_lists_of_runs(tmp_path, text, message):
    (tmp_path / "runs").write_text(text)
    with pytest.raises(ConfigError, match=rf"runs: .*{message}"):
        read_runs(tmp_path / "runs")


def test_a_list_of_runs_becomes_an_array(tmp_path, capsys):
    (tmp_path / "my runs").write_text(RUNS)
    launch.main(["--site=nvidia", "--mode=runs", f"--runs={tmp_path}/my runs", "--finished=done", "--", "seed=1"])
    script = capsys.readouterr().out
    assert "#SBATCH --array=0-1\n" in script
    assert f"python -m util.launch.item '--runs={tmp_path}/my runs' --finished=done -- seed=1\n" in script


@pytest.mark.parametrize(
    ("failure", "code"), [("sys.exit(3)", 3), ("sys.exit(75)", 75), ("os.kill(os.getpid(), signal.SIGKILL)", 137)]
)
def test_a_failed_training_run_is_not_validated(entries, failure, code):
    (entries / "training.py").write_text(f"import os, signal, sys\n{failure}\n")
    assert item.main([], {}) == code
    assert not (entries / "ran").exists()


@pytest.mark.parametrize("listens", [True, False])
@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_is_forwarded_and_the_exit_code_is_75(entries, number, listens):
    listening = f"signal.signal({int(number)}, lambda *_: (Path('ran').touch(), sys.exit(75)))" if listens else ""
    (entries / "training.py").write_text(
        f"import signal, sys, time\nfrom pathlib import Path\n{listening}\nPath('up').touch()\ntime.sleep(30)\n"
    )
    previous = signal.getsignal(number)

    def interrupt():
        while not (entries / "up").exists():
            pass
        os.kill(os.getpid(), number)

    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    assert item.main([], dict(os.environ)) == os.EX_TEMPFAIL
    interrupter.join()
    assert signal.getsignal(number) == previous
    assert (entries / "ran").exists() == listens
