"""The command line of the experiment: words in any order, strict for every command, and files that are data alone."""

import json
import logging
from itertools import permutations

import pytest

import training  # noqa: F401 - registers the command
from config_ssl_upload import InputError, ex
from models.presets import AXES
from util.schema import flatten


def config(*words, **changes):
    return ex.run("print_config", named_configs=words, config_updates=changes).config


def test_no_two_axes_share_a_key():
    """So the order of words of different axes cannot matter."""
    keys = {axis: {key for values in words.values() for key in flatten(values)} for axis, words in AXES.items()}
    for one in keys:
        for other in keys:
            assert one == other or not keys[one] & keys[other], (one, other)


@pytest.mark.parametrize(
    "words", [("isic2017", "noisy_small", "ce"), ("alpnet", "sabs", "setting2", "small", "fast")], ids=" ".join
)
def test_words_in_any_order_mean_the_same(words):
    first, *others = [config(*order) for order in list(permutations(words))[:12]]
    assert all(other == first for other in others)


def test_words_that_contradict_each_other_are_named(caplog):
    with caplog.at_level(logging.WARNING):
        assert config("alpnet", "chaost2", "panet")["prototypes"] == "global"
    assert "alpnet and panet both name the method; the later one, panet, decides: prototypes=global" in caplog.text
    caplog.clear()
    config("jsrt", "jsrt_lung", "tloss")
    assert "both name" not in caplog.text


def test_a_file_of_settings_beats_the_words_and_the_command_line_beats_both(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("optim: {lr: 0.5, name: adam}\nn_steps: 7\n")
    found = config("isic2017", "ce", str(path), "noisy_small", n_steps=9)
    assert (found["optim"]["lr"], found["optim"]["name"], found["n_steps"], found["size_px"]) == (0.5, "adam", 9, 64)


def test_nothing_in_a_file_or_on_the_command_line_runs(tmp_path, monkeypatch, capsys):
    mark, path = tmp_path / "mark", tmp_path / "evil.json"
    reduce = {"py/reduce": [{"py/function": "os.system"}, {"py/tuple": [f"touch {mark}"]}]}
    path.write_text(json.dumps({"seed": reduce}))
    with pytest.raises(InputError, match=r"evil\.json: seed: 'py/reduce' is no key"):
        config("isic2017", "tloss", str(path))
    monkeypatch.setattr(ex, "default_command", "print_config")
    for words in ([str(path)], [f"seed={reduce}"]):
        for command in ([], ["print_config"], ["print_named_configs"]):
            with pytest.raises(SystemExit) as stopped:
                ex.run_commandline(["training.py", *command, "with", "isic2017", "tloss", *words])
            assert stopped.value.code
    assert not mark.exists()
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("name", ["tlos", "heart]", "nowhere.json"])
def test_an_unknown_word_is_named(name):
    expected = {"tlos": "did you mean tloss", "heart]": "a list with spaces is quoted", "nowhere.json": "no such file"}
    with pytest.raises(InputError, match=f"(?i){expected[name]}"):
        config("isic2017", name)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sede": 1}, "sede: unknown setting; did you mean seed"),
        ({"qwertz": 1}, r"qwertz: unknown setting; expected .* or \d+ others"),
        ({"n_steps": "many"}, r"n_steps='many' \(str\): expected int"),
        ({"optim": 3}, r"optim=3 .*a group of settings; give each of its own, such as optim\.name="),
        ({"structures": "lesion"}, r"On the command line a list is written in brackets: 'structures=\[lesion\]'"),
        ({"seed": -1}, "seed=-1: expected a value from 0 to 4294967295"),
        ({"seed": 99999999999}, "seed=99999999999: expected a value from 0"),
        ({"n_steps": 10**30}, "n_steps: a number of 100 bits"),
        ({"batch_size": 0}, "batch_size=0: expected a value from 1"),
        ({"num_workers": -1}, "num_workers=-1: expected 0 or more"),
        ({"optim": {"lr": -1}}, r"optim\.lr=-1\.0: expected 0 or more"),
        ({"optim": {"weight_decay": -1.0}}, r"optim\.weight_decay=-1\.0"),
        ({"optim": {"momentum": -1.0}}, r"optim\.momentum=-1\.0: expected a value in \[0, 1\)"),
        ({"optim": {"lr": float("nan")}}, r"optim\.lr=nan: expected a finite number"),
        ({"sce_alpha": float("inf")}, "sce_alpha=inf: expected a finite number"),
        ({"noise": {"seed": -1}}, r"noise\.seed=-1"),
        ({"unet": {"base_features": 10**9}}, r"unet\.base_features=1000000000: expected a value from 1 to 4096"),
        ({"export_temperature": 0}, r"export_temperature=0\.0: expected a number above 0"),
    ],
)
def test_every_command_refuses_what_training_refuses(changes, message):
    with pytest.raises(InputError, match=message):
        config("isic2017", "tloss", **changes)


def test_a_key_of_several_types_is_no_reason_to_warn(caplog):
    with caplog.at_level(logging.WARNING):
        config("alpnet", "chaost2", label_sets="all", max_iters_per_load=5)
        config("spguided", "isic2017", size_px=64, selection={"remember": [0.9, 0.9]})
    assert "Changed type" not in caplog.text
