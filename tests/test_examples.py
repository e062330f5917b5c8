import os
import shutil
import sys
from dataclasses import fields
from itertools import product

import pytest

import models.presets.noisy as presets
from config_ssl_upload import RunConfig
from data.phantom import write_phantom
from data.prepare.__main__ import main as prepare
from dataloaders.fewshot.config import FewShotConfig
from dataloaders.sources.config import SourcesDataConfig
from models.presets import fewshot, sources
from models.presets.published import DOMAINS
from tests.example_scripts import ROOT, commands, keys, script

ROBUST_LOSSES = ("gce", "mae", "rce", "sce", "ngce", "nce_rce", "ngce_mae", "ngce_rce", "tloss")
SCRIPTS = [f"{what}_ssl_abdominal_{where}.sh" for what in ("test", "train") for where in ("ct", "mri")]
NOISY = {
    "noisy_isic": (["isic2017"], presets.GUIDED_METHODS),
    "noisy_jsrt": (["jsrt_lung", "jsrt_heart", "jsrt_clavicle"], presets.GUIDED_METHODS),
    "tloss_isic": (["isic2017"], ROBUST_LOSSES),
    "tloss_shenzhen": (["shenzhen"], ROBUST_LOSSES),
}
SEMIDG = {"mms": "labels2", "scgm": "labels20"}  # data set -> labelled share by default
ONE_RUN = {"ALPHAS": "0.7", "BETAS": "0.7", "SEEDS": "0"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_defaults_are_those_of_the_configuration(name, tmp_path):
    first, *rest = commands(name, tmp_path)
    is_training = name.startswith("train")
    dataset = "chaost2" if "mri" in name else "sabs"
    assert first[:5] == [
        str(ROOT / f"{'training' if is_training else 'validation'}.py"),
        "with",
        "alpnet",
        dataset,
        "setting2",
    ]
    run, data = RunConfig(), FewShotConfig()
    expected = {"n_steps": str(fewshot.TRAINING["n_steps"])}
    expected |= {key: str(getattr(run, key)) for key in ("seed", "num_workers", "device")}
    expected |= {key: str(getattr(data, key)) for key in ("label_sets", "eval_fold", "superpix_scale")}
    assert keys(first) == expected | {"path.data_dir": f"{ROOT}/data", "path.log_dir": f"{ROOT}/exps"}
    table = [str(ROOT / "validation.py"), "collect", "with", dataset, f"path.log_dir={ROOT}/exps"]
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


@pytest.mark.parametrize("name", NOISY)
@pytest.mark.parametrize("what", ["train", "test"])
def test_scripts_of_noisy_masks_run_the_papers_grid(what, name, tmp_path):
    words, methods = NOISY[name]
    lines = commands(f"{what}_{name}.sh", tmp_path)
    file = str(ROOT / ("training.py" if what == "train" else "validation.py"))
    runs = [line for line in lines if line[:2] == [file, "with"]]
    grid = [
        (f"{word} {method} noise.alpha={alpha} noise.beta={beta}", seed)
        for word in words
        for method in methods
        for alpha in ("0.3", "0.5", "0.7")
        for beta in ("0.5", "0.7")
        for seed in "012"
    ]
    assert [(" ".join(line[2:6]), keys(line)["seed"]) for line in runs] == grid
    assert {name for name, _ in grid} <= {run.words for run in presets.published_runs()}
    run = RunConfig()
    expected = {"num_workers": str(run.num_workers), "device": run.device}
    expected |= {"path.data_dir": f"{ROOT}/data", "path.log_dir": f"{ROOT}/exps"}
    varied = ("seed", "noise.alpha", "noise.beta")
    assert all(keys(line) == expected | {key: keys(line)[key] for key in varied} for line in runs)
    if what == "test":
        assert lines == [*runs, [str(ROOT / "validation.py"), "collect", "with", f"path.log_dir={ROOT}/exps"]]


@pytest.mark.parametrize("name", NOISY)
def test_training_scripts_make_the_noise_and_superpixels_that_they_need(name, tmp_path):
    made = [line for line in commands(f"train_{name}.sh", tmp_path) if line[0] == "-P"]
    dataset = NOISY[name][0][0].partition("_")[0]
    structures = {"isic2017": ["lesion"], "jsrt": ["lung", "heart", "clavicle"], "shenzhen": ["lung"]}[dataset]
    size = ["--size-px", "256"] if name == "tloss_isic" else []
    place = ["--data-dir", f"{ROOT}/data", "--jobs", "4", *size]
    expected = []
    for structure in structures:
        levels = ["--alpha", "0.3", "0.5", "0.7", "--beta", "0.5", "0.7"]
        expected.append(["-P", "-m", "data.noise", dataset, *levels, "--structure", structure, *place])
        if "spguided" in NOISY[name][1]:
            expected.append(["-P", "-m", "data.superpixels", dataset, "--structure", structure, *place])
    assert made == expected


def test_settings_of_noisy_masks_arrive(tmp_path):
    given = ONE_RUN | {"METHODS": "spguided", "STRUCTURES": "clavicle", "SIZE_PX": "64", "EXTRA": "noisy_small"}
    noise, superpixels, run = commands("train_noisy_jsrt.sh", tmp_path, **given)
    assert noise[-2:] == superpixels[-2:] == ["--size-px", "64"]
    assert run[2:6] == ["jsrt_clavicle", "spguided", "noise.alpha=0.7", "noise.beta=0.7"]
    assert run[-1] == "noisy_small"
    assert keys(run)["size_px"] == "64"
    noise, run = commands("train_noisy_isic.sh", tmp_path, **ONE_RUN | {"METHODS": "baseline"})  # no superpixels
    assert run[2:6] == ["isic2017", "baseline", "noise.alpha=0.7", "noise.beta=0.7"]


@pytest.mark.slow
def test_clean_masks_are_one_run_and_need_no_noise(tmp_path):
    (run,) = commands("train_tloss_isic.sh", tmp_path, **ONE_RUN | {"METHODS": "tloss", "ALPHAS": "0"})
    assert run[2:5] == ["isic2017", "tloss", "noise.alpha=0"]
    noise, *runs = commands("train_tloss_isic.sh", tmp_path, **ONE_RUN | {"METHODS": "gce", "ALPHAS": "0 0.3"})
    assert noise[noise.index("--alpha") + 1 : noise.index("--beta")] == ["0.3"]
    assert [run[2:5] for run in runs] == [["isic2017", "gce", f"noise.alpha={alpha}"] for alpha in ("0", "0.3")]


@pytest.mark.parametrize("dataset", SEMIDG)
@pytest.mark.parametrize("what", ["train", "test"])
def test_scripts_of_several_sources_hold_each_domain_out(what, dataset, tmp_path):
    lines = commands(f"{what}_semidg_{dataset}.sh", tmp_path)
    file = str(ROOT / ("training.py" if what == "train" else "validation.py"))
    runs = [line for line in lines if line[:2] == [file, "with"]]
    words = [" ".join(line[2:6]) for line in runs]
    assert words == [f"{dataset} cacps {SEMIDG[dataset]} test_domains=[{domain}]" for domain in DOMAINS]
    assert set(words) <= {run.words for run in sources.published_runs()}
    run = RunConfig()
    expected = {"seed": "0", "num_workers": str(run.num_workers), "device": run.device}
    expected |= {"path.data_dir": f"{ROOT}/data", "path.log_dir": f"{ROOT}/exps"}
    assert all(keys(line) == expected | {"test_domains": keys(line)["test_domains"]} for line in runs)
    assert {key.partition(".")[0] for key in keys(runs[0])} <= {
        field.name for part in (RunConfig, SourcesDataConfig) for field in fields(part)
    }
    table = [str(ROOT / "validation.py"), "collect", "with", f"path.log_dir={ROOT}/exps"]
    assert lines == (runs if what == "train" else [*runs, table])


@pytest.mark.parametrize("dataset", SEMIDG)
def test_training_and_testing_on_several_sources_are_of_the_same_runs(dataset, tmp_path):
    given = {
        "METHODS": " ".join(sources.METHODS),
        "LABELS": " ".join(sources.LABELS),
        "TARGETS": "B D",
        "SEEDS": "0 1",
        "NUM_WORKERS": "0",
        "DEVICE": "cpu",
        "DATA_DIR": "my data",
        "LOG_DIR": "logs",
        "EXTRA": "semidg_small hist_match=none",
    }
    trained = [line[1:] for line in commands(f"train_semidg_{dataset}.sh", tmp_path, **given)]
    *tested, table = [line[1:] for line in commands(f"test_semidg_{dataset}.sh", tmp_path, **given)]
    assert trained == tested
    assert table == ["collect", "with", "path.log_dir=logs"]
    assert [(*line[2:5], keys(line)["seed"]) for line in trained] == [
        (method, labels, f"test_domains=[{domain}]", seed)
        for method, labels, domain, seed in product(sources.METHODS, sources.LABELS, "BD", "01")
    ]
    for line in trained:
        assert (line[1], line[-2:]) == (dataset, ["semidg_small", "hist_match=none"])
        found = keys(line)
        assert (found["path.data_dir"], found["device"], found["num_workers"]) == ("my data", "cpu", "0")


@pytest.mark.slow
def test_training_and_testing_on_several_sources_end_with_the_table(tmp_path):
    write_phantom("mms", tmp_path / "raw", 8, 48)
    prepare(["mms", "--raw", str(tmp_path / "raw"), "--out", str(tmp_path / "data"), "--size-px", "48"])
    tiny = "semidg_small n_steps=2 ramp_up_steps=0 batch_size=2 size_px=48 crop_px=40 surface_scores=False"
    settings = {"TARGETS": "A C", "NUM_WORKERS": "0", "DEVICE": "cpu", "DATA_DIR": "data", "LOG_DIR": "logs"}
    settings |= {"PYTHON": sys.executable, "EXTRA": f"{tiny} network.unet.base_features=4"}
    for name in ("train_semidg_mms.sh", "test_semidg_mms.sh"):
        done = script(name, tmp_path, **settings)
        assert done.returncode == 0, done.stderr
    assert "| CACPS | MMS | 2 % |" in (tmp_path / "logs/table.md").read_text()
    assert len(list((tmp_path / "logs").glob("CACPS_MMS_*_to-[AC]_seed0_*/validation/1/report.html"))) == 2


def test_scripts_of_several_tasks_run_both_stages_and_make_pseudo_labels_between_them(tmp_path):
    given = {"LOG_DIR": "logs", "DATA_DIR": "my data", "SEEDS": "3", "EXTRA": "partial_small"}
    trained = commands("train_partial_fundus.sh", tmp_path, **given)
    *tested, collected = commands("test_partial_fundus.sh", tmp_path, **given)
    labels = "logs/pseudo_labels/seed3"
    first, export, second = trained
    assert first[2:4] == export[3:5] == ["fundus", "partial_generator"]
    assert export[1] == "export"
    assert keys(export)["export_to"] == keys(second)["pseudo_labels"] == labels
    assert second[2:4] == ["fundus", "partial_adversarial"]
    assert [line[1:] for line in tested] == [first[1:], second[1:]]
    assert collected[1:] == ["collect", "with", "path.log_dir=logs"]
    assert all(line[-1] == "partial_small" and keys(line)["seed"] == "3" for line in trained)


def test_the_ladder_of_several_tasks(tmp_path):
    methods = "experts naive generator pseudo adversarial pssnet teacher"
    lines = commands("test_partial_fundus.sh", tmp_path, METHODS=methods)[:-1]
    words = [
        (*line[2:4], *(word for word in line if word.startswith(("adversarial_weight", "attention")))) for line in lines
    ]
    assert words == [
        *((f"fundus_{task}", "partial_generator") for task in ("vessel", "lesion", "disc")),
        ("fundus", "partial_naive"),
        ("fundus", "partial_generator"),
        ("fundus", "partial_adversarial", "adversarial_weight=0", "attention=False"),
        ("fundus", "partial_adversarial", "attention=False"),
        ("fundus", "partial_adversarial"),
        ("fundus", "partial_teacher"),
    ]
    refused = script("train_partial_fundus.sh", tmp_path, METHODS="generator unknown", DRY_RUN="1")
    assert refused.returncode == 1
    assert "unknown is unknown; expected some of experts" in refused.stderr


def test_training_and_testing_on_noisy_masks_end_with_the_table(image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "isic", ignore=shutil.ignore_patterns("noisy", "superpixels"))
    tiny = "n_steps=2 round_steps=1 eval_every=1 batch_size=2 surface_scores=False save_predictions=False device=cpu"
    settings = ONE_RUN | {
        "METHODS": "tloss",
        "SIZE_PX": "32",
        "JOBS": "1",
        "NUM_WORKERS": "0",
        "DATA_DIR": "isic",
        "LOG_DIR": "logs",
        "PYTHON": sys.executable,
        "EXTRA": f"{tiny} unet.base_features=4 unet.max_features=8 unet.halvings=[2,2]",
    }
    for name in ("train_tloss_isic.sh", "test_tloss_isic.sh"):
        done = script(name, tmp_path, **settings)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "isic/noisy/lesion/a0.7_b0.7/noise.json").is_file()
    assert "| T-Loss |" in (tmp_path / "logs/table.md").read_text()
    assert list((tmp_path / "logs").glob("T-Loss_ISIC2017_lesion_a0.7_b0.7_seed0_*/validation/1/report.html"))


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
    assert (tmp_path / "logs" / "table_fewshot_dice.csv").is_file()
    assert list((tmp_path / "logs").glob("SSL-ALPNet_CHAOST2_setting1_setsall_fold0_*/validation/1/report.html"))
