"""Scans and their files: what is missing or damaged, where voxels lie, intensities and labels."""

from dataclasses import replace

import numpy as np
import pytest

from data.check import check_folder
from dataloaders.catalog import dataset
from tests.data.check.helpers import AFFINE, PREPARE, SCANS, SPEC, assert_told, change, refresh, segment_again, the_only

CHAOST2 = dataset("CHAOST2")


@pytest.mark.parametrize("kind", ["image", "label", "superpix-MIDDLE"])
def test_a_missing_file(folder, kind):
    path = folder / f"{kind}_3.nii.gz"
    path.unlink()
    found = [finding for finding in check_folder(folder, SPEC) if finding.file == path]
    remedy = segment_again(folder) if kind.startswith("superpix") else PREPARE
    assert_told(the_only(found), "error", path, "is missing", "scan 3", remedy)


@pytest.mark.parametrize("kind", ["image", "label", "superpix-MIDDLE"])
def test_a_truncated_file(folder, kind):
    path = folder / f"{kind}_3.nii.gz"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    found = [finding for finding in check_folder(folder, SPEC) if finding.file == path]
    assert_told(the_only(found), "error", path, "truncated", "Copy or make the file again")


@pytest.mark.parametrize(("kind", "step"), [("label", PREPARE), ("superpix-MIDDLE", "frugalseg superpixels")])
def test_shapes_that_differ(folder, kind, step):
    path = folder / f"{kind}_3.nii.gz"
    change(path, lambda array: array[:, :, :-1])
    found = [finding for finding in check_folder(folder, SPEC) if "shape" in finding.text]
    assert_told(the_only(found), "error", path, "(3, 32, 31) differs from (3, 32, 32) of image_3.nii.gz", step)


FLIPPED = AFFINE @ np.diag([1, -1, 1, 1])


@pytest.mark.parametrize("kind", ["label", "superpix-MIDDLE"])
@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (AFFINE @ np.diag([1, 1, 1.1, 1]), ["spacing (z, y, x) (8.47, 1.25, 1.25) mm differs from (7.7, 1.25, 1.25)"]),
        (FLIPPED, ["orientation", "-1.25, 0.0], [0.0, 0.0, 7.7]]"]),
        (AFFINE + np.eye(4, k=3) * 3, ["origin (x, y, z) [13.0, -20.0, 30.0] mm differs from [10.0, -20.0, 30.0]"]),
    ],
)
def test_positions_that_differ(folder, kind, affine, words):
    path = folder / f"{kind}_3.nii.gz"
    change(path, affine=affine)
    assert_told(the_only(check_folder(folder, SPEC)), "error", path, *words, "of image_3.nii.gz", "un `frugalseg ")


def test_positions_that_differ_by_rounding_are_the_same(folder):
    change(folder / "label_3.nii.gz", affine=AFFINE + 1e-4)
    refresh(folder)
    assert check_folder(folder, SPEC) == []


def test_slices_of_another_spacing(folder):
    other = AFFINE @ np.diag([1.2, 1.2, 1, 1])
    for kind in ("image", "label", "superpix-MIDDLE"):
        change(folder / f"{kind}_3.nii.gz", affine=other)
    refresh(folder)
    finding = the_only(check_folder(folder, SPEC))
    assert_told(finding, "warning", folder / "image_3.nii.gz", "in-plane spacing (y, x) (1.5, 1.5) mm", PREPARE)
    assert check_folder(folder, replace(SPEC, grid=replace(SPEC.grid, spacing_mm=None))) == []


def test_slices_of_another_size(folder):
    for kind in ("image", "label"):
        change(folder / f"{kind}_3.nii.gz", lambda array: np.pad(array, ((0, 0), (0, 2), (0, 0)), mode="edge"))
    refresh(folder)
    finding = the_only(check_folder(folder, SPEC))
    assert_told(finding, "warning", folder / "image_3.nii.gz", "34 x 32 pixels, unlike the other scans", PREPARE)


def test_slices_below_the_crop(folder):
    findings = check_folder(folder, SPEC, min_size_px=40)
    assert [finding.file.name for finding in findings] == [f"image_{number}.nii.gz" for number in SCANS]
    assert_told(findings[2], "error", folder / "image_3.nii.gz", "32 x 32", "crop of 40 x 40", PREPARE)
    assert len(check_folder(folder, CHAOST2)) == len(SCANS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_not_finite(folder, value):
    path = folder / "image_3.nii.gz"

    def spoil(array):
        array[1, 2, 3:5] = value

    change(path, spoil)
    found = [finding for finding in check_folder(folder, SPEC) if finding.file == path]
    assert_told(the_only(found), "error", path, "2 voxels are NaN or infinite", PREPARE)


def test_an_image_of_one_value(folder):
    path = folder / "image_3.nii.gz"
    change(path, lambda array: np.full_like(array, 7))
    found = [finding for finding in check_folder(folder, SPEC) if "every voxel" in finding.text]
    assert_told(the_only(found), "error", path, "every voxel is 7", PREPARE)


@pytest.mark.parametrize("value", [5, 1.5, -1, np.nan])
def test_labels_that_are_no_class(folder, value):
    path = folder / "label_3.nii.gz"

    def spoil(array):
        array[0, 0, 0] = value

    change(path, spoil)
    words = [f"label values {value:g} are no class of CHAOST2", "integers from 0 to 4", "Correct the label"]
    assert_told(the_only(check_folder(folder, SPEC)), "error", path, *words)


def test_an_organ_that_a_scan_lacks(without_kidney):
    finding = the_only(check_folder(without_kidney, SPEC))
    assert_told(finding, "warning", without_kidney / "label_8.nii.gz", "no voxel of RK", "Complete the label")
