"""The fold to be evaluated: its scans, scans that are there twice, and organs that the support lacks."""

import shutil

from data.check import check_folder
from tests.data.check.helpers import SPEC, assert_told, refresh, the_only


def test_an_organ_that_the_support_lacks(without_kidney):
    finding = the_only(check_folder(without_kidney, SPEC, eval_fold=0))
    assert_told(finding, "error", without_kidney / "label_8.nii.gz", "no voxel of RK", "support", "another fold")
    assert the_only(check_folder(without_kidney, SPEC, eval_fold=0, support_idx=[0])).severity == "warning"


def duplicate(folder, source, target):
    for kind in ("image", "label"):
        shutil.copy(folder / f"{kind}_{source}.nii.gz", folder / f"{kind}_{target}.nii.gz")
    refresh(folder)


def test_a_scan_on_two_sides_of_the_fold(folder):
    duplicate(folder, 3, 10)
    finding = the_only(check_folder(folder, SPEC, eval_fold=0))
    words = ["same image as image_3.nii.gz", "query and train", "Remove one"]
    assert_told(finding, "error", folder / "image_10.nii.gz", *words)
    assert the_only(check_folder(folder, SPEC)).severity == "warning"


def test_a_scan_twice_on_one_side_of_the_fold(folder):
    duplicate(folder, 2, 3)
    words = ["same image as image_2.nii.gz.", "Remove one"]
    assert_told(the_only(check_folder(folder, SPEC, eval_fold=0)), "warning", folder / "image_3.nii.gz", *words)


def test_a_fold_without_scans(folder):
    words = ["fold 3", "0 in this fold's interval", "Prepare more scans or take another fold"]
    assert_told(the_only(check_folder(folder, SPEC, eval_fold=3)), "error", folder, *words)


def test_scans_that_are_not_published_ones(folder):
    for kind in ("image", "label", "superpix-MIDDLE"):
        (folder / f"{kind}_10.nii.gz").rename(folder / f"{kind}_image_4.nii.gz")
    refresh(folder)
    words = ["scans image_4 are no published scans", "divided evenly", "Remove"]
    assert_told(the_only(check_folder(folder, SPEC)), "warning", folder, *words)
