import hashlib
from dataclasses import replace

import numpy as np
import pytest

from data.phantom import make_patient
from data.phantom.bodies.abdomen import draw_patient
from data.phantom.bodies.build import KIDNEY_BED_MM, Build, draw_build
from data.phantom.writers import chaos, sabs
from data.phantom.writers.formats import ScanRequest
from util.errors import ConfigError

SIZE = 64
LEAN = Build(side_mm=5.0, front_mm=4.0, back_mm=4.0)
FAT = Build(side_mm=85.0, front_mm=10.0, back_mm=85.0, perirenal_mm=70.0, visceral_mm=5.0)
LEFT_KIDNEY = 3
SKIN = {"chaost2": 60, "sabs": -300}  # brightness between air and body
ORGANS = {"chaost2": chaos.LABELS, "sabs": sabs.LABELS}
# Of image, label and affine of the scans of 48 px, as they were before there were builds.
STANDARD = {
    ("chaost2", 0): "a3d9c6638ff6aaed",
    ("chaost2", 2): "dd419110eb5b05ad",
    ("chaost2", 3): "1d3c55adb9874c36",
    ("sabs", 0): "b2162912cbdc53e4",
    ("sabs", 2): "85b4b4a0c8c122b0",
    ("sabs", 3): "4d364752a791da97",
}


@pytest.fixture(scope="module", params=list(ORGANS))
def dataset(request):
    return request.param


@pytest.fixture(scope="module")
def lean_and_fat(dataset):
    return [make_patient(dataset, 0, size_px=SIZE, build=build) for build in (LEAN, FAT)]


def outline(dataset, image):
    """First and last row and column (2, 2) of the body in pixels, in slices that contain it."""
    is_body = image.array > SKIN[dataset]
    spans = [np.flatnonzero(is_body.sum(axes) > 2 * len(is_body)) for axes in ((0, 2), (0, 1))]
    return np.array([[span[0], span[-1]] for span in spans])


def make_anatomy(dataset, scan_index, build):
    return draw_patient(ScanRequest(scan_index).generators(dataset)[0], build=build)


