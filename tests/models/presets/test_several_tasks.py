"""Settings of the methods for several partly labelled data sets: as published, and small for one CPU."""

from itertools import permutations

import pytest

import training  # noqa: F401 - registers the command
from config_ssl_upload import Settings, ex, read_settings
from dataloaders.partial.config import PartialDataConfig
from models import METHODS
from models.presets import several_tasks


def settings(*words, **changes) -> Settings:
    """The configuration of some words, as Sacred puts it together."""
    return read_settings(ex.run("print_config", config_updates=changes, named_configs=words).config)


def data_of(found: Settings) -> PartialDataConfig:
    assert isinstance(found.data, PartialDataConfig)
    return found.data


@pytest.mark.parametrize("method", several_tasks.METHODS)
def test_fundus_is_set_up_as_published(method):
    found = settings("fundus", method)
    run, data, values = found.run, data_of(found), found.values
    assert (run.batch_size, run.n_steps) == (4, 60_000)
    optim = run.optim
    assert (optim.name, optim.lr, optim.weight_decay, optim.betas) == ("adamw", 6e-5, 0.01, (0.9, 0.999))
    assert (optim.schedule, optim.power, optim.warmup_steps, optim.warmup_factor) == ("polynomial", 1.0, 1500, 1e-6)
    assert [spec.name for spec in data.trained] == ["RETA", "DDR", "REFUGE"]
    assert [(task.name, *task.classes) for task in data.task_list] == [
        ("vessel", "vessel"),
        ("lesion", "EX", "HE", "SE", "MA"),
        ("disc_cup", "disc", "cup"),
    ]
    assert (data.side_px, data.input_px, data.augmentation.scale) == (1024, 512, (0.5, 2.0))
    assert values["network"]["encoder"] == "swin_tiny_patch4_window7_224"
    assert values["network"]["channels"] == 128
    assert values["encoder_weights"] == "imagenet"
    assert (values["auxiliary_weight"], values["smooth"]) == (0.4, 1e-5)
    assert [head["name"] for head in values["heads"]] == ["vessel", "lesion", "disc_cup"]
    assert list(values["sources"]) == ["RETA", "DDR", "REFUGE"]
    assert (data.missing == "background") == (method == "partial_naive")


def test_the_second_stage_has_the_published_weights():
    values = settings("fundus", "partial_adversarial").values
    keys = ("adversarial_weight", "adversarial_auxiliary_weight", "pseudo_weight", "task_dropout", "attention")
    assert [values[key] for key in keys] == [0.1, 0.02, 0.05, 0.1, True]
    weights = {(each["source"], each["task"]): each["weight"] for each in values["pseudo_weights"]}
    assert weights == {("RETA", "lesion"): 0.1, ("REFUGE", "lesion"): 0.0}
    assert (values["discriminator"]["lr"], tuple(values["discriminator"]["betas"])) == (2e-4, (0.9, 0.99))


@pytest.mark.parametrize("word", [word for word in several_tasks.DATA if word != "fundus"])
def test_an_expert_learns_one_task_and_is_scored_on_the_sets_that_have_it(word):
    found = settings(word, "partial_generator")
    (task,) = data_of(found).task_list
    assert task.name.startswith(word.removeprefix("fundus_"))
    assert found.method_name == "Single-task expert"


def test_words_in_any_order_mean_the_same():
    words = ("fundus", "partial_adversarial", "partial_small")
    first, *others = (settings(*order) for order in permutations(words))
    assert all(other.values == first.values for other in others)
    assert (first.run.n_steps, first.values["network"]["encoder"]) == (300, "resnet10t")
    assert (data_of(first).side_px, data_of(first).input_px) == (96, 64)


def test_every_word_is_a_method_and_every_published_run_is_valid():
    assert {values["method"] for values in several_tasks.METHODS.values()} <= set(METHODS)
    for run in several_tasks.published_runs():
        words = [word for word in run.words.split() if "=" not in word]
        assert settings(*words).run.n_steps == 60_000
