"""examples/table_fewshot.sh: which runs it makes, here and on a cluster."""

import os
import shlex
import sys
from itertools import product

import pytest

from config_ssl_upload import RunConfig
from models import method_class
from models.presets import fewshot
from tests.example_scripts import ROOT, commands, keys, script


def runs_of_table(folder, **settings):
    """Words of the runs of the few-shot table, whether they are trained, and the last command."""
    *lines, table = commands("table_fewshot.sh", folder, **settings)
    assert {tuple(line[:3]) for line in lines} <= {("-m", "util.launch.item", "--finished")}
    assert table[1:3] == ["collect", "with"]
    return [(line[line.index("--") + 1 :], "--validate-only" not in line) for line in lines], table


N_SHARED = 5  # settings of all runs of the few-shot table, which come first


def test_the_table_of_few_shot_methods_has_every_method_setting_and_fold(tmp_path):
    runs, table = runs_of_table(tmp_path)
    assert table[3:] == [f"path.log_dir={ROOT}/exps"]
    methods = {name: values for name, values in fewshot.METHODS.items() if name != "self_training"}  # own script
    assert {words[N_SHARED] for words, _ in runs} == set(methods)
    for name, values in methods.items():
        is_trained = method_class(values["method"]).batch_type is not None
        assert {trained for words, trained in runs if words[N_SHARED] == name} == {is_trained}
        found = [tuple(words[N_SHARED + 1 :]) for words, _ in runs if words[N_SHARED] == name]
        needs_groups = values.get("train_on") == "labels"
        expected = []
        for dataset, setting in product(fewshot.DATA, "12" if is_trained else "1"):
            groups = ("0", "1") if is_trained and (setting == "2" or needs_groups) else ("all",)
            expected += [
                (dataset, f"setting{setting}", f"label_sets={group}", f"eval_fold={fold}")
                for group, fold in product(groups, range(5))
            ]
        assert found == expected
    run = RunConfig()
    expected = {key: str(getattr(run, key)) for key in ("seed", "num_workers", "device")}
    expected |= {"path.data_dir": f"{ROOT}/data", "path.log_dir": f"{ROOT}/exps"}
    varied = ("label_sets", "eval_fold")
    assert all(keys(words) == expected | {key: keys(words)[key] for key in varied} for words, _ in runs)


def test_settings_of_the_few_shot_table_arrive(tmp_path):
    given = {
        "METHODS": "panet threshold",
        "DATASETS": "sabs",
        "SETTINGS": "2",
        "FOLDS": "3",
        "EXTRA": "small n_steps=9",
    }
    runs, table = runs_of_table(tmp_path, LABEL_SETS="1", LOG_DIR="my logs", **given)
    shared = ["seed=1234", "num_workers=4", "device=auto", f"path.data_dir={ROOT}/data", "path.log_dir=my logs"]
    assert runs == [
        ([*shared, "panet", "sabs", "setting2", "label_sets=1", "eval_fold=3", "small", "n_steps=9"], True),
        ([*shared, "threshold", "sabs", "setting2", "label_sets=all", "eval_fold=3"], False),
    ]
    assert table[3] == "path.log_dir=my logs"


def test_the_few_shot_table_is_one_job_array_on_a_cluster(tmp_path):
    given = {"METHODS": "alpnet threshold", "DATASETS": "chaost2", "SETTINGS": "1", "FOLDS": "0 1", "LOG_DIR": "logs"}
    done = script("table_fewshot.sh", tmp_path, SITE="nvidia", LAUNCH="--account ABC", DRY_RUN="1", **given)
    assert (done.returncode, done.stderr) == (0, "")
    *runs, launched = done.stdout.splitlines()
    assert runs == [
        f"{method} chaost2 setting1 label_sets=all eval_fold={fold}"
        for method, fold in product(("alpnet", "--validate-only threshold"), "01")
    ]
    assert not list(tmp_path.iterdir())
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 7\n")
    (tmp_path / "sbatch").chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHON": sys.executable}
    submitted = script("table_fewshot.sh", tmp_path, SITE="nvidia", LAUNCH="--account ABC", **given, **path)
    assert submitted.returncode == 0, submitted.stderr
    (listed,) = (tmp_path / "logs").glob("fewshot_*.runs")
    assert listed.read_text().splitlines() == runs
    words = shlex.split(launched)
    assert words[words.index("--runs") + 1] == str(listed)
    job = (tmp_path / "logs/slurm/001/job.sbatch").read_text()
    assert "#SBATCH --account=ABC\n" in job
    assert "#SBATCH --array=0-3\n" in job
    collect = (tmp_path / "logs/slurm/001/collect.sbatch").read_text()
    assert f"validation.py collect with seed=1234 num_workers=4 device=auto path.data_dir={ROOT}/data" in collect


@pytest.mark.slow
def test_the_few_shot_table_is_made_and_finished_runs_are_skipped(prepared_folder, tmp_path):
    tiny = "modelname=resnet18 encoder_weights=none proto_grid_size=4 n_steps=2"
    settings = {
        "METHODS": "alpnet threshold",
        "DATASETS": "chaost2",
        "SETTINGS": "1",
        "FOLDS": "0",
        "NUM_WORKERS": "0",
        "DEVICE": "cpu",
        "DATA_DIR": os.path.relpath(prepared_folder, tmp_path),
        "LOG_DIR": "logs",
        "PYTHON": sys.executable,
        "EXTRA": f"{tiny} protocol=reference",
    }
    for n_before in (0, 2):
        done = script("table_fewshot.sh", tmp_path, **settings)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("has run before") == n_before
        table = (tmp_path / "logs/table.md").read_text()
        assert "| SSL-ALPNet | CHAOST2 | 1 | reference |" in table
        assert "| threshold | CHAOST2 | 1 | blind |" in table
    assert len(list((tmp_path / "logs").glob("*/validation/*/scores.csv"))) == 2
