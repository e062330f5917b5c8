"""Published settings follow from method and data set: complete, valid, and as the papers say."""

from collections import Counter
from itertools import product

import pytest

import training  # noqa: F401 - registers the command
from config_ssl_upload import Settings, ex, read_settings
from models import METHODS
from models.losses import LOSS_TITLES
from models.methods.supervised import SupervisedConfig
from models.presets import NAMED_CONFIGS, RULES, noisy
from models.presets.__main__ import main
from models.presets.rules import Rule, published_values
from util.schema import select

PUBLISHED = list(noisy.published_runs())
BY_WORDS = {run.words: run for run in PUBLISHED}


def settings(*words, **changes) -> Settings:
    """The configuration of some words, as Sacred puts it together."""
    return read_settings(ex.run("print_config", config_updates=changes, named_configs=words).config)


def settings_of(words: str, **changes) -> Settings:
    """The same of a published run's words, keys among them."""
    given = [word.split("=") for word in words.split() if "=" in word]
    noise = {key.removeprefix("noise."): float(value) for key, value in given}
    named = [word for word in words.split() if "=" not in word]
    return settings(*named, **({"noise": noise} if noise else {}), **changes)


def test_published_runs_are_different_and_their_words_exist():
    assert [words for words, count in Counter(run.words for run in PUBLISHED).items() if count > 1] == []
    assert {word for run in PUBLISHED for word in run.words.split() if "=" not in word} <= set(ex.named_configs)


@pytest.mark.parametrize("word", ["propagation", "registration"])
def test_methods_without_training_have_words_and_their_own_defaults(word):
    found = settings(word, "chaost2", label_sets="all").values
    assert found["method"] == word
    assert found["postprocess"]["exclusive"]
    assert not settings("alpnet", "chaost2").values["postprocess"]["exclusive"]  # as published


def test_each_says_where_it_comes_from_and_what_to_expect():
    for run in PUBLISHED:
        assert "MICCAI 20" in run.source, run.words
        assert run.hardware, run.words
        assert "(" in run.expected or "no published figure" in run.expected, run.words


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("isic2017 tloss noise.alpha=0.7 noise.beta=0.7", "76.1 (0.6)"),
        ("isic2017 tloss", "82.5 (0.5)"),
        ("isic2017 gce noise.alpha=0.3 noise.beta=0.5", "80.5 (0.9)"),
        ("isic2017 ngce_rce noise.alpha=0.5 noise.beta=0.7", "73.6 (1.7)"),
        ("shenzhen tloss noise.alpha=0.7 noise.beta=0.7", "87.0 (3.1)"),
        ("shenzhen nce_rce noise.alpha=0.7 noise.beta=0.5", "86.3 (1.8)"),
    ],
)
def test_expected_figures_are_those_of_the_papers_tables(words, expected):
    assert BY_WORDS[words].expected == expected


def test_the_papers_grids_are_complete():
    noises = [f" noise.alpha={a} noise.beta={b}" for a, b in product((0.3, 0.5, 0.7), (0.5, 0.7))]
    losses = ["gce", "mae", "rce", "sce", "ngce", "nce_rce", "ngce_mae", "ngce_rce", "tloss"]
    robust = {f"{word} {loss}{n}" for word in ("isic2017", "shenzhen") for loss in losses for n in [*noises, ""]}
    words = ("isic2017", "jsrt_lung", "jsrt_heart", "jsrt_clavicle")
    guided = {f"{word} {method}{n}" for word in words for method in noisy.GUIDED_METHODS for n in noises}
    assert robust | guided <= set(BY_WORDS)


def test_every_word_names_a_method_or_a_data_set_that_exists():
    assert {values["method"] for values in NAMED_CONFIGS.values() if "method" in values} == set(METHODS)


@pytest.mark.parametrize(
    "words",
    [
        "isic2017 tloss noise.alpha=0.7 noise.beta=0.7",
        "isic2017 gce",
        "shenzhen ngce_mae noise.alpha=0.3 noise.beta=0.5",
        "isic2017 spguided noise.alpha=0.7 noise.beta=0.7",
        "jsrt_clavicle spguided noise.alpha=1 noise.beta=0.5",
        "jsrt_lung upper noise.alpha=0.5 noise.beta=0.7",
        "jsrt_heart trinet noise.alpha=0.9 noise.beta=0.7",
    ],
)
def test_a_published_run_has_valid_settings(words):
    assert words in BY_WORDS
    found = settings_of(words)
    run, data = found.run, found.data
    assert run.n_steps % run.round_steps == run.n_steps % run.eval_every == 0
    assert run.n_steps // run.eval_every in (100, 200)
    assert found.values["unet"]["in_channels"] == (3 if data.spec.name == "ISIC2017" else 1)
    rows, columns = data.shape  # type: ignore[attr-defined]
    halvings = found.values["unet"]["halvings"]
    assert (rows % 2 ** halvings[0], columns % 2 ** halvings[1]) == (0, 0)
    assert found.experiment_folder.name.startswith(found.method_name.replace(" ", "-"))


def test_t_loss_is_set_up_as_in_the_paper():
    found = settings("shenzhen", "tloss", noise={"alpha": 0.7, "beta": 0.5})
    assert (found.run.batch_size, found.run.n_steps) == (8, 100_000)
    assert (found.run.optim.name, found.run.optim.lr, found.run.optim.schedule) == ("adam", 1e-3, "constant")
    assert (found.data.size_px, found.data.noise.name) == (256, "a0.7_b0.5")  # type: ignore[attr-defined]
    assert found.values["unet"]["halvings"] == [5, 5]
    assert found.values["loss"] == "tloss"
    assert found.method_name == "T-Loss"
    assert settings("isic2017", "tloss").run.batch_size == 16
    assert settings("tloss", "shenzhen").run.batch_size == 8  # in any order


