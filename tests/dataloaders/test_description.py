"""The schema of descriptions: what is accepted, what is refused and with which words."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from dataloaders.catalog import dataset
from dataloaders.description import (
    ClassSpec,
    DatasetSpec,
    FoldRule,
    GridRule,
    IntensityRule,
    SplitRule,
    read_description,
)
from util.errors import ConfigError, DataError

OWN = {"name": "mine", "kind": "images", "classes": [{"name": "lung", "value": 7}, {"name": "heart"}]}


def spec(**changes):
    return DatasetSpec.from_dict({**OWN, **changes})


def test_defaults_and_values_of_classes():
    own = spec()
    assert own.class_names == ("background", "lung", "heart")
    assert (own.supplied_value(1), own.supplied_value(2)) == (7, 2)  # 2: the place, as no value is given
    assert own.headings == {1: "lung", 2: "heart"}
    assert own.evaluated == (1, 2)
    assert own.structure("heart").n_segments == 100
    assert (own.masks, own.annotators, own.n_folds) == ("trusted", "majority", 5)


def test_folders():
    assert spec().prepared_folder() == "mine/prepared_256px"
    assert spec().prepared_folder(64) == "mine/prepared_64px"
    assert spec(kind="scans").prepared_folder() == "mine/prepared"
    assert spec(kind="scans", prepared="a/b").prepared_folder() == "a/b"


def test_held_out_classes():
    sabs = dataset("SABS")
    assert sabs.held_out("all") == sabs.evaluated == (1, 2, 3, 6)
    assert sabs.held_out(0) == (2, 3)
    assert spec(kind="scans").held_out(0) == (1, 2)  # without groups, all classes are tested
    with pytest.raises(ConfigError, match=r"label_sets=2: unknown group of SABS; expected one of \[0, 1, 'all'\]"):
        sabs.held_out(2)


def test_the_window_of_a_class():
    clavicle = ClassSpec("clavicle", crop=(0.0, 0.375, 0.09375, 0.96875))
    assert clavicle.window(256) == (slice(0, 96), slice(24, 248))


IMPOSSIBLE = [
    ({"name": ""}, r"name='' is empty"),
    ({"name": "a/b"}, r"name='a/b' holds a slash"),
    ({"name": ".."}, r"name='\.\.' begins with a dash or a dot"),
    ({"prepared": "/tmp/x"}, r"prepared='/tmp/x': the part '' is empty"),
    ({"prepared": "a/../../x"}, r"prepared='a/\.\./\.\./x': the part '\.\.' begins with a dash or a dot"),
    ({"cases": ["1", "../2"]}, r"cases: the id '\.\./2' holds a slash"),
    ({"folds": {"number": 1, "lists": [["a/b"]]}}, r"folds\.lists: the id 'a/b' holds a slash"),
    ({"classes": [{"name": "../a"}]}, r"name='\.\./a' holds a slash"),
    ({"kind": "volumes"}, r"kind='volumes': expected one of scans, images"),
    ({"clases": []}, r"clases: unknown setting; did you mean classes"),
    ({"classes": []}, r"classes: none; a set of images needs at least one"),
    ({"classes": [{"name": " "}]}, r"name=' ' is empty or begins or ends with white space"),
    ({"classes": [{"name": "a"}, {"name": "a"}]}, r"classes: name='a' is given twice"),
    ({"classes": [{"name": "a"}, {"name": "b", "value": 1}]}, r"classes: value=1 is given twice"),
    ({"classes": [{"name": "a", "value": 0}]}, r"value=0 of class 'a': expected 1 to 2147483647; 0 is background"),
    ({"classes": [{"name": "a", "value": 65_536}]}, r"classes: value=65536; expected at most 65535 in pictures"),
    ({"classes": [{"name": f"c{n}"} for n in range(255)]}, r"classes: 255; expected at most 254"),
    ({"classes": [{"name": "a", "value": 1.5}]}, r"value=1\.5 \(float\): expected"),
    ({"classes": [{"name": "a", "colour": [0, 0, 256]}]}, r"colour=\[0, 0, 256\] of class 'a': expected three numbers"),
    ({"classes": [{"name": c, "colour": [1, 2, 3]} for c in "ab"]}, r"classes: colour=\(1, 2, 3\) is given twice"),
    ({"classes": [{"name": "a", "colour": [0, 0, 0]}]}, r"background_colour=\[0, 0, 0\]: also the colour of a class"),
    ({"classes": [{"name": "a", "crop": [0.5, 0.2, 0, 1]}]}, r"crop=\[0\.5, 0\.2, 0\.0, 1\.0\] of class 'a'"),
    ({"classes": [{"name": "a", "noise_rotation_deg": 181}]}, r"noise_rotation_deg=181\.0 of 'a': expected 0 to 180"),
    ({"classes": [{"name": "a", "n_segments": 1}]}, r"n_segments=1 of class 'a': expected 2 to 65535"),
    ({"label_groups": [["liver"]]}, r"label_groups: 'liver' is no class; expected some of lung, heart"),
    ({"channels": 2}, r"channels=2: expected one of 1, 3"),
    ({"masks": "wrong"}, r"masks='wrong': expected one of trusted, suspect"),
    ({"grid": {"size_px": 8}}, r"size_px=8: expected 16 or more"),
    ({"grid": {"size_px": True}}, r"size_px=True \(bool\)"),
    ({"grid": {"spacing_mm": [1, 0, 1]}}, r"spacing_mm=\[1\.0, 0\.0, 1\.0\]: expected three positive distances"),
    ({"grid": {"axis_codes": "LAL"}}, r"axis_codes='LAL': expected one each of"),
    ({"grid": {"in_plane_mm": 0}}, r"in_plane_mm=0\.0: expected a positive distance"),
    ({"grid": {"in_plane_mm": 1, "spacing_mm": [1, 1, 1]}}, r"spacing_mm and in_plane_mm: both given"),
    ({"grid": {"border_fraction": 0.5}}, r"border_fraction=0\.5: expected a fraction from 0, below 0\.5"),
    ({"grid": {"aspect": "crop"}}, r"aspect='crop': expected one of squeeze, pad"),
    ({"intensity": {"clip_percentile": 0}}, r"clip_percentile=0\.0: expected above 0, at most 100"),
    ({"intensity": {"window": [5, 5]}}, r"window=\[5\.0, 5\.0\]: expected the lower end first"),
    ({"intensity": {"normalise_by": "set"}}, r"normalise_by='set': expected one of scan, training_scans"),
    ({"folds": {"number": 0}}, r"number=0: expected 1 or more"),
    ({"folds": {"number": 2, "starts": [0, 1]}}, r"starts=\[0, 1\]: expected 3 ascending positions"),
    ({"folds": {"number": 2, "lists": [["1"]]}}, r"lists: 1 given; expected number=2"),
    ({"folds": {"number": 1, "starts": [0, 1], "lists": [["1"]]}}, r"starts and lists: both given"),
    ({"split": {"test": 0}}, r"test=0\.0, validation=0\.0: expected fractions"),
    ({"split": {"test": 0.6, "validation": 0.5}}, r"test=0\.6, validation=0\.5"),
    ({"domains": {"A/B": "x"}}, r"domains: the id 'A/B' holds a slash"),
    ({"domains": {"A": 1}}, r"domains\.A=1: expected a name"),
    ({"episodes_per_pass": 0}, r"episodes_per_pass=0: expected 1 or more"),
]


@pytest.mark.parametrize(("changes", "message"), IMPOSSIBLE)
def test_impossible_values_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        spec(**changes)


def test_scans_need_no_class_and_have_at_most_254():
    assert spec(kind="scans", classes=[]).class_names == ("background",)
    with pytest.raises(ConfigError, match="classes: 255; expected at most 254"):
        spec(kind="scans", classes=[{"name": str(number)} for number in range(255)])


def test_a_missing_key_is_named():
    with pytest.raises(ConfigError, match=r"^kind: missing; expected"):
        DatasetSpec.from_dict({"name": "mine"})


def test_the_digest_changes_with_what_changes_results_alone():
    own = spec()
    assert replace(own, title="A title", source="x", licence="y", files="z.csv").digest == own.digest
    assert replace(own, split=SplitRule(seed=1)).digest != own.digest
    assert replace(own, folds=FoldRule(number=3)).digest != own.digest
    assert replace(own, domains={"A": "Siemens"}, superpixels=False).digest == own.digest
    assert replace(own, grid=replace(own.grid, in_plane_mm=1.1)).digest != own.digest
    assert DatasetSpec.from_dict(own.to_dict()) == own


def test_keys_of_later_versions_leave_the_digest_unchanged():
    assert spec().digest == "52c06a79"  # recorded before there were `in_plane_mm`, `domains` and `superpixels`


def test_slices_may_stay_as_they_are_stored():
    grid = spec(kind="scans", grid={"axis_codes": "stored", "in_plane_mm": 1.1}, domains={"A": "Siemens"}).grid
    assert (grid.axis_codes, grid.in_plane_mm, grid.spacing_mm) == ("stored", 1.1, None)


def test_comments_byte_order_mark_and_trailing_commas(tmp_path):
    path = tmp_path / "my.json5"
    path.write_text('\ufeff// mine\n{name: "mine", kind: "scans", /* none */ classes: [],}', encoding="utf-8")
    assert read_description(path).name == "mine"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{name: ", DataError, r"my\.json5: not valid JSON5 \("),
        ('{name: "a", name: "b"}', DataError, r"my\.json5: not valid JSON5 .*name"),
        ("[" * 100_000, DataError, r"my\.json5: not valid JSON5"),
        ("[1]", DataError, r"my\.json5: holds a list; expected \{name: \.\.\., kind: \.\.\., \.\.\.\}"),
        ('{name: "a", kind: "scan"}', ConfigError, r"my\.json5: kind='scan': expected one of scans, images"),
    ],
)
def test_unreadable_descriptions_name_the_file(tmp_path, text, error, message):
    path = tmp_path / "my.json5"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(error, match=message):
        read_description(path)


def test_a_description_in_another_encoding_is_refused(tmp_path):
    path = tmp_path / "my.json5"
    path.write_bytes('{name: "Grün", kind: "scans"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"my\.json5: cannot be read: not UTF-8 \('utf-8' codec"):
        read_description(path)


def test_the_document_explains_every_key():
    text = (Path(__file__).parents[2] / "docs/own_data.md").read_text(encoding="utf-8")
    parts = {
        "": DatasetSpec,
        "classes[].": ClassSpec,
        "grid.": GridRule,
        "intensity.": IntensityRule,
        "folds.": FoldRule,
        "split.": SplitRule,
    }
    keys = [prefix + field.name for prefix, part in parts.items() for field in fields(part)]
    nested = {prefix.rstrip(".") for prefix in parts}
    assert [key for key in keys if key not in nested and f"`{key}`" not in text] == []