def raster(patient, structures, spacing_mm=(20, 4, 4)):
    """Label map (D, H, W) of a few structures, 1 2 3..., on an axial grid around the kidneys."""
    few = replace(patient, structures=tuple(replace(each, organ=str(i)) for i, each in enumerate(structures)))
    affine = np.diag([*spacing_mm[::-1], 1.0])
    affine[:3, 3] = -320, -320, -60
    values = {str(i): i + 1 for i in range(len(structures))}
    return few.labels(affine, (120 // spacing_mm[0], 640 // spacing_mm[1], 640 // spacing_mm[2]), values)


def size_mm(patient):
    """Depth and width of the body."""
    is_body = raster(patient, patient.structures[:1], (20, 2, 2)) > 0
    return 2.0 * np.array([np.ptp(np.flatnonzero(is_body.any((0, axis)))) for axis in (2, 1)])


def place(patient):
    """See `relative_place`; of the left kidney, without an image."""
    kidney = [each for each in patient.structures if each.organ == "left kidney"]
    labels = raster(patient, [patient.structures[0], *kidney])
    spans = [np.flatnonzero(labels.any((0, axis)))[[0, -1]] for axis in (2, 1)]
    centre = np.mean(np.nonzero(labels > 1), axis=1)[1:]
    return np.array([(at - low) / (high - low) for at, (low, high) in zip(centre, spans, strict=True)])


def relative_place(dataset, image, label, value):
    """Row and column of an organ's centre, from 0 to 1 across the body."""
    low, high = outline(dataset, image).T
    return (np.mean(np.nonzero(label.array == value), axis=1)[1:] - low) / (high - low)


@pytest.mark.parametrize(("dataset", "scan_index"), STANDARD)
def test_patients_of_standard_build_are_bit_for_bit_as_ever(dataset, scan_index):
    digest = hashlib.sha256()
    for volume in make_patient(dataset, scan_index, size_px=48):
        digest.update(volume.array.tobytes())
        digest.update(volume.affine.tobytes())
    assert digest.hexdigest()[:16] == STANDARD[dataset, scan_index]


def test_the_outline_grows_with_fat():
    lean, fat = make_anatomy("chaost2", 0, LEAN), make_anatomy("chaost2", 0, FAT)
    behind = FAT.back_mm - LEAN.back_mm + FAT.perirenal_mm - KIDNEY_BED_MM
    more_depth = behind + FAT.front_mm - LEAN.front_mm + FAT.visceral_mm
    more_width = 2 * (FAT.side_mm - LEAN.side_mm + FAT.visceral_mm)
    expected = np.array([more_depth, more_width]) * lean.stretch[1::-1]
    np.testing.assert_allclose(size_mm(fat) - size_mm(lean), expected, atol=10)  # but for the random warp


def test_the_whole_body_is_in_the_image(dataset, lean_and_fat):
    for image, _ in lean_and_fat:
        low, high = outline(dataset, image).T
        assert (low > 0).all()
        assert (high < SIZE - 1).all()
        np.testing.assert_allclose((low + high) / 2, (SIZE - 1) / 2, atol=5)


def test_organs_keep_their_size_and_form(dataset):
    organs = tuple(organ for organ in ORGANS[dataset] if organ != "aorta")
    lean, fat = (make_anatomy(dataset, 0, build) for build in (LEAN, FAT))
    labels = []
    low, high = lean.organ_box(organs)
    for patient in (lean, fat):
        affine = np.diag([4.0, 4, 4, 1])
        affine[:3, 3] = low
        affine[1, 3] += patient.stretch[1] * (patient.structures[-1].forward_mm - lean.structures[-1].forward_mm)
        x, y, z = np.ceil((high - low) / 4).astype(int).tolist()
        labels.append(patient.labels(affine, (z, y, x), ORGANS[dataset]))
    inside = (labels[0] > 0) & (labels[0] != ORGANS[dataset].get("aorta"))
    assert inside.sum() > 20_000
    assert (labels[0] == labels[1])[inside].mean() > 0.998  # all but what the aorta covers


def test_labelled_volumes_are_those_of_the_lean_patient(dataset, lean_and_fat):
    volumes = [
        np.bincount(label.array.ravel(), minlength=14)[1:] * np.prod(label.spacing_mm) for _, label in lean_and_fat
    ]
    is_large = volumes[0] > 150_000  # mm3
    assert is_large.sum() >= 4
    np.testing.assert_allclose(volumes[1][is_large], volumes[0][is_large], rtol=0.04)


def test_fat_moves_the_kidney_by_three_widths_of_the_place_prior(dataset, lean_and_fat):
    lean, fat = (relative_place(dataset, image, label, LEFT_KIDNEY) for image, label in lean_and_fat)
    assert np.hypot(*(fat - lean)) >= 0.24
    half = replace(FAT, back_mm=40.0, side_mm=40.0, perirenal_mm=35.0)
    moved = relative_place(dataset, *make_patient(dataset, 0, size_px=SIZE, build=half), LEFT_KIDNEY) - lean
    assert 0.08 < np.hypot(*moved) < 0.2  # by a controlled amount


def test_scale_changes_the_organs_and_field_the_pixels():
    patients = [make_anatomy("chaost2", 0, Build(scale=scale)) for scale in (0.8, 1.1)]
    small, large = (each.volumes_ml(("liver",), 4.0)["liver"] for each in patients)
    assert large / small == pytest.approx((1.1 / 0.8) ** 3, rel=0.08)
    image, _ = make_patient("sabs", 0, size_px=SIZE, build=Build(field_mm=320.0))
    assert image.spacing_mm[1:] == pytest.approx([5.0, 5.0])


def test_varied_builds_are_plausible_and_have_their_own_random_stream():
    builds = [ScanRequest(index, build="varied").patient_build("sabs") for index in range(30)]
    for name, least, most, spread in (
        *(("side_mm", 4, 80, 25), ("back_mm", 4, 100, 30), ("perirenal_mm", KIDNEY_BED_MM, 80, 20)),
        *(("scale", 0.85, 1.15, 0.1), ("field_mm", 280, 700, 100)),
    ):
        values = [getattr(build, name) for build in builds]
        assert least <= min(values) < max(values) <= most
        assert max(values) - min(values) > spread
    assert builds == [draw_build(np.random.default_rng(ScanRequest(i)._seeds("sabs")[2])) for i in range(30)]
    standard, varied = (ScanRequest(4, build=build).generators("sabs") for build in ("standard", "varied"))
    assert [each.random() for each in standard] == [each.random() for each in varied]


def test_varied_places_differ_more_than_those_of_standard_build(dataset):
    spread = {}
    for build in ("standard", "varied"):
        requests = [ScanRequest(index, build=build) for index in range(12)]
        places = [place(make_anatomy(dataset, each.scan_index, each.patient_build(dataset))) for each in requests]
        spread[build] = np.hypot(*np.std(places, axis=0))
    assert spread["varied"] > 1.4 * spread["standard"]


@pytest.mark.parametrize("wrong", [{"side_mm": 1.0}, {"perirenal_mm": 2.0}, {"scale": 3.0}, {"field_mm": 20.0}])
def test_impossible_builds_are_errors(wrong):
    with pytest.raises(ConfigError, match=rf"{next(iter(wrong))}=.*expected"):
        Build(**wrong)
