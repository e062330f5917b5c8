import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from config_ssl_upload import RunConfig
from dataloaders.fewshot import FewShotConfig

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = [f"{what}_ssl_abdominal_{where}.sh" for what in ("test", "train") for where in ("ct", "mri")]
SETTINGS = (
    *("SETTING", "LABEL_SETS", "FOLDS", "EXCLUDE", "N_STEPS", "SCALE", "SEED", "DATA_DIR", "LOG_DIR", "NUM_WORKERS"),
    *("DEVICE", "EXTRA", "PYTHON", "DRY_RUN"),
)


def script(name, folder, **settings):
    """Runs a script from `folder`; variables that happen to be set here do not count."""
    clean = {key: value for key, value in os.environ.items() if key not in SETTINGS}
    command = ["bash", str(EXAMPLES / name)]
    return subprocess.run(command, cwd=folder, env=clean | settings, capture_output=True, text=True, check=False)


def commands(name, folder, **settings):
    """The commands that a dry run prints, as words without the interpreter."""
    done = script(name, folder, DRY_RUN="1", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    return [shlex.split(line)[1:] for line in done.stdout.splitlines()]


def keys(words):
    return dict(word.split("=", 1) for word in words if "=" in word)


@pytest.mark.parametrize("name", SCRIPTS)
def test_defaults_are_those_of_the_configuration(name, tmp_path):
    first, *rest = commands(name, tmp_path)
    is_training = name.startswith("train")
    dataset = "chaost2" if "mri" in name else "sabs"
    root = EXAMPLES.parent
    assert first[:5] == [
        str(root / f"{'training' if is_training else 'validation'}.py"),
        "with",
        "alpnet",
        dataset,
        "setting2",
    ]
    run, data = RunConfig(), FewShotConfig()
    expected = {key: str(getattr(run, key)) for key in ("n_steps", "seed", "num_workers", "device")}
    expected |= {key: str(getattr(data, key)) for key in ("label_sets", "eval_fold", "superpix_scale")}
    assert keys(first) == expected | {"path.data_dir": f"{root}/data", "path.log_dir": f"{root}/exps"}
    table = [str(root / "validation.py"), "collect", "with", dataset, f"path.log_dir={root}/exps"]
    assert rest == ([] if is_training else [table])


def test_setting_1_trains_once_for_all_organs(tmp_path):
    (words,) = commands("train_ssl_abdominal_ct.sh", tmp_path, SETTING="1")
    assert "setting1" in words
    assert keys(words)["label_sets"] == "all"


def test_every_label_set_and_fold_is_run(tmp_path):
    *folds, _ = commands("test_ssl_abdominal_mri.sh", tmp_path, LABEL_SETS="0 1", FOLDS="0 1 2 3 4")
    pairs = [(keys(words)["label_sets"], keys(words)["eval_fold"]) for words in folds]
    assert pairs == [(group, fold) for group in "01" for fold in "01234"]


def test_settings_arrive_as_they_were_given(tmp_path):
    (tmp_path / "support_idx=0").touch()  # what support_idx=[0,1] would match if it were a pattern
    given = {"DATA_DIR": "my data", "LOG_DIR": "logs", "EXCLUDE": "[2,3]", "EXTRA": " ssl_panet\n support_idx=[0,1] "}
    (words,) = commands("train_ssl_abdominal_mri.sh", tmp_path, N_STEPS="7", SCALE="SLIC", DEVICE="cpu", **given)
    found = keys(words)
    assert words[-2:] == ["ssl_panet", "support_idx=[0,1]"]
    assert (found["path.data_dir"], found["path.log_dir"], found["exclude_cls_list"]) == ("my data", "logs", "[2,3]")
    assert (found["n_steps"], found["superpix_scale"], found["device"]) == ("7", "SLIC", "cpu")


def test_the_first_failure_ends_the_script(tmp_path):
    done = script("train_ssl_abdominal_mri.sh", tmp_path, FOLDS="0 1", PYTHON="false")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1


@pytest.mark.slow
def test_training_and_testing_end_with_the_table(prepared_folder, tmp_path):
    settings = {
        "SETTING": "1",
        "N_STEPS": "2",
        "NUM_WORKERS": "0",
        "DATA_DIR": os.path.relpath(prepared_folder, tmp_path),
        "LOG_DIR": "logs",
        "PYTHON": sys.executable,
        "EXTRA": "modelname=resnet18 encoder_weights=none proto_grid_size=4 device=cpu protocol=reference",
    }
    for name in ("train_ssl_abdominal_mri.sh", "test_ssl_abdominal_mri.sh"):
        done = script(name, tmp_path, **settings)
        assert done.returncode == 0, done.stderr
    table = (tmp_path / "logs" / "table.md").read_text()
    assert "| SSL-ALPNet | CHAOST2 | 1 | reference |" in table
    assert (tmp_path / "logs" / "table.csv").is_file()
    assert list((tmp_path / "logs").glob("SSL-ALPNet_CHAOST2_setting1_setsall_fold0_*/validation/1/report.html"))
