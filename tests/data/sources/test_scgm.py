"""SCGM: file names, sites, the rule of the majority, and what is said of masks that do not fit."""

import numpy as np
import pytest

from data.sources.scgm import account, find_scans, read_scan
from dataloaders.catalog import dataset
from dataloaders.io.nifti import write_nifti
from dataloaders.samples import Volume
from util.errors import DataError

SCGM = dataset("SCGM")

AFFINE = np.diag([-0.5, -0.5, 5.0, 1.0])
SHAPE = (2, 4, 6)


def write(folder, name, array):
    path = folder / f"{name}.nii.gz"
    write_nifti(path, Volume(np.asarray(array), AFFINE))
    return path


def write_scan(folder, masks, name="site1-sc01"):
    write(folder, f"{name}-image", np.arange(48, dtype=np.int16).reshape(SHAPE))
    for rater, mask in masks.items():
        write(folder, f"{name}-mask-r{rater}", mask)


def mask(*columns, value=1):
    """A mask with `value` in some columns of the first slice, and white matter in its last."""
    array = np.zeros(SHAPE, np.uint8)
    array[0, :, -1] = 2
    array[0, :, list(columns)] = value
    return array


def the_scan(raw):
    (scan,) = find_scans(raw, SCGM)
    return scan


def test_scans_of_every_site_are_found_in_any_folder(tmp_path):
    for folder, name, raters in (
        *(("training", "site2-sc01", 4), ("training", "site1-sc10", 4), ("test", "site4-sc11", 0)),
        ("training", "site1-sc02", 2),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}-image.nii.gz").touch()
        for rater in range(1, raters + 1):
            (tmp_path / folder / f"{name}-mask-r{rater}.nii.gz").touch()
    (tmp_path / "training" / "site1-sc02-levels.txt").touch()
    (tmp_path / "training" / "site3-sc01-mask-r1.nii.gz").touch()
    scans = find_scans(tmp_path, SCGM)
    assert [scan.id for scan in scans] == ["site1-sc02", "site1-sc10", "site2-sc01", "site4-sc11"]
    assert [scan.origin.domain for scan in scans] == ["A", "A", "B", "D"]
    assert [len(scan.annotations) for scan in scans] == [2, 4, 4, 0]
    assert scans[1].annotations[3].files[0].name == "site1-sc10-mask-r4.nii.gz"
    text = account(tmp_path, scans)
    assert "14 used" in text
    assert "mask without image (training/site3-sc01-mask-r1.nii.gz)" in text


def test_grey_matter_is_what_more_than_half_of_the_raters_say(tmp_path):
    write_scan(tmp_path, {1: mask(0, 1, 2), 2: mask(1, 2), 3: mask(2), 4: mask(2, 3)})
    image, label = read_scan(the_scan(tmp_path), SCGM)
    assert label is not None
    assert image.array.shape == label.array.shape == SHAPE
    assert label.array.dtype == np.uint8
    assert label.array[0, 0].tolist() == [0, 0, 1, 0, 0, 0]  # two of four are not enough, white matter is background
    assert not label.array[1].any()


@pytest.mark.parametrize(("raters", "expected"), [((1,), [1, 1, 1]), ((1, 2), [0, 1, 1]), ((1, 2, 3), [0, 1, 1])])
def test_the_same_rule_holds_for_fewer_raters(tmp_path, raters, expected, caplog):
    masks = {1: mask(0, 1, 2), 2: mask(1, 2), 3: mask(2)}
    write_scan(tmp_path, {rater: masks[rater] for rater in raters})
    _, label = read_scan(the_scan(tmp_path), SCGM)
    assert label is not None
    assert label.array[0, 0, :3].tolist() == expected
    assert f"site1-sc01: masks of {len(raters)} raters; expected 4" in caplog.text


def test_a_scan_without_masks_is_not_labelled(tmp_path):
    write_scan(tmp_path, {})
    assert read_scan(the_scan(tmp_path), SCGM)[1] is None


def test_masks_that_do_not_fit_are_named(tmp_path):
    write_scan(tmp_path, {1: mask(0), 2: np.zeros((2, 4, 5), np.uint8)})
    with pytest.raises(DataError, match=r"mask-r2\.nii\.gz: a grid of \(2, 4, 5\) .* site1-sc01-image\.nii\.gz"):
        read_scan(the_scan(tmp_path), SCGM)
    write_scan(tmp_path, {1: mask(0), 2: mask(0, value=3)})
    with pytest.raises(DataError, match=r"mask-r2\.nii\.gz: values 3; expected 1 grey matter, 2 white matter and 0"):
        read_scan(the_scan(tmp_path), SCGM)


def test_two_files_of_a_scan_are_a_fault(tmp_path):
    write_scan(tmp_path / "a", {1: mask(0)})
    write_scan(tmp_path / "b", {1: mask(0)})
    assert "twice the same; expected one" in the_scan(tmp_path).fault


def test_a_folder_without_scans_says_what_is_expected(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}; expected site1-sc01-image.*README.*frugalseg phantom scgm"):
        find_scans(tmp_path, SCGM)
