"""Phantoms of several domains: layouts, annotated frames, raters, and how the domains differ."""

import itertools

import numpy as np
import pytest

from data.phantom import make_cine, make_patient, write_phantom
from data.phantom.writers import mms, scgm
from data.sources.mms import find_scans as find_cines
from data.sources.mms import read_scan as read_cine_scan
from data.sources.scgm import find_scans, read_scan
from dataloaders.catalog import dataset
from dataloaders.io.nifti import read_frames, read_nifti

SIZE = 48
N_CINES = 20  # with one that is not labelled


@pytest.fixture(scope="module")
def cines(tmp_path_factory):
    out = tmp_path_factory.mktemp("mms")
    write_phantom("mms", out, n_scans=N_CINES, size_px=SIZE)
    return out


def test_patients_are_dealt_to_vendors_and_centres(cines):
    scans = find_cines(cines, dataset("MMS"))
    assert [scan.origin.domain for scan in scans] == list("ABCD") * 5
    assert {(scan.origin.domain, scan.origin.centre) for scan in scans} == {
        *(("A", "1"), ("B", "2"), ("B", "3"), ("C", "4"), ("D", "5"))
    }
    assert [scan.id for scan in scans if not scan.is_labelled] == [mms.code_of(18)]
    assert not any(scan.fault for scan in scans)
    assert (cines / "Training/Unlabeled" / mms.code_of(18)).is_dir()


def test_files_equal_the_scan_in_memory(cines):
    cine = make_cine("mms", 1, size_px=SIZE)
    folder = cines / mms.folder_of(1) / mms.code_of(1)
    frames = read_frames(folder / f"{mms.code_of(1)}_sa.nii.gz")
    assert len(frames) == len(cine.frames) == 4
    for frame, expected in zip(frames, cine.frames, strict=True):
        np.testing.assert_array_equal(frame.array, expected.array)
        np.testing.assert_allclose(frame.affine, expected.affine, rtol=1e-5, atol=1e-3)
    truth = read_frames(folder / f"{mms.code_of(1)}_sa_gt.nii.gz")
    assert [bool(frame.array.any()) for frame in truth] == [False, True, False, True]  # ED of vendor B is not frame 0


def test_the_heart_contracts_between_the_annotated_frames(cines):
    for scan in find_cines(cines, dataset("MMS"))[:8]:
        cine = read_cine_scan(scan, dataset("MMS"))
        phases = {phase: cine.labels[frame].array for frame, phase in scan.frames.items()}
        assert set(np.unique(phases["ED"])) == {0, 1, 2, 3}
        assert np.count_nonzero(phases["ES"] == 1) < 0.8 * np.count_nonzero(phases["ED"] == 1)
        assert 4 <= len(phases["ED"]) <= 6


def test_vendors_differ_in_pixel_size_brightness_and_field(cines):
    found = [make_cine("mms", index, size_px=SIZE).frames[0] for index in range(4)]
    assert len({frame.array.shape[1:] for frame in found}) == 3
    levels = [np.percentile(frame.array, 99) for frame in found]
    assert max(levels) > 20 * min(levels)
    assert all(np.abs(frame.affine[:3, :3]).min() > 0 for frame in found)  # oblique


def test_sites_have_their_spacings_and_raters_differ_at_the_edge(tmp_path):
    write_phantom("scgm", tmp_path, n_scans=4, size_px=scgm.NOMINAL_PX)
    scans = find_scans(tmp_path, dataset("SCGM"))
    assert [scan.id for scan in scans] == [f"site{site}-sc01" for site in (1, 2, 3, 4)]
    for index, scan in enumerate(scans):
        image, label = read_scan(scan, dataset("SCGM"))
        assert image.spacing_mm == pytest.approx(scgm.SPACING_MM[index], rel=1e-5)
        masks = [read_nifti(each.files[0]).array for each in scan.annotations]
        assert len(masks) == 4
        assert all(set(np.unique(each)) == {0, 1, 2} for each in masks)
        truth = make_patient("scgm", index, size_px=scgm.NOMINAL_PX)[1].array == 1
        assert label is not None
        for mask in (label.array == 1, *(each == 1 for each in masks)):
            assert 0.75 < 2 * np.count_nonzero(mask & truth) / (mask.sum() + truth.sum()) < 1
        assert any((one != other).any() for one, other in itertools.pairwise(masks))


def test_the_test_scans_of_the_challenge_have_no_masks(tmp_path):
    write_phantom("scgm", tmp_path, n_scans=41, size_px=32)
    scans = find_scans(tmp_path, dataset("SCGM"))
    assert [scan.id for scan in scans if not scan.is_labelled] == ["site1-sc11"]
