"""Every published setting by its name: complete, valid, and as the papers say."""

from collections import Counter

import pytest

import models.presets.noisy as presets
import training  # noqa: F401 - registers the command
from config_ssl_upload import Settings, ex, read_settings
from dataloaders.catalog import IMAGE_SETS
from dataloaders.images.data import DenseConfig
from models import METHODS, method_class
from models.losses import LOSS_TITLES
from models.methods.supervised import SupervisedConfig
from util.schema import select

PUBLISHED = list(presets.published_settings())
BY_NAME = {preset.name: preset for preset in PUBLISHED}


def settings(*words, **changes) -> Settings:
    """The configuration of some words, as Sacred puts it together."""
    return read_settings(ex.run("print_config", config_updates=changes, named_configs=words).config)


def test_names_are_unique_and_known():
    assert [name for name, count in Counter(preset.name for preset in PUBLISHED).items() if count > 1] == []
    assert set(BY_NAME) <= set(ex.named_configs)


def test_each_says_where_it_comes_from_and_what_to_expect():
    for preset in PUBLISHED:
        assert "MICCAI 20" in preset.source, preset.name
        assert preset.hardware, preset.name
        assert "(" in preset.expected or "no published figure" in preset.expected, preset.name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("isic2017_tloss_a07_b07", "76.1 (0.6)"),
        ("isic2017_tloss_clean", "82.5 (0.5)"),
        ("isic2017_gce_a03_b05", "80.5 (0.9)"),
        ("isic2017_ngce_rce_a05_b07", "73.6 (1.7)"),
        ("shenzhen_tloss_a07_b07", "87.0 (3.1)"),
        ("shenzhen_nce_rce_a07_b05", "86.3 (1.8)"),
    ],
)
def test_expected_figures_are_those_of_the_papers_tables(name, expected):
    assert BY_NAME[name].expected == expected


def test_the_papers_grids_are_complete():
    columns = [f"a{alpha}_b{beta}" for alpha in ("03", "05", "07") for beta in ("05", "07")]
    losses = ["gce", "mae", "rce", "sce", "ngce", "nce_rce", "ngce_mae", "ngce_rce", "tloss"]
    robust = {f"{word}_{loss}_{c}" for word in ("isic2017", "shenzhen") for loss in losses for c in [*columns, "clean"]}
    words = ("isic2017", "jsrt_lung", "jsrt_heart", "jsrt_clavicle")
    guided = {f"{word}_{method}_{column}" for word in words for method in presets.GUIDED_METHODS for column in columns}
    assert robust | guided <= set(BY_NAME)
    assert {"coteaching", "jocor", "trinet", "spguided", "supervised", "upper"} == set(presets.GUIDED_METHODS.values())
    assert set(presets.GUIDED_METHODS.values()) <= set(METHODS)


def test_every_preset_holds_only_keys_that_exist_and_values_that_fit():
    for preset in PUBLISHED:
        method = method_class(preset.values["method"])
        select(method.Config, preset.values)
        data = select(DenseConfig, preset.values)
        assert data.spec.name in IMAGE_SETS
        assert preset.name.endswith("clean") == (not data.noise.alpha)


SAMPLE = [
    *("isic2017_tloss_a07_b07", "isic2017_gce_clean", "shenzhen_ngce_mae_a03_b05", "isic2017_spguided_a07_b07"),
    *("jsrt_clavicle_spguided_a10_b05", "jsrt_lung_upper_a05_b07", "jsrt_heart_trinet_a09_b07"),
]


@pytest.mark.parametrize("name", SAMPLE)
def test_a_preset_gives_valid_settings(name):
    preset, found = BY_NAME[name], settings(name)
    assert isinstance(found.data, DenseConfig)
    word = name.partition("_")[0].upper()
    assert found.data.spec.name == word
    assert found.run.n_steps == preset.values["n_steps"]
    assert found.run.n_steps % found.run.round_steps == found.run.n_steps % found.run.eval_every == 0
    assert found.run.n_steps // found.run.eval_every in (100, 200)
    assert found.values["unet"]["in_channels"] == (3 if word == "ISIC2017" else 1)
    rows, columns = found.data.shape
    halvings = found.values["unet"]["halvings"]
    assert (rows % 2 ** halvings[0], columns % 2 ** halvings[1]) == (0, 0)
    assert found.experiment_folder.name.startswith(found.method_name.replace(" ", "-"))


