"""Reading raw images and masks, and the rules of splitting that every image set shares."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.prepare.splits import choose, split_images
from data.sources import shenzhen
from data.sources.raw_images import RawImage, match_ids, read_grey, read_raw_mask, read_rgb
from util.errors import ConfigError, DataError


def save(path, array):
    Image.fromarray(np.asarray(array, np.uint8)).save(path)
    return path


def raws(ids):
    return [RawImage(id_, Path(id_), {}, "") for id_ in ids]


def test_ids_are_read_in_any_case():
    files = [Path("x/ab1.PNG"), Path("x/AB2.png"), Path("x/AB3.png.bak")]
    assert match_ids(files, r"(AB\d)\.png") == {"AB1": files[0], "AB2": files[1]}


def test_grey_keeps_the_scale_of_colour_files(tmp_path):
    grey = np.array([[0, 7, 255]], np.uint8)
    for name, image in (("L.png", grey), ("RGB.png", np.repeat(grey[..., None], 3, axis=-1))):
        np.testing.assert_array_equal(read_grey(save(tmp_path / name, image)), grey)
    palette = Image.fromarray(grey).convert("P")
    palette.save(tmp_path / "P.png")
    np.testing.assert_array_equal(read_grey(tmp_path / "P.png"), grey)


def test_deep_truncated_and_absent_images_are_named(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(DataError, match=r"deep\.png: uint16 pixels; expected 8 bits.*Download"):
        read_grey(tmp_path / "deep.png")
    path = save(tmp_path / "cut.jpg", np.random.default_rng(0).integers(0, 255, (40, 40, 3)))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match=r"cut\.jpg: cannot be read as an image.*download"):
        read_rgb(path)
    with pytest.raises(DataError, match=r"none\.png: no such file.*copy the file"):
        read_rgb(tmp_path / "none.png")


@pytest.mark.parametrize(
    ("values", "mask", "n_not_binary"),
    [
        ([0, 255, 0, 255], [0, 1, 0, 1], 0),
        ([0, 1, 0, 1], [0, 1, 0, 1], 0),
        ([0, 90, 0, 90], [0, 1, 0, 1], 0),
        ([0, 127, 128, 255], [0, 0, 1, 1], 2),
        ([0, 0, 0, 0], [0, 0, 0, 0], 0),
    ],
)
def test_masks_are_thresholded_only_where_they_hold_greys(tmp_path, values, mask, n_not_binary):
    found, count = read_raw_mask(save(tmp_path / "mask.png", [values]))
    assert found.tolist() == [[bool(value) for value in mask]]
    assert count == n_not_binary


def test_labels_are_no_mask(tmp_path):
    found = r"mask\.png: values 1 \(1 pixels\), 2 \(1 pixels\) besides 0, which are labels"
    with pytest.raises(DataError, match=rf"{found}.*Write the object as 255.*value"):
        read_raw_mask(save(tmp_path / "mask.png", [[0, 1, 2]]))


def test_a_split_file_rules(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("id,split\na,train\nb,test\nnot here,test\n")
    rule, splits = split_images(raws("abc"), str(path), {}, "X")
    assert (rule, splits) == (str(path), {"a": "train", "b": "test", "c": "unused"})


def test_what_a_split_file_does_not_match_is_named(tmp_path, caplog):
    path = tmp_path / "split.csv"
    path.write_text("id;split\na;train\nb;test\nA.jpg;test\n", encoding="utf-16")
    assert split_images(raws("abc"), str(path), {}, "X")[1] == {"a": "train", "b": "test", "c": "unused"}
    assert caplog.messages == [
        f"{path}: 1 of 3 ids match no image and are left out: A.jpg; the images have ids such as a",
        f"{path}: 1 of 3 images are not listed and are not used: c",
    ]


def test_an_id_of_a_split_file_is_no_path(tmp_path):
    path = tmp_path / "split.csv"
    path.write_text("id,split\na,train\n../b,test\n")
    with pytest.raises(DataError, match=r"split\.csv, line 3: the id '\.\./b' holds a slash.*Correct the file"):
        split_images(raws("ab"), str(path), {}, "X")


@pytest.mark.parametrize("line", ["a,val", "a,test"])
def test_a_wrong_split_file_is_named(tmp_path, line):
    path = tmp_path / "split.csv"
    path.write_text(f"id,split\na,train\nb,test\n{line}\n")
    with pytest.raises(
        DataError, match=r"split\.csv: a is in split '\w+'; expected one of train, validation, test, unused.*Correct"
    ):
        split_images(raws("ab"), str(path), {}, "X")


@pytest.mark.parametrize("rule", ["random:1", "random:x", "random:0"])
def test_a_share_must_be_a_share(rule):
    with pytest.raises(ConfigError, match=rf"--split {rule}: expected the fraction.*random:0\.25"):
        split_images(raws("ab"), rule, {}, "X")


def test_an_unknown_rule_lists_those_that_exist():
    with pytest.raises(
        ConfigError, match=r"--split scr: neither a rule nor a file; expected stratified, reference, ran"
    ):
        split_images(raws("ab"), "scr", shenzhen.SOURCE.split_rules, "SHENZHEN")


def test_a_split_without_test_images_is_refused():
    with pytest.raises(DataError, match=r"2 images for training and 0 for testing by the rule 'random:0\.1'.*--split"):
        split_images(raws("ab"), "random:0.1", {}, "X")


def test_choosing_is_independent_of_the_order_given():
    assert choose(["c", "a", "b", "d"], 2) == choose(["a", "b", "c", "d"], 2)
