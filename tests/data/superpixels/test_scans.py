import json
import logging
import pickle

import numpy as np
import pytest
from scipy import ndimage

from data.superpixels import scans as superpixels
from data.superpixels.regions import (
    SCALES,
    Felzenszwalb,
    Recipe,
    SlicePixels,
    Supervoxels,
    compact_numbering,
    felzenszwalb_slice,
    foreground_mask,
    legacy_numbering,
    segment,
    slic_slice,
    slic_volume,
)
from data.superpixels.scans import draw_pseudo_labels, write_pseudo_labels
from dataloaders.catalog import dataset
from dataloaders.io.nifti import read_nifti, write_nifti
from dataloaders.samples import Volume
from dataloaders.scans.manifest import Manifest
from util import items
from util.errors import ConfigError, DataError
from util.files import file_sha256

CHAOST2 = dataset("CHAOST2")
SABS = dataset("SABS")

AFFINE = np.array([[-1.25, 0, 0, 10], [0, 1.25, 0, -20], [0, 0, 7.7, 30], [0, 0, 0, 1]])


def organs(depth=3, size=64, seed=0):
    """A bright body with two brighter organs, on a dark ground, and an empty last slice."""
    rows, columns = np.mgrid[:size, :size] / size
    body = (rows - 0.5) ** 2 + (columns - 0.5) ** 2 < 0.2
    slice_ = 20 + 180 * body + 300 * (body & (columns < 0.45)) + 200 * (body & (rows < 0.3))
    array = np.repeat(slice_[None], depth, 0) + np.random.default_rng(seed).normal(0, 5, (depth, size, size))
    array[-1] = 0
    return array


def write_scans(folder, n_scans=2, **options):
    for scan in range(1, n_scans + 1):
        write_nifti(folder / f"image_{scan}.nii.gz", Volume(organs(seed=scan, **options), AFFINE))


@pytest.fixture
def golden(golden_file):
    return golden_file("fewshot/superpixels.npz")


def test_mask_graph_and_legacy_numbers_are_those_of_the_released_code(golden):
    image, mask = golden["ct/image"].astype(np.float64), golden["ct/fg_mask"].astype(bool)
    raw = felzenszwalb_slice(image, Felzenszwalb())
    np.testing.assert_array_equal(foreground_mask(image, SABS.foreground_above or 0.0), mask)
    np.testing.assert_array_equal(raw, golden["ct/felz_raw"])
    np.testing.assert_array_equal(legacy_numbering(raw, mask), golden["ct/superpix"])


def test_a_legacy_scan_equals_the_released_code_also_where_a_slice_is_background(golden):
    image = golden["ct/image"].astype(np.float64)
    scan = Volume(np.stack([np.zeros_like(image), image]), np.eye(4))
    ids = segment(scan, Recipe("MIDDLE", SABS.foreground_above, "legacy"))
    np.testing.assert_array_equal(ids, np.stack([np.zeros_like(image), golden["ct/superpix"]]))


def test_compact_numbers_keep_the_regions_of_the_legacy_ones_and_the_one_that_is_lost_there(golden):
    raw, mask = golden["ct/felz_raw"].astype(np.int64), golden["ct/fg_mask"].astype(bool)
    compact, legacy = compact_numbering(raw, mask, 0), golden["ct/superpix"]
    np.testing.assert_array_equal(compact > 0, mask)
    kept = legacy > 0
    pairs = np.unique(np.stack([compact[kept], legacy[kept]]), axis=1)
    assert len(np.unique(pairs[0])) == len(np.unique(pairs[1])) == pairs.shape[1]
    assert set(np.unique(raw[mask & ~kept])) == {0}
    assert compact.max() == pairs.shape[1] + 1


