"""Rules for scans without a description."""

import numpy as np
import pytest

from dataloaders.io.geometry import Grid
from dataloaders.samples import Volume
from dataloaders.scans.guess import describe_scan, whole_scan
from dataloaders.scans.preprocess import parameters_of, prepare_image, scan_doubts
from util.errors import DataError


def scan(shape=(20, 100, 80), axes="xyz", spacing_mm=(8.0, 2.0, 2.0), low=0):
    """A scan (D, H, W) whose columns, rows and slices run along the named patient axes."""
    affine = np.eye(4)
    affine[:3, :3] = 0
    for column, (axis, mm) in enumerate(zip(axes, spacing_mm[::-1], strict=True)):
        affine["xyz".index(axis), column] = mm
    array = np.random.default_rng(0).integers(low, 900, shape).astype(np.int16)
    array[0, 0, 0] = low
    return Volume(array, affine)


def test_ct_is_told_by_its_air_and_all_else_is_taken_for_mr():
    spec, rule = describe_scan(scan(low=-1024))
    assert (spec.modality, spec.intensity.window, spec.intensity.normalise_by) == ("CT", (-125, 275), "training_scans")
    assert rule.startswith("Hounsfield units (lowest -1024), CT: window -125 to 275 HU; axial slices 8 mm apart")
    spec, rule = describe_scan(scan(low=-300))
    assert (spec.modality, spec.intensity.clip_percentile, spec.intensity.normalise_by) == ("MR", 99.5, "scan")
    assert "no Hounsfield units (lowest -300), taken for MR: clipped at 99.5 %" in rule


@pytest.mark.parametrize(("axes", "plane", "codes"), [("xyz", "axial", "LAS"), ("xzy", "coronal", "LSA")])
def test_slices_are_those_that_were_acquired_and_the_longer_side_fills_the_grid(axes, plane, codes):
    spec, rule = describe_scan(scan(axes=axes))
    assert (spec.grid.axis_codes, spec.grid.size_px) == (codes, 256)
    assert spec.grid.spacing_mm == (8.0, 200 / 256, 200 / 256)
    assert f"{plane} slices" in rule


def test_sagittal_slices_and_voxels_of_one_size():
    assert describe_scan(scan(axes="yzx"))[0].grid.axis_codes == "ASL"
    assert describe_scan(scan(axes="yzx", spacing_mm=(2.0, 2.0, 2.0)))[0].grid.axis_codes == "LAS"


def test_thin_slices_are_taken_further_apart():
    spec, _ = describe_scan(scan(shape=(200, 160, 160), spacing_mm=(1.0, 2.0, 2.0)))
    assert spec.grid.spacing_mm == (3 * 320 / 256, 320 / 256, 320 / 256)


def test_another_scan_is_prepared_as_a_whole_with_the_same_pixels():
    parameters = parameters_of(describe_scan(scan())[0])  # 200 mm in 256 px, slices of 8 mm
    wide = scan(shape=(5, 150, 70), spacing_mm=(11.0, 2.5, 2.0))
    fitted = whole_scan(parameters, wide)
    assert fitted.spacing_mm == (11.0, 200 / 256, 200 / 256)
    assert fitted.size_px == 480  # 375 mm
    prepared = prepare_image(wide, fitted)
    assert prepared.array.shape == (5, 480, 480)
    inside = np.linalg.inv(prepared.affine) @ wide.affine
    corners = np.array([[0, 0, 0, 1], [69, 149, 4, 1]]).T
    assert ((inside @ corners)[:3] > -0.5).all()
    assert ((inside @ corners)[:3] < [[479.5], [479.5], [4.5]]).all()
    assert whole_scan(parameters, scan(spacing_mm=(2.0, 2.0, 2.0))).spacing_mm == parameters.spacing_mm


def test_a_much_larger_field_of_view_is_refused():
    parameters = parameters_of(describe_scan(scan())[0])
    with pytest.raises(DataError, match=r"of 450 mm; expected at most 2 times the 200 mm of the annotated scan.*Crop"):
        whole_scan(parameters, scan(spacing_mm=(8.0, 4.5, 2.0)))


def test_a_ct_among_other_scans_is_doubted():
    spec, _ = describe_scan(scan())
    (doubt,) = scan_doubts(scan(low=-1024), parameters_of(spec), spec.modality)
    assert doubt == "lowest intensity -1024, as of a CT in Hounsfield units; expected MR. Is this the right scan?"
    assert scan_doubts(scan(), parameters_of(spec), spec.modality) == []
    assert scan_doubts(scan(low=-1024), parameters_of(spec), "") == []


def test_the_grid_of_the_description_is_that_of_the_scan():
    image = scan(shape=(10, 256, 256), spacing_mm=(7.7, 1.25, 1.25))
    prepared = prepare_image(image, parameters_of(describe_scan(image)[0]))
    assert prepared.array.shape == (10, 256, 256)
    np.testing.assert_allclose(Grid.of(prepared).spacing_mm, image.spacing_mm)