def test_superpixel_guided_learning_is_set_up_as_released():
    isic, clavicle = settings("isic2017", "spguided"), settings("jsrt_clavicle", "spguided")
    assert (isic.run.n_steps, isic.run.round_steps, isic.run.batch_size) == (50_000, 250, 32)
    assert (clavicle.run.n_steps, clavicle.run.round_steps, clavicle.run.batch_size) == (30_000, 150, 8)
    for found in (isic, clavicle):
        optim = found.run.optim
        assert (optim.name, optim.lr, optim.momentum, optim.weight_decay) == ("sgd", 5e-3, 0.99, 1e-4)
        assert optim.schedule == "constant"
    thresholds = ("thr_bg", "thr_fg", "decay")
    assert [isic.values["refine"][key] for key in thresholds] == [0.95, 0.9, 1.0]
    assert [clavicle.values["refine"][key] for key in thresholds] == [0.99, 0.83, 0.5]
    assert settings("jsrt_heart", "spguided").values["refine"]["decay"] == 1.0
    assert clavicle.data.shape == (96, 224)  # type: ignore[attr-defined]
    assert clavicle.values["unet"]["halvings"] == [4, 5]


def test_the_plain_word_jsrt_has_the_published_length():
    found = settings("spguided", "jsrt")
    assert (found.run.n_steps, found.run.batch_size) == (30_000, 8)
    assert found.data.chosen == ("lung",)  # type: ignore[attr-defined]


def test_ssl_alpnet_is_trained_as_published():
    run = settings("alpnet", "chaost2", "setting2").run
    assert (run.n_steps, run.batch_size, run.save_snapshot_every) == (100_100, 1, 25_000)
    optim = run.optim
    assert (optim.name, optim.lr, optim.momentum, optim.weight_decay) == ("sgd", 1e-3, 0.9, 5e-4)
    assert (optim.schedule, optim.step_every, optim.step_gamma) == ("step", 1000, 0.95)


def test_class_weights_tell_the_baseline_from_plain_cross_entropy():
    baseline, plain = settings("isic2017", "baseline"), settings("isic2017", "ce")
    assert (baseline.method_name, baseline.run.n_steps) == ("Baseline", 50_000)
    assert (plain.method_name, plain.run.n_steps) == (LOSS_TITLES["ce"], 100_000)


def test_named_configurations_and_keys_win_over_published_settings():
    assert settings("isic2017", "tloss", "noisy_small").run.n_steps == noisy.SMALL["n_steps"]
    found = settings("isic2017", "tloss", "noisy_small", n_steps=7, optim={"lr": 0.5})
    assert (found.run.n_steps, found.run.optim.lr, found.run.optim.name) == (7, 0.5, "adam")


@pytest.mark.parametrize("loss", LOSS_TITLES)
def test_every_loss_has_a_word(loss):
    found = settings("isic2017", loss, "noisy_small")
    assert found.values["loss"] == loss
    assert found.method_name == LOSS_TITLES[loss]
    select(SupervisedConfig, found.values)


@pytest.mark.parametrize("method", noisy.GUIDED_METHODS)
def test_every_method_has_a_word_that_the_small_study_changes(method):
    found = settings("isic2017", method, "noisy_small", noise={"alpha": 0.7, "beta": 0.7})
    assert found.run.method == noisy.GUIDED_METHODS[method]["method"]
    assert (found.run.optim.name, found.run.n_steps) == ("adam", noisy.SMALL["n_steps"])
    assert found.values["unet"] | noisy.SMALL["unet"] == found.values["unet"]


def test_a_run_on_clean_masks_is_the_same_whatever_the_noise():
    noises = [{"alpha": a, "beta": b} for a in (0.3, 0.7) for b in (0.5, 0.7)]
    names = [settings("isic2017", "upper", noise=noise).experiment_folder.name for noise in noises]
    assert len(set(names)) == 1
    assert names[0].startswith("Upper-bound_ISIC2017_lesion_clean_seed")
    assert len({settings("isic2017", "baseline", noise=noise).experiment_folder for noise in noises}) == 4
    assert settings("isic2017", "upper", seed=2).experiment_folder.name not in names


def test_later_rules_win_key_by_key():
    rules = (
        Rule("a paper", {"optim": {"lr": 1.0, "name": "sgd"}}, {"method": ("x",)}),
        Rule("a paper", {"optim": {"lr": 2.0}}, {"method": ("x",), "structures": (("lung",),)}),
    )
    assert published_values(rules, {"method": "y"}) == {}
    assert published_values(rules, {"method": "x"})["optim"]["lr"] == 1.0
    found = published_values(rules, {"method": "x", "structures": ["lung"]})
    assert found == {"optim": {"lr": 2.0, "name": "sgd"}}


def test_every_rule_names_its_source():
    assert all("20" in rule.source or rule.source == "not published" for rule in RULES)


def test_the_list_on_the_command_line(capsys):
    main(["isic2017 tloss", "alpha=0.7"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0].split("beta=")[1] for line in lines] == ["0.5", "0.7"]
    assert lines[1].endswith("T-Loss (MICCAI 2023), table 1; one V100, 32 GB; Dice 76.1 (0.6)")