def test_legacy_numbers_worked_by_hand():
    raw = np.array([[0, 0, 1], [2, 3, 3], [2, 1, 1]])
    mask = np.array([[1, 1, 1], [0, 1, 1], [0, 1, 0]], bool)
    np.testing.assert_array_equal(legacy_numbering(raw, mask), [[0, 0, 1], [0, 4, 4], [0, 1, 0]])
    single = np.zeros((2, 2), np.int64)
    np.testing.assert_array_equal(legacy_numbering(single, np.ones((2, 2), bool)), single)


def test_compact_numbers_worked_by_hand():
    raw = np.array([[0, 0, 5, 5], [0, 0, 5, 5], [9, 9, 9, 9], [7, 7, 0, 0]])
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 0], [1, 0, 1, 1], [0, 0, 1, 1]], bool)
    # 0: two pieces of 4 and 2; 5: one of 2; 9: two of 1 and 2; 7: outside the mask
    np.testing.assert_array_equal(
        compact_numbering(raw, mask, 2), [[1, 1, 2, 0], [1, 1, 2, 0], [0, 0, 3, 3], [0, 0, 1, 1]]
    )
    np.testing.assert_array_equal(
        compact_numbering(raw, mask, 3), [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    )
    assert not compact_numbering(raw, np.zeros_like(mask), 0).any()


@pytest.mark.parametrize("seed", range(5))
def test_compact_ids_run_from_one_without_gaps_and_never_cross_regions(seed):
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 6, (6, 6)).repeat(5, 0).repeat(5, 1)
    ids = compact_numbering(raw, rng.random((30, 30)) < 0.7, 8)
    np.testing.assert_array_equal(np.unique(ids), np.arange(ids.max() + 1))
    assert all(len(np.unique(raw[ids == one])) == 1 for one in range(1, ids.max() + 1))


def test_mask_is_the_largest_component_diagonals_included_with_holes_filled():
    slice_ = np.zeros((7, 7))
    slice_[0:4, 0:4] = 2.0
    slice_[1, 1] = 0.0  # a hole
    slice_[4, 4] = 2.0  # touches at a corner
    slice_[6, 0:3] = 2.0  # apart
    expected = np.zeros((7, 7), bool)
    expected[0:4, 0:4] = expected[4, 4] = True
    np.testing.assert_array_equal(foreground_mask(slice_, 1.0), expected)
    assert not foreground_mask(slice_, 2.0).any()


def test_integer_images_are_cut_as_their_values_say():
    slice_ = organs()[0]
    np.testing.assert_array_equal(
        felzenszwalb_slice(slice_.astype(np.int16), Felzenszwalb()),
        felzenszwalb_slice(slice_.astype(np.int16).astype(np.float64), Felzenszwalb()),
    )


def test_slic_fills_the_mask_with_pieces_of_about_the_asked_size():
    slice_ = organs()[0]
    mask = foreground_mask(slice_, 100.0)
    raw = slic_slice(slice_, mask, SlicePixels(segment_area_px=200))
    np.testing.assert_array_equal(raw > 0, mask)
    assert 100 < mask.sum() / raw.max() < 400


@pytest.mark.parametrize("n_pixels", [1, 2, 5])
def test_slic_takes_a_tiny_foreground_as_one_piece(n_pixels):
    slice_ = np.zeros((16, 16))
    slice_[8, :n_pixels] = 9.0
    assert slic_slice(slice_, slice_ > 1, SlicePixels()).sum() == n_pixels


def test_supervoxels_are_as_deep_as_they_are_wide_in_millimetres():
    array = 300 + np.random.default_rng(0).normal(0, 1, (8, 32, 32))
    cube = Volume(array, np.diag([2.0, 2.0, 8.0, 1.0]))  # 64 mm each way: 262 ml, 64 pieces of 16 mm each way
    config = Supervoxels(segment_volume_ml=4.1, compactness=10.0)
    raw = slic_volume(cube, np.ones(array.shape, bool), config)
    pieces = ndimage.find_objects(raw)
    assert 40 < len(pieces) < 90
    extents_mm = [[(part.stop - part.start) * mm for part, mm in zip(box, (8, 2, 2), strict=True)] for box in pieces]
    depth, height, width = np.median(extents_mm, axis=0)
    assert 0.5 < depth / height < 2
    assert 0.5 < depth / width < 2


