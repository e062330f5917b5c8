"""Words, values and files of a command line: plain data or one message, and nothing in them runs."""

import json
import pickle

import pytest

from tests.dataloaders.io.fuzz import bit_flips, truncations
from util.config_words import parse_value, parse_words, plain_settings, read_config_file
from util.errors import ConfigError, UserError

SETTINGS = {"n_steps": 5, "optim": {"lr": 0.1, "betas": [0.9, 0.99]}, "structures": ["lung"], "size_px": None}
YAML = "n_steps: 5\noptim: {lr: 0.1, betas: [0.9, 0.99]}\nstructures:\n- lung\nsize_px: null\n"
REDUCE = '{"py/reduce": [{"py/function": "os.system"}, {"py/tuple": ["touch MARK"]}]}'


class Hostile:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the file was run')",))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5", 5),
        ("-1e-3", -1e-3),
        ("None", None),
        ("True", True),
        ("lung", "lung"),
        ("data/my set", "data/my set"),
        ("[1,2]", [1, 2]),
        ("('a','b')", ("a", "b")),
        ("[lung,heart,clavicle]", ["lung", "heart", "clavicle"]),
        ("[lung, 'heart']", ["lung", "heart"]),
        ("(lung,)", ["lung"]),
        ("[0.5,many]", [0.5, "many"]),
        ("[]", []),
        ("[", "["),
        ("[a,[b]]", "[a,[b]]"),
        ("[" * 100_000, "[" * 100_000),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_a_value_is_what_its_text_stands_for(text, value):
    assert parse_value(text) == value


def test_words_are_settings_or_names():
    settings, names = parse_words(["tloss", "seed=5", "optim.lr=1", "optim.name = adam", "", "my.json"])
    assert settings == {"seed": 5, "optim": {"lr": 1, "name": "adam"}}
    assert names == ["tloss", "my.json"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optim=3", "optim.lr=1"], r"optim\.lr=1: optim has been given a value"),
        (["=3"], "'' is no key"),
        (["a..b=3"], "'' is no key"),
        (["optim.py/reduce=3"], "'py/reduce' is no key"),
        ([f"seed={REDUCE}"], "'py/reduce' is no key"),
        (["seed={1: 2}"], "'1' is no key"),
        (["seed=b'1'"], "holds a bytes; expected a number"),
        (["seed={1, 2}"], "holds a set"),
    ],
)
def test_words_that_are_no_plain_settings_are_named(words, message):
    with pytest.raises(ConfigError, match=message):
        parse_words(words)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps(SETTINGS)),
        ("a.JSON5", "// mine\n{n_steps: 5, optim: {lr: .1, betas: [0.9, 0.99,]}, structures: ['lung'], size_px: null}"),
        ("a.yaml", YAML),
        ("a.yml", YAML),
    ],
)
def test_files_of_settings_are_read(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_config_file(tmp_path / name) == SETTINGS


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", f'{{"seed": {REDUCE}}}', r"a\.json: seed: 'py/reduce' is no key of a setting"),
        ("a.json", '{"py/object": "subprocess.Popen"}', "'py/object' is no key"),
        ("a.json", '{"seed": 1, "seed": 2}', r"a\.json: not valid JSON .*seed"),
        ("a.json", "[" * 100_000, r"a\.json: not valid JSON"),
        ("a.json", "[1]", "holds a list; expected settings by key"),
        ("a.json", "", r"a\.json: not valid JSON"),
        ("a.yaml", "seed: !!python/object/apply:os.system ['touch MARK']", r"a\.yaml: not valid YAML .*python/object"),
        ("a.yaml", "a: &a [1]\nb: [*a, *a]", r"a\.yaml: not valid YAML .*reference"),
        ("a.yaml", "seed: 2020-01-01", "seed: holds a date"),
        ("a.yaml", 'seed: !!int ""', r"a\.yaml: not valid YAML"),
        ("a.yaml", "", "holds a NoneType"),
        ("a.txt", "seed: 1", r"a\.txt: refused .*expected one of \.json, \.json5, \.yaml"),
        ("a.json", " " * (1 << 21), "at most 1 MiB"),
    ],
)
def test_other_files_are_refused_and_nothing_runs(tmp_path, monkeypatch, name, text, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config_file(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("suffix", [".pickle", ".pkl", ".json"])
def test_a_pickle_is_refused(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(pickle.dumps({"seed": Hostile()}))
    with pytest.raises(ConfigError, match=r"refused as a file of settings.*pickles|not valid JSON"):
        read_config_file(path)


def test_groups_hold_plain_values_alone():
    with pytest.raises(ConfigError, match="here: a: holds a Hostile"):
        plain_settings({"a": [{"b": 1}, Hostile()]}, "here")


@pytest.mark.parametrize(("name", "text"), [("a.json", json.dumps(SETTINGS)), ("a.yaml", YAML)])
def test_damaged_files_give_settings_or_a_user_error(tmp_path, name, text):
    path = tmp_path / name
    for damaged in (*truncations(text.encode()), *bit_flips(text.encode(), seed=1, count=150)):
        path.write_bytes(damaged)
        try:
            assert isinstance(read_config_file(path), dict)
        except UserError as error:
            assert str(path) in str(error)  # noqa: PT017 - most damage is found, some gives other settings
