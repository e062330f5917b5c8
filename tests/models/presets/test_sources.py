"""Settings of the methods for several sources: as published, in any order of words, and small for one CPU."""

from collections import Counter
from itertools import permutations, product

import pytest

import training  # noqa: F401 - registers the command
from config_ssl_upload import Settings, ex, read_settings
from dataloaders.catalog import dataset
from dataloaders.sources.config import SourcesDataConfig
from dataloaders.transforms.slices import SLICE_PRESETS
from models import METHODS
from models.presets import NAMED_CONFIGS, sources
from models.presets.published import DOMAINS, SOURCES_TABLES, TEST_PATIENTS, published_domain_dice

PUBLISHED = list(sources.published_runs())
BY_WORDS = {run.words: run for run in PUBLISHED}
SEMI = [word for word in sources.METHODS if word != "labelled_only"]


def settings(*words, **changes) -> Settings:
    """The configuration of some words, as Sacred puts it together."""
    return read_settings(ex.run("print_config", config_updates=changes, named_configs=words).config)


def slices_of(found: Settings) -> SourcesDataConfig:
    assert isinstance(found.data, SourcesDataConfig)
    return found.data


@pytest.mark.parametrize("method", sources.METHODS)
def test_mms_is_set_up_as_published(method):
    found = settings("mms", method, "labels5")
    run, data, values = found.run, slices_of(found), found.values
    assert (run.batch_size, run.n_steps) == (32, 45_000)
    optim = (run.optim.name, run.optim.lr, run.optim.weight_decay, run.optim.schedule)
    assert optim == ("adamw", 1e-4, 0.01, "constant")
    assert (data.spec.name, data.labelled_fraction, data.selection) == ("MMS", 0.05, "legacy")
    assert (data.input_px, data.percentiles, data.hist_match) == (288, (0.5, 99.5), "train+test")
    assert data.augmentation == SLICE_PRESETS["mms"]
    assert (values["network"]["kind"], values["network"]["n_classes"]) == ("deeplab", 4)
    assert values["encoder_weights"] == "imagenet"
    assert values["dice_background"]
    if method in SEMI:
        own = 1.0 if method == "mixed_teacher" else 3.0
        assert [values[key] for key in ("unlabelled_weight", "ramp_up_steps", "supervised_steps")] == [own, 0, 0]
        assert values["separate_passes"]


@pytest.mark.parametrize("method", sources.METHODS)
def test_scgm_is_set_up_as_published(method):
    found = settings("scgm", method, "labels20")
    run, data, values = found.run, slices_of(found), found.values
    assert (run.batch_size, run.n_steps) == (8, 2500)
    optim = (run.optim.name, run.optim.lr, run.optim.weight_decay, run.optim.schedule)
    assert optim == ("adamw", 1e-4, 0.01, "constant")
    assert (data.spec.name, data.labelled_fraction, data.selection) == ("SCGM", 0.2, "ceil")
    assert (data.input_px, data.percentiles, data.hist_match) == (288, (0.0, 100.0), "none")
    assert data.augmentation == SLICE_PRESETS["scgm"]
    assert values["network"]["n_classes"] == 2
    assert not values["dice_background"]
    if method in SEMI:
        weight = 1.0 if method == "mixed_teacher" else 1.5
        assert (values["unlabelled_weight"], values["supervised_steps"]) == (weight, 200)


def test_cacps_mixes_the_amplitudes_that_were_published():
    for word in ("mms", "scgm"):
        fourier = settings(word, "cacps").values["fourier"]
        assert (fourier["mode"], fourier["window"], fourier["strength"]) == ("swap", 0.01, 1.0)


def test_words_in_any_order_mean_the_same():
    words = ("scgm", "cacps", "labels20", "semidg_small")
    first, *others = (settings(*order) for order in permutations(words))
    assert all(other.values == first.values for other in others)
    assert len(others) == 23