def test_supervoxel_ids_run_through_the_scan_without_gaps():
    volume = Volume(organs(depth=9, size=32), np.diag([2.0, 2.0, 3.0, 1.0]))
    ids = segment(volume, Recipe("SUPERVOXEL", 100.0, min_area_px=4))
    np.testing.assert_array_equal(np.unique(ids), np.arange(ids.max() + 1))
    assert np.intersect1d(ids[3], ids[4]).size > 1  # 0 and others


@pytest.mark.parametrize("scale", SCALES)
def test_files_carry_the_images_geometry_and_the_manifest_their_count(tmp_path, scale, caplog):
    write_scans(tmp_path)
    with caplog.at_level(logging.INFO):
        write_pseudo_labels(tmp_path, CHAOST2, scale)
    records = Manifest.load(tmp_path, "CHAOST2").records
    for scan in (1, 2):
        image, ids = (
            read_nifti(tmp_path / f"image_{scan}.nii.gz"),
            read_nifti(tmp_path / f"superpix-{scale}_{scan}.nii.gz"),
        )
        assert ids.array.dtype == np.int16
        assert ids.array.shape == image.array.shape
        np.testing.assert_allclose(ids.affine, image.affine, atol=1e-6)
        record = records[f"superpix-{scale}_{scan}"]
        name = f"image_{scan}.nii.gz"
        assert record.made_from == {name: file_sha256(tmp_path / name)}
        groups = [ids.array] if scale == "SUPERVOXEL" else ids.array
        assert record.facts["n_ids"] == sum(len(set(np.unique(group)) - {0}) for group in groups) > 0
        assert not ids.array[-1].any()
    total = sum(each.facts["n_ids"] for each in records.values())
    assert [line for line in caplog.messages if f"{total} ids in 2 scans" in line]
    assert [line for line in caplog.messages if "0 of 2 scans skipped" in line]


def test_only_changed_scans_are_cut_again(tmp_path, caplog):
    write_scans(tmp_path, n_scans=3)
    write_pseudo_labels(tmp_path, CHAOST2)
    stamps = lambda: {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("superpix-*")}  # noqa: E731
    before = stamps()
    write_nifti(tmp_path / "image_1.nii.gz", Volume(organs(seed=9), AFFINE))
    (tmp_path / "superpix-MIDDLE_3.nii.gz").unlink()
    with caplog.at_level(logging.INFO):
        write_pseudo_labels(tmp_path, CHAOST2)
    after = stamps()
    assert {name for name in after if after[name] != before[name]} == {f"superpix-MIDDLE_{n}.nii.gz" for n in (1, 3)}
    assert "1 of 3 scans skipped" in caplog.messages[-1]
    write_pseudo_labels(tmp_path, CHAOST2, numbering="legacy")
    assert all(stamps()[name] != after[name] for name in after)
    parameters = Manifest.load(tmp_path, "CHAOST2").records["superpix-MIDDLE_1"].settings
    assert parameters["numbering"] == "legacy"
    assert parameters["foreground_above"] == CHAOST2.foreground_above


def test_an_interrupted_run_keeps_what_it_had_and_goes_on(tmp_path, monkeypatch):
    write_scans(tmp_path, n_scans=3)
    done, real = [], superpixels.write_nifti

    def stop_at_third(path, volume):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(path)
        real(path, volume)

    monkeypatch.setattr(superpixels, "write_nifti", stop_at_third)
    with pytest.raises(KeyboardInterrupt):
        write_pseudo_labels(tmp_path, CHAOST2)
    assert set(Manifest.load(tmp_path, "CHAOST2").records) == {"superpix-MIDDLE_1", "superpix-MIDDLE_2"}
    done.clear()
    write_pseudo_labels(tmp_path, CHAOST2)
    assert done == [tmp_path / "superpix-MIDDLE_3.nii.gz"]


