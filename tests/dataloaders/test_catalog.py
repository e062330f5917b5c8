"""Data sets by name, and by the path of a description."""

import os

import pytest

from dataloaders.catalog import dataset, dataset_names, is_built_in
from dataloaders.description import FILE_NAME
from util.errors import ConfigError, DataError

OWN = '{name: "mine", kind: "scans", classes: [{name: "liver"}]}'


def write(path, text=OWN):
    path.write_text(text, encoding="utf-8")
    return path


def test_built_in_sets_are_found_in_any_case():
    assert dataset("chaost2") is dataset("CHAOST2")
    assert dataset("chaost2_superpix").name == "CHAOST2"
    assert is_built_in(dataset("sabs"))


def test_names_by_kind():
    assert set(dataset_names()) == set(dataset_names("scans")) | set(dataset_names("images"))
    assert {"CHAOST2", "SABS"} <= set(dataset_names("scans"))
    assert {"ISIC2017", "JSRT", "SHENZHEN"} <= set(dataset_names("images"))
    assert {"ARIA", "DDR", "DRIVE", "IDRiD", "REFUGE", "RETA", "STARE"} <= set(dataset_names("images"))


@pytest.mark.parametrize("name", dataset_names())
def test_a_built_in_set_survives_its_own_dictionary(name):
    spec = dataset(name)
    assert type(spec).from_dict(spec.to_dict()) == spec


def test_a_description_is_found_by_its_path_and_by_its_folder(tmp_path):
    write(tmp_path / FILE_NAME)
    assert dataset(tmp_path / FILE_NAME).name == "mine"
    assert dataset(str(tmp_path)).name == "mine"
    assert not is_built_in(dataset(tmp_path))


def test_a_description_that_changes_is_read_again(tmp_path):
    path = write(tmp_path / "my.json5")
    assert dataset(path).class_names == ("background", "liver")
    write(path, OWN.replace("liver", "spleen"))
    os.utime(path, ns=(1, 1))
    assert dataset(path).class_names == ("background", "spleen")


def test_a_folder_named_like_a_built_in_set_does_not_hide_it(tmp_path, monkeypatch):
    (tmp_path / "SABS").mkdir()
    write(tmp_path / "SABS" / FILE_NAME)
    monkeypatch.chdir(tmp_path)
    assert is_built_in(dataset("SABS"))


def test_a_description_with_the_name_of_a_built_in_set_is_not_built_in(tmp_path):
    assert not is_built_in(dataset(write(tmp_path / "x.json5", OWN.replace("mine", "sabs"))))


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ConfigError, match=r"dataset='chaos': unknown.*; expected one of .*SABS.*my_set\.json5"):
        dataset("chaos")


def test_the_kind_must_be_the_one_that_is_needed(tmp_path):
    path = write(tmp_path / "my.json5")
    assert dataset(path, "scans").kind == "scans"
    with pytest.raises(ConfigError, match=r"a set of scans, where images are needed; expected one of .*ISIC2017"):
        dataset(path, "images")
    with pytest.raises(ConfigError, match="a set of scans, where images are needed"):
        dataset("SABS", "images")


def test_an_absent_description_says_how_to_write_one(tmp_path):
    with pytest.raises(DataError, match=r"gone\.json5: cannot be read .*frugalseg describe FOLDER"):
        dataset(tmp_path / "gone.json5")
