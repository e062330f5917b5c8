"""What a run is called, when it is the same run, and which values its keys take."""

from dataclasses import asdict, dataclass

import pytest

import training  # noqa: F401 - registers the command
from config_ssl_upload import InputError, RunConfig, Settings, ex, identity, read_settings
from data.check.training import CHECKS
from dataloaders.build import FAMILIES, family
from dataloaders.protocol import DataConfig
from models import METHODS
from models.evaluation import EVALUATIONS
from util.errors import ConfigError
from util.schema import flatten, merge, names_with_role, option


def settings(*words, **changes) -> Settings:
    return read_settings(ex.run("print_config", config_updates=changes, named_configs=words).config)


ALPNET = ("alpnet", "chaost2", "setting2")


def test_every_layer_knows_the_same_families():
    assert set(FAMILIES) == set(EVALUATIONS) == set(CHECKS) == {method.family for method in METHODS.values()}
    assert all(isinstance(each.config(), DataConfig) for each in FAMILIES.values())


def test_a_family_that_does_not_exist_is_one_clear_message():
    with pytest.raises(ConfigError, match="family 'video': unknown; expected one of fewshot, dense"):
        family("video")


def test_practical_keys_do_not_change_a_run():
    plain = settings(*ALPNET)
    other = settings(*ALPNET, num_workers=0, device="cpu", print_interval=7, protocol="blind", path={"data_dir": "x"})
    assert other.experiment_folder == plain.experiment_folder
    other.require_same(plain.values, plain.experiment_folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 5},
        {"eval_fold": 1},
        {"temperature": 19.0},
        {"optim": {"lr": 0.5}},
        {"n_steps": 7},
        {"precision": "bf16"},
    ],
)
def test_any_other_key_does(changes):
    assert settings(*ALPNET, **changes).experiment_folder.name != settings(*ALPNET).experiment_folder.name


def test_only_repetitions_share_a_configuration_hash():
    plain = settings(*ALPNET).config_hash
    assert all(settings(*ALPNET, **each).config_hash == plain for each in ({"seed": 5}, {"eval_fold": 1}))
    assert settings(*ALPNET, temperature=19.0).config_hash != plain


def test_a_new_key_with_its_default_leaves_older_runs_the_same(monkeypatch):
    """A run saved before `brightness` existed is found under its name, and resumes."""
    before = settings(*ALPNET)

    @dataclass(frozen=True)
    class Newer(METHODS["alpnet"].Config):
        brightness: float = 0.5

    monkeypatch.setattr(METHODS["alpnet"], "Config", Newer)
    after, changed = settings(*ALPNET), settings(*ALPNET, brightness=0.7)
    assert "brightness" in after.values
    assert "brightness" not in before.values
    assert after.experiment_folder == before.experiment_folder
    after.require_same(before.values, before.experiment_folder)
    assert changed.experiment_folder != before.experiment_folder
    with pytest.raises(ConfigError, match=r"brightness: 0\.5 there, 0\.7 here"):
        changed.require_same(before.values, before.experiment_folder)


def test_the_version_of_the_settings_always_counts():
    values = settings(*ALPNET).values
    assert identity(values)["settings_version"] == RunConfig().settings_version
    assert identity(values | {"settings_version": 99}) != identity(values)


def test_a_description_of_ones_own_is_identified_by_its_content(tmp_path):
    text = "{name: 'MINE', kind: 'scans', classes: [{name: 'a'}, {name: 'b'}]%s}"
    path, moved = tmp_path / "mine.json5", tmp_path / "elsewhere.json5"
    path.write_text(text % ", title: 'one'")
    moved.write_text(text % ", title: 'another title', licence: 'mine'")
    first, second = (settings("alpnet", dataset=str(file)) for file in (path, moved))
    assert first.experiment_folder == second.experiment_folder
    assert first.experiment_folder.name.startswith("SSL-ALPNet_MINE_")
    moved.write_text(text % ", grid: {size_px: 128}")
    assert settings("alpnet", dataset=str(moved)).experiment_folder != first.experiment_folder


def test_a_data_set_of_the_wrong_kind_is_named():
    with pytest.raises(InputError, match=r"dataset='ISIC2017': a set of images, where scans are needed"):
        settings("alpnet", "isic2017")


def test_roles_are_found_at_every_depth():
    @dataclass(frozen=True)
    class Inner:
        depth: int = option(1, "architecture")
        speed: int = option(2, "practical")

    @dataclass(frozen=True)
    class Outer:
        inner: Inner = option(Inner)
        whole: Inner = option(Inner, "practical")
        plain: int = 3

    assert names_with_role("practical", Outer) == {"inner.speed", "whole"}
    assert names_with_role("architecture", Outer) == {"inner.depth", "whole.depth"}
    assert asdict(Outer())["inner"] == {"depth": 1, "speed": 2}


def test_nested_settings_are_merged_and_flattened_key_by_key():
    merged = merge({"a": {"x": 1, "y": (2, 3)}, "b": 1}, {"a": {"x": 5}}, {"b": {"z": 4}})
    assert merged == {"a": {"x": 5, "y": (2, 3)}, "b": {"z": 4}}
    assert flatten(merged) == {"a.x": 5, "a.y": [2, 3], "b.z": 4}
    assert flatten({"a": ({"x": (1, 2)},)}) == {"a": [{"x": [1, 2]}]}  # groups in a list, as JSON stores them


@pytest.mark.parametrize("prefix", ["../elsewhere", "/tmp/x", "a/b", "..", "-rf", "a\0b", "x" * 81])
def test_a_prefix_cannot_leave_the_log_folder(prefix):
    with pytest.raises(ConfigError, match=r"exp_prefix='.* as it becomes a part of a folder's name"):
        RunConfig(exp_prefix=prefix)