def test_other_entries_of_the_manifest_stay(tmp_path):
    write_scans(tmp_path, n_scans=1)
    Manifest("CHAOST2", parameters={"convert": {"a": 1}}, scans={"1": {"statistics": {}}}).save(tmp_path)
    write_pseudo_labels(tmp_path, CHAOST2)
    write_pseudo_labels(tmp_path, CHAOST2, scale="SLIC")
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content["parameters"] == {"convert": {"a": 1}}
    assert content["scans"] == {"1": {"statistics": {}}}
    assert set(content["records"]) == {"superpix-MIDDLE_1", "superpix-SLIC_1"}


def test_a_scan_shared_out_among_processes_gets_the_same_ids(tmp_path, monkeypatch):
    n_items = []

    def apart(function, items, jobs, description):
        tasks = [pickle.dumps((function, item)) for item in items]
        n_items.append(len(tasks))
        return (task(item) for task, item in map(pickle.loads, tasks))

    monkeypatch.setattr(items, "parallel_map", apart)
    monkeypatch.setattr(superpixels, "SLICES_PER_BLOCK", 2)
    write_scans(tmp_path, depth=5)
    write_pseudo_labels(tmp_path, CHAOST2)
    alone = [read_nifti(tmp_path / f"superpix-MIDDLE_{scan}.nii.gz").array for scan in (1, 2)]
    (tmp_path / "manifest.json").unlink()
    write_pseudo_labels(tmp_path, CHAOST2, jobs=2)
    shared = [read_nifti(tmp_path / f"superpix-MIDDLE_{scan}.nii.gz").array for scan in (1, 2)]
    np.testing.assert_array_equal(shared, alone)
    assert n_items == [2, 2, 2, 6]  # reading, cutting


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"scale": "LARGE"}, "expected one of SMALL, MIDDLE, SLIC, SUPERVOXEL"),
        ({"numbering": "old"}, "expected 'compact' or 'legacy'"),
        ({"scale": "SLIC", "numbering": "legacy"}, "use 'compact'"),
        ({"min_area_px": -1}, "expected 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, options, told):
    with pytest.raises(ConfigError, match=told):
        write_pseudo_labels(tmp_path, CHAOST2, **options)


def test_bad_input_is_named_with_a_remedy(tmp_path):
    with pytest.raises(DataError, match=r"no image_.*frugalseg prepare CHAOST2") as caught:
        write_pseudo_labels(tmp_path, CHAOST2)
    assert str(tmp_path) in str(caught.value)
    array = organs()
    array[0, 3, 3] = np.nan
    write_nifti(tmp_path / "image_4.nii.gz", Volume(array, AFFINE))
    with pytest.raises(DataError, match=r"image_4\.nii\.gz: NaN or infinite voxels.*Prepare or copy"):
        write_pseudo_labels(tmp_path, CHAOST2)


def test_the_picture_shows_outlines(tmp_path):
    from matplotlib.image import imread

    write_scans(tmp_path, n_scans=1, depth=6)
    write_pseudo_labels(tmp_path, CHAOST2)
    draw_pseudo_labels(tmp_path, CHAOST2, "MIDDLE", tmp_path / "sheet.png")
    red, green, blue = imread(tmp_path / "sheet.png")[..., :3].transpose(2, 0, 1)
    assert np.count_nonzero((red > 0.8) & (green > 0.6) & (blue < 0.3)) > 500
    with pytest.raises(DataError, match=r"superpix-SLIC_1\.nii\.gz"):
        draw_pseudo_labels(tmp_path, CHAOST2, "SLIC", tmp_path / "other.png")
    assert not (tmp_path / "other.png").exists()