def test_t_loss_is_set_up_as_in_the_paper():
    found = settings("shenzhen_tloss_a07_b05")
    assert (found.run.batch_size, found.run.optim.name, found.run.optim.lr) == (8, "adam", 1e-3)
    assert (found.data.size_px, found.data.noise.name) == (256, "a0.7_b0.5")  # type: ignore[union-attr]
    assert found.values["unet"]["halvings"] == [5, 5]
    assert found.values["loss"] == "tloss"
    assert found.method_name == "T-Loss"
    assert settings("isic2017_tloss_a07_b05").run.batch_size == 16


def test_superpixel_guided_learning_is_set_up_as_released():
    isic, clavicle = settings("isic2017_spguided_a03_b05"), settings("jsrt_clavicle_spguided_a03_b05")
    assert (isic.run.n_steps, isic.run.round_steps, isic.run.batch_size) == (50_000, 250, 32)
    assert (clavicle.run.n_steps, clavicle.run.round_steps, clavicle.run.batch_size) == (30_000, 150, 8)
    for found in (isic, clavicle):
        optim = found.run.optim
        assert (optim.name, optim.lr, optim.momentum, optim.weight_decay) == ("sgd", 5e-3, 0.99, 1e-4)
    thresholds = ("thr_bg", "thr_fg", "decay")
    assert [isic.values["refine"][key] for key in thresholds] == [0.95, 0.9, 1.0]
    assert [clavicle.values["refine"][key] for key in thresholds] == [0.99, 0.83, 0.5]
    assert settings("jsrt_heart_spguided_a03_b05").values["refine"]["decay"] == 1.0
    assert clavicle.data.shape == (96, 224)  # type: ignore[union-attr]
    assert clavicle.values["unet"]["halvings"] == [4, 5]
    assert settings("isic2017_baseline_a03_b05").method_name == "Baseline"  # class-weighted, unlike CE elsewhere


@pytest.mark.parametrize("loss", LOSS_TITLES)
def test_every_loss_has_a_word(loss):
    found = settings("isic2017", loss, "noisy_small")
    assert found.values["loss"] == loss
    assert found.method_name == LOSS_TITLES[loss]
    select(SupervisedConfig, found.values)


@pytest.mark.parametrize("method", presets.GUIDED_METHODS)
def test_every_method_has_a_word_that_the_small_study_changes(method):
    found = settings("isic2017", method, "noisy_small", noise={"alpha": 0.7, "beta": 0.7})
    assert found.run.method == presets.GUIDED_METHODS[method]
    assert (found.run.optim.name, found.run.n_steps) == ("adam", presets.NOISY_SMALL["n_steps"])
    assert found.values["unet"] | presets.NOISY_SMALL["unet"] == found.values["unet"]


def test_what_was_learnt_from_clean_masks_is_the_same_training_whatever_the_noise():
    names = [settings(f"isic2017_upper_a{a}_b{b}").experiment_folder.name for a in ("03", "07") for b in ("05", "07")]
    assert len(set(names)) == 1
    assert names[0].startswith("Upper-bound_ISIC2017_lesion_clean_seed")
    assert len({settings(f"isic2017_baseline_a{a}_b05").experiment_folder for a in ("03", "07")}) == 2
    assert settings("isic2017_upper_a03_b05", seed=2).experiment_folder.name not in names


def test_the_list_on_the_command_line(caplog):
    caplog.set_level("INFO")
    presets.main(["isic2017_tloss", "a07"])
    assert [line.split()[0] for line in caplog.messages] == ["isic2017_tloss_a07_b05", "isic2017_tloss_a07_b07"]
    assert caplog.messages[1].endswith("T-Loss (MICCAI 2023), table 1; one V100, 32 GB; Dice 76.1 (0.6)")
