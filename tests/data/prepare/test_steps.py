"""Targets of the commands: names, descriptions and prepared folders."""

import json
from pathlib import Path

import pytest

from data.check.__main__ import main as check
from data.noise.__main__ import main as noise
from data.prepare.__main__ import main as prepare
from data.prepare.steps import files_table, resolve_target
from data.superpixels.__main__ import main as superpixels
from dataloaders.catalog import FOLDER, dataset
from dataloaders.description import write_description
from util.errors import ConfigError, DataError

ISIC2017, CHAOST2 = dataset("ISIC2017"), dataset("CHAOST2")


@pytest.fixture
def prepared(tmp_path):
    folder = tmp_path / "prepared_64px"
    folder.mkdir()
    (folder / "manifest.csv").write_text("id,split\n")
    return folder


def test_a_name_means_the_folder_below_the_data_root(tmp_path):
    assert resolve_target("isic2017", tmp_path) == (ISIC2017, tmp_path / "ISIC2017/prepared_128px")
    assert resolve_target("ISIC2017", tmp_path, size_px=64)[1] == tmp_path / "ISIC2017/prepared_64px"
    assert resolve_target("chaost2", tmp_path) == (CHAOST2, tmp_path / "CHAOST2/chaos_MR_T2_normalized")


def test_a_name_is_not_taken_for_a_folder_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ISIC2017").mkdir()
    assert resolve_target("ISIC2017", Path())[1] == Path("ISIC2017/prepared_128px")


def test_a_description_or_its_folder(tmp_path):
    assert resolve_target(FOLDER / "ISIC2017", tmp_path) == (ISIC2017, tmp_path / "ISIC2017/prepared_128px")
    assert resolve_target(FOLDER / "ISIC2017/dataset.json5", tmp_path)[0] == ISIC2017


def test_a_prepared_folder_describes_itself(prepared, tmp_path):
    write_description(prepared, ISIC2017)
    assert resolve_target(prepared, tmp_path / "elsewhere") == (ISIC2017, prepared)


def test_another_programs_folder_needs_a_name(prepared, tmp_path):
    with pytest.raises(ConfigError, match=r"prepared_64px: no dataset\.json5 in this folder.*Add --dataset NAME"):
        resolve_target(prepared, tmp_path)
    assert resolve_target(prepared, tmp_path, "isic2017") == (ISIC2017, prepared)
    with pytest.raises(ConfigError, match="--dataset jsrt: only next to a prepared folder"):
        resolve_target("isic2017", tmp_path, "jsrt")


def test_the_data_root_can_be_the_prepared_folder_of_images(prepared):
    assert resolve_target("isic2017", prepared) == (ISIC2017, prepared)


def test_the_table_is_next_to_the_description(tmp_path):
    content = {"name": "MINE", "kind": "images", "classes": [{"name": "a"}], "files": "mine.csv"}
    path = tmp_path / "mine.json5"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"mine\.csv: no such file; expected the table of files"):
        files_table(path, dataset(path))
    (tmp_path / "mine.csv").write_text("")
    assert files_table(path, dataset(path)) == tmp_path / "mine.csv"
    assert files_table("isic2017", ISIC2017) is None


@pytest.mark.parametrize(
    ("main", "arguments", "message"),
    [
        (superpixels, ["chaost2", "--clahe"], "--clahe: not for sets of scans. Leave it out for chaost2"),
        (superpixels, ["chaost2", "--import-json", "x"], "--import-json: not for sets of scans"),
        (superpixels, ["isic2017", "--scale", "SLIC"], "--scale: not for sets of images. Leave it out for isic2017"),
        (superpixels, ["isic2017", "--min-area-px", "1"], "--min-area-px: not for sets of images"),
        (check, ["isic2017", "--fold", "0"], "--fold: not for sets of images"),
        (check, ["sabs", "--size-px", "64"], "--size-px: not for sets of scans"),
        (prepare, ["isic2017", "--min-foreground-px", "3"], "--min-foreground-px: not for sets of images"),
        (
            noise,
            ["chaost2", "--alpha", "1", "--beta", "0.5"],
            "CHAOST2 is a set of scans; expected a set of images",
        ),
        (noise, ["isic2018", "--alpha", "1", "--beta", "0.5"], "'isic2018': unknown data set; expected one of"),
    ],
)
def test_options_that_do_not_apply_are_refused(main, arguments, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        main([*arguments, "--out" if main is prepare else "--data-dir", str(tmp_path)])


def test_noise_needs_its_strength(prepared):
    with pytest.raises(ConfigError, match="--alpha, --beta: missing; expected both"):
        noise([str(prepared), "--dataset", "isic2017", "--alpha", "0.5"])


def test_the_index_of_a_prepared_folder(make_prepared, tmp_path):
    folder = make_prepared(tmp_path / "scans", (1, 2), n_slices=6, size=32)
    prepare([str(folder), "--dataset", "chaost2", "--step", "index", "--min-foreground-px", "5"])
    assert (folder / "classmap_5.json").is_file()
    with pytest.raises(ConfigError, match=r"scans: a folder; expected the name.*NAME --raw"):
        prepare([str(folder), "--dataset", "chaost2"])


def test_superpixels_of_a_prepared_folder_of_scans(make_prepared, tmp_path):
    folder = make_prepared(tmp_path / "scans", (1,), n_slices=4, size=32)
    write_description(folder, CHAOST2)
    superpixels([str(folder), "--scale", "SLIC"])
    assert (folder / "superpix-SLIC_1.nii.gz").is_file()