@pytest.mark.parametrize(("word", "method"), list(product(sources.DATA, sources.METHODS)))
def test_a_small_run_fits_its_slices_and_goes_before_what_was_published(word, method):
    found = settings(word, method, "labels2", "semidg_small")
    run, data, values = found.run, slices_of(found), found.values
    assert (run.n_steps, run.batch_size, run.optim.lr) == (250, 4, 1e-2)
    assert (data.side_px, data.input_px, data.selection) == (72, 40, "ceil")
    assert data.input_px % 2 ** max(values["network"]["unet"]["halvings"]) == 0
    assert values["network"]["n_classes"] == len(dataset(word.upper()).class_names)
    if method in SEMI:
        assert values["ramp_up_steps"] < run.n_steps
        assert not values["separate_passes"]


def test_keys_win_over_words():
    changes = {"n_steps": 7, "hist_match": "none", "unlabelled_weight": 0.5, "optim": {"lr": 0.1}}
    found = settings("mms", "cacps", **changes)
    assert (found.run.n_steps, found.run.optim.lr, found.run.optim.name) == (7, 0.1, "adamw")
    assert (slices_of(found).hist_match, found.values["unlabelled_weight"]) == ("none", 0.5)


@pytest.mark.parametrize(
    ("word", "fraction"), [("labels2", 0.02), ("labels5", 0.05), ("labels20", 0.2), ("labels100", 1)]
)
def test_every_labelled_share_has_a_word(word, fraction):
    assert slices_of(settings("mms", "cps", word)).labelled_fraction == fraction


def test_runs_on_other_domains_have_folders_of_their_own():
    found = {settings("mms", "cacps", test_domains=[domain]).experiment_folder.name for domain in DOMAINS}
    assert len(found) == 4
    assert all(name.startswith("CACPS_MMS_2percent_legacy_to-") for name in found)


def test_every_method_of_the_family_has_its_own_word():
    named = {values["method"] for values in sources.METHODS.values()}
    assert named == set(sources.METHODS) == {name for name, method in METHODS.items() if method.family == "sources"}


def test_published_runs_are_different_and_complete():
    assert [words for words, count in Counter(run.words for run in PUBLISHED).items() if count > 1] == []
    words = [
        *(f"mms cacps labels{percent}" for percent in (2, 5)), "scgm cacps labels20", "mms labelled_only labels100"
    ]  # fmt: skip
    assert set(BY_WORDS) == {f"{each} test_domains=[{domain}]" for each in words for domain in DOMAINS}


@pytest.mark.parametrize("run", PUBLISHED, ids=lambda run: run.words)
def test_words_of_published_runs_exist_and_their_settings_are_valid(run):
    *words, target = run.words.split()
    assert set(words) <= set(NAMED_CONFIGS)
    domain = target.removeprefix("test_domains=[").removesuffix("]")
    found = settings(*words, test_domains=[domain])
    assert slices_of(found).test_domains == (domain,)
    assert run.source
    assert run.hardware


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("mms cacps labels2 test_domains=[A]", "82.35 ± 6.24"),
        ("mms cacps labels2 test_domains=[D]", "86.58 ± 4.78"),
        ("mms cacps labels5 test_domains=[B]", "85.04 ± 6.49"),
        ("scgm cacps labels20 test_domains=[C]", "78.75"),
        ("mms labelled_only labels100 test_domains=[A]", "no published figure could be verified"),
    ],
)
def test_expected_figures_are_those_of_the_tables(words, expected):
    assert BY_WORDS[words].expected == expected


def test_the_mean_of_each_line_is_that_of_its_domains():
    """To a tenth: some printed means differ from that of the printed figures in their last digits."""
    for (name, labelled), lines in SOURCES_TABLES.items():
        assert len(TEST_PATIENTS[name]) == len(DOMAINS)
        for method in lines:
            *figures, mean = (float(text.partition(" ")[0]) for text in published_domain_dice(name, labelled, method))
            assert len(figures) == len(DOMAINS)
            assert mean == pytest.approx(sum(figures) / len(DOMAINS), abs=0.1), (name, labelled, method)
    assert published_domain_dice("SCGM", "2 %", "CACPS") == ()
