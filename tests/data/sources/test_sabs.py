"""Synapse abdomen: layouts, numbering, and what is said of incomplete downloads."""

import numpy as np
import pytest

from data.sources.raw_scans import RawScan
from data.sources.sabs import find_scans, read_scan
from dataloaders.catalog import dataset
from dataloaders.io.nifti import write_nifti
from dataloaders.samples import Volume
from util.errors import DataError

SABS = dataset("SABS")

AFFINE = np.diag([-0.8, 0.8, 3.0, 1.0])


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


IMG_LAYOUT = "img/img{:04d}.nii.gz", "label/label{:04d}.nii.gz"
DET_LAYOUT = "averaged-training-images/DET{:05d}01_avg.nii.gz", "averaged-training-labels/DET{:05d}01_avg_seg.nii.gz"


@pytest.mark.parametrize(
    ("image", "label", "raw"),
    [
        (*IMG_LAYOUT, "."),
        (*DET_LAYOUT, "."),
        ("RawData/Training/img/img{:04d}.nii.gz", "RawData/Training/label/label{:04d}.nii.gz", "."),
        ("all/img{:04d}.nii", "all/label{:04d}.nii", "all"),
    ],
)
def test_every_layout_is_found_and_numbered_as_published(tmp_path, image, label, raw):
    numbers = [*range(1, 11), *range(21, 41)]
    for number in reversed(numbers):
        touch(tmp_path / image.format(number), tmp_path / label.format(number))
    scans = find_scans(tmp_path / raw, SABS)
    assert [scan.id for scan in scans] == [str(number) for number in range(30)]
    assert scans[0] == RawScan.with_label("0", tmp_path / image.format(1), tmp_path / label.format(1))
    assert scans[10] == RawScan.with_label("10", tmp_path / image.format(21), tmp_path / label.format(21))


@pytest.mark.parametrize("layout", [IMG_LAYOUT, DET_LAYOUT])
def test_missing_scans_do_not_renumber_the_others(tmp_path, layout):
    for number in (2, 21, 40):
        touch(*(tmp_path / name.format(number) for name in layout))
    assert [scan.id for scan in find_scans(tmp_path, SABS)] == ["1", "10", "29"]


def test_scans_of_other_numbers_are_counted_from_zero(tmp_path):
    for number in (7, 105, 50):
        touch(tmp_path / f"img{number:04d}.nii.gz", tmp_path / f"label{number:04d}.nii.gz")
    assert [(scan.id, scan.image.name) for scan in find_scans(tmp_path, SABS)] == [
        ("0", "img0007.nii.gz"),
        ("1", "img0050.nii.gz"),
        ("2", "img0105.nii.gz"),
    ]


def test_incomplete_downloads_are_named(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}; expected img/img0001.*data/SABS/README.*frugalseg phantom sabs"):
        find_scans(tmp_path, SABS)
    touch(tmp_path / "img/img0003.nii.gz", tmp_path / "img/img0004.nii.gz")
    with pytest.raises(DataError, match=r"no label for .*img0003\.nii\.gz \(2 images.*Download"):
        find_scans(tmp_path, SABS)
    touch(tmp_path / "label/label0004.nii.gz")
    with pytest.raises(DataError, match=r"no label for .*img0003\.nii\.gz \(1 images.*Download"):
        read_scan(find_scans(tmp_path, SABS)[0], SABS)
    touch(tmp_path / "img/img0003.nii", tmp_path / "label/label0003.nii.gz")
    with pytest.raises(DataError, match=r"img0003\.nii\.gz: the same scan number as img0003\.nii;.*Remove"):
        find_scans(tmp_path, SABS)


def write_pair(tmp_path, image, label, label_affine=AFFINE):
    paths = tmp_path / "img0001.nii.gz", tmp_path / "label0001.nii.gz"
    write_nifti(paths[0], Volume(image, AFFINE))
    write_nifti(paths[1], Volume(label, label_affine))
    return paths


def test_a_pair_is_read_on_the_grid_of_the_image(tmp_path):
    values = np.arange(24).reshape(2, 3, 4)
    pair = write_pair(tmp_path, (values - 1000).astype(np.int16), (values % 14).astype(np.float32))
    image, label = read_scan(RawScan.with_label("0", *pair), SABS)
    np.testing.assert_array_equal(image.array, values - 1000)
    np.testing.assert_array_equal(label.array, values % 14)
    assert label.array.dtype == np.uint8
    np.testing.assert_array_equal(label.affine, image.affine)


def test_a_label_of_another_scan_is_named(tmp_path):
    image = np.zeros((2, 3, 4), np.int16)
    label = image.astype(np.uint8)
    flipped = AFFINE @ np.diag([1.0, -1, 1, 1])
    with pytest.raises(DataError, match=r"label0001\.nii\.gz: a grid of \(2, 3, 4\).* 3.2 mm from.*copy the image"):
        read_scan(RawScan.with_label("0", *write_pair(tmp_path, image, label, flipped)), SABS)
    with pytest.raises(DataError, match=r"label0001\.nii\.gz: a grid of \(2, 2, 4\).*\(2, 3, 4\).*img0001\.nii\.gz"):
        read_scan(RawScan.with_label("0", *write_pair(tmp_path, image, label[:, :2])), SABS)
    with pytest.raises(DataError, match=r"label0001\.nii\.gz: label values 0\.3 in 24 of 24 voxels"):
        read_scan(RawScan.with_label("0", *write_pair(tmp_path, image, np.full((2, 3, 4), 0.3, np.float32))), SABS)
