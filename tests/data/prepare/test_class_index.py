import json
from dataclasses import replace

import numpy as np
import pytest

from data.prepare.class_index import class_pixels, make_class_index, write_class_index
from dataloaders.catalog import dataset
from dataloaders.description import FoldRule
from dataloaders.io.nifti import write_nifti
from dataloaders.samples import Volume
from util.errors import ConfigError, DataError

CHAOST2 = dataset("CHAOST2")


def write_label(path, array):
    write_nifti(path, Volume(array, np.eye(4)))


def by_hand():
    label = np.zeros((4, 5, 6))
    label[1, :2, 0] = 1  # liver: 2 pixels on slice 1, 1 on slice 3
    label[3, 0, 0] = 1
    label[2, 0, :] = 4  # spleen: 6 pixels on slice 2
    label[3, :, :] = np.where(label[3] == 0, 2, label[3])  # right kidney fills slice 3
    return label


def test_pixels_are_counted_per_class_and_slice():
    expected = [[30, 28, 24, 0], [0, 2, 0, 1], [0, 0, 0, 29], [0, 0, 0, 0], [0, 0, 6, 0]]
    np.testing.assert_array_equal(class_pixels(by_hand(), 5), expected)


def test_pixels_equal_a_count_class_by_class():
    label = np.random.default_rng(0).integers(0, 14, (7, 9, 8)).astype(np.uint8)
    expected = [[np.count_nonzero(slice_ == value) for slice_ in label] for value in range(14)]
    np.testing.assert_array_equal(class_pixels(label, 14), expected)


def test_values_that_are_no_class_count_nowhere():
    label = np.array([[[0, 1, 1.5, -1, 5, np.nan, np.inf]]])
    np.testing.assert_array_equal(class_pixels(label, 5)[:, 0], [1, 1, 0, 0, 0])


@pytest.mark.parametrize(
    ("least", "liver", "spleen", "background"),
    [(1, [1, 3], [2], [0, 1, 2]), (2, [1], [2], [0, 1, 2]), (7, [], [], [0, 1, 2]), (29, [], [], [0])],
)
def test_each_class_is_judged_by_its_own_pixels(tmp_path, least, liver, spleen, background):
    write_label(tmp_path / "label_10.nii.gz", by_hand())
    write_label(tmp_path / "label_2.nii.gz", np.zeros((2, 5, 6), np.uint8))
    write_class_index(tmp_path, CHAOST2, least)
    index = json.loads((tmp_path / f"classmap_{least}.json").read_text())
    assert list(index) == list(CHAOST2.class_names)
    assert all(list(scans) == ["2", "10"] for scans in index.values())
    assert index["LIVER"] == {"2": [], "10": liver}
    assert index["SPLEEN"]["10"] == spleen
    assert index["BG"] == {"2": [0, 1], "10": background}
    assert index["RK"]["10"] == [3]


def test_the_index_of_counted_pixels():
    index = make_class_index({"7": np.array([[0, 3], [2, 1], [0, 0], [0, 0], [5, 5]])}, CHAOST2, 2)
    assert index == {"BG": {"7": [1]}, "LIVER": {"7": [0]}, "RK": {"7": []}, "LK": {"7": []}, "SPLEEN": {"7": [0, 1]}}


def test_scans_without_a_label_are_not_in_the_index(tmp_path):
    write_label(tmp_path / "label_b_2.nii.gz", by_hand())
    for scan in ("a", "b_2"):
        write_label(tmp_path / f"image_{scan}.nii.gz", by_hand())
    spec = replace(CHAOST2, name="mine", cases=(), folds=FoldRule())
    write_class_index(tmp_path, spec)
    assert list(json.loads((tmp_path / "classmap_1.json").read_text())["LIVER"]) == ["b_2"]
    (tmp_path / "label_b_2.nii.gz").unlink()
    write_class_index(tmp_path, spec)
    assert json.loads((tmp_path / "classmap_1.json").read_text())["LIVER"] == {}
    with pytest.raises(DataError, match="no label_"):  # published scans have labels
        write_class_index(tmp_path, CHAOST2)


@pytest.mark.parametrize("value", [5, 1.5, -1, np.nan])
def test_unknown_values_are_named(tmp_path, value):
    label = np.zeros((2, 3, 3))
    write_label(tmp_path / "label_2.nii.gz", np.eye(1, 18).reshape(2, 3, 3))
    label[1, 1, 1] = value
    write_label(tmp_path / "label_3.nii.gz", label)
    expected = "0 to 4.*Correct the file" if value in (5, -1) else "in 1 of 18 voxels; expected whole numbers"
    with pytest.raises(DataError, match=rf"label_3\.nii\.gz: label values {value:g} .*{expected}"):
        write_class_index(tmp_path, CHAOST2)
    index = json.loads((tmp_path / "classmap_1.json").read_text())
    assert index["LIVER"] == {"2": [0]}  # the others are done


def test_bad_input_is_named_with_a_remedy(tmp_path):
    with pytest.raises(DataError, match=r"no label_.*frugalseg prepare CHAOST2"):
        write_class_index(tmp_path, CHAOST2)
    with pytest.raises(ConfigError, match="min_foreground_px=0: expected at least 1"):
        write_class_index(tmp_path, CHAOST2, 0)
