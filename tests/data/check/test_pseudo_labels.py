"""Pseudo-labels: their ids, and the image that they were cut from."""

import numpy as np
import pytest

from data.check import check_folder
from data.superpixels.scans import write_pseudo_labels
from tests.data.check.helpers import SCANS, SPEC, assert_told, change, segment_again, the_only


def test_pseudo_labels_without_an_id(folder):
    path = folder / "superpix-MIDDLE_3.nii.gz"
    change(path, np.zeros_like)
    words = ["no superpixel in the whole scan", "above intensity 50", segment_again(folder)]
    assert_told(the_only(check_folder(folder, SPEC)), "error", path, *words)


@pytest.mark.parametrize("highest", [None, 30_000])
def test_pseudo_labels_with_gaps(folder, highest):
    path = folder / "superpix-MIDDLE_3.nii.gz"

    def spoil(array):
        array[1][array[1] == 1] = highest or array[1].max() + 1

    change(path, spoil)
    finding = the_only(check_folder(folder, SPEC))
    assert_told(finding, "error", path, "ids leave gaps", segment_again(folder))


def test_gaps_in_legacy_pseudo_labels_are_a_warning(folder):
    write_pseudo_labels(folder, SPEC, numbering="legacy")

    def first_and_third(array):
        array[:] = 0
        array[1, 0, :5], array[1, 1, :5] = 1, 3

    for number in SCANS:
        change(folder / f"superpix-MIDDLE_{number}.nii.gz", first_and_third)
    words = ["in scans 1, 2, 3, 5, 8, ...; expected", "normal in legacy numbering"]
    assert_told(the_only(check_folder(folder, SPEC)), "warning", folder / "superpix-MIDDLE_1.nii.gz", *words)


@pytest.mark.parametrize("value", [-1, 1.5, np.nan])
def test_pseudo_labels_that_are_no_ids(folder, value):
    path = folder / "superpix-MIDDLE_3.nii.gz"

    def spoil(array):
        array = array.astype(np.float64)
        array[0, 0, 0] = value
        return array

    change(path, spoil)
    assert_told(the_only(check_folder(folder, SPEC)), "error", path, "negative or no integers", segment_again(folder))


def test_supervoxels_are_numbered_over_the_scan(folder):
    write_pseudo_labels(folder, SPEC, scale="SUPERVOXEL")
    assert check_folder(folder, SPEC, scale="SUPERVOXEL") == []

    def two_slabs(array):
        array[0], array[1:] = 1, 2

    change(folder / "superpix-SUPERVOXEL_3.nii.gz", two_slabs)
    assert check_folder(folder, SPEC, scale="SUPERVOXEL") == []
    change(folder / "superpix-SUPERVOXEL_3.nii.gz", lambda array: np.where(array == 2, 3, array))
    finding = the_only(check_folder(folder, SPEC, scale="SUPERVOXEL"))
    assert_told(finding, "error", folder / "superpix-SUPERVOXEL_3.nii.gz", "gaps", "--scale SUPERVOXEL")


def test_pseudo_labels_of_another_image(folder):
    change(folder / "image_3.nii.gz", lambda array: array * 1.01)
    path = folder / "superpix-MIDDLE_3.nii.gz"
    finding = the_only(check_folder(folder, SPEC))
    assert_told(finding, "error", path, "stale", "another version of image_3.nii.gz", segment_again(folder))


def test_pseudo_labels_without_a_record(folder):
    (folder / "manifest.json").unlink()
    finding = the_only(check_folder(folder, SPEC))
    assert_told(finding, "warning", folder / "manifest.json", "scans 1, 2, 3, 5, 8, ...", segment_again(folder))
