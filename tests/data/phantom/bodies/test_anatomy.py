import numpy as np
import pytest
from scipy import ndimage

from data.phantom.bodies.abdomen import MISSING_ORGANS, draw_patient
from data.phantom.bodies.anatomy import grid_points
from data.phantom.writers.chaos import LABELS as MR_LABELS
from data.phantom.writers.formats import ScanRequest
from data.phantom.writers.sabs import LABELS as CT_LABELS
from dataloaders.catalog import dataset
from dataloaders.fewshot.folds import make_fold

CHAOST2 = dataset("CHAOST2")
SABS = dataset("SABS")

LIVER, RIGHT_KIDNEY, LEFT_KIDNEY, SPLEEN = 1, 2, 3, 4
# Volumes of healthy and moderately enlarged adult organs, in ml.
PLAUSIBLE_ML = {"liver": (1000, 3000), "right kidney": (90, 280), "left kidney": (90, 280), "spleen": (60, 750)}


def labelled_ml(volume, value):
    return np.count_nonzero(volume.array == value) * np.prod(volume.spacing_mm) / 1000


def make_anatomy(dataset, scan_index):
    patient_rng, _ = ScanRequest(scan_index).generators(dataset)
    return draw_patient(patient_rng, MISSING_ORGANS.get(scan_index, ()))


@pytest.mark.parametrize("scan_index", [0, 3])
def test_rasterised_volumes_equal_the_known_volumes(mr_scans, scan_index):
    known_ml = make_anatomy("chaost2", scan_index).volumes_ml(tuple(MR_LABELS), spacing_mm=3.0)
    _, label = mr_scans[scan_index]
    for organ, value in MR_LABELS.items():
        assert labelled_ml(label, value) == pytest.approx(known_ml[organ], rel=0.04), organ


def test_all_thirteen_ct_organs_are_present_with_their_volumes(ct_scan):
    known_ml = make_anatomy("sabs", 0).volumes_ml(tuple(CT_LABELS), spacing_mm=3.0)
    _, label = ct_scan
    assert len(CT_LABELS) == len(SABS.class_names) - 1
    assert set(np.unique(label.array)) == set(range(14))
    for organ, value in CT_LABELS.items():
        is_large = known_ml[organ] > 40
        assert labelled_ml(label, value) == pytest.approx(known_ml[organ], rel=0.04 if is_large else 0.5), organ


def test_volumes_are_plausible_and_differ_between_patients():
    volumes = [make_anatomy("chaost2", index).volumes_ml(tuple(PLAUSIBLE_ML), spacing_mm=4.0) for index in (0, 1, 3, 4)]
    for organ, (lowest, highest) in PLAUSIBLE_ML.items():
        per_patient = np.array([each[organ] for each in volumes])
        assert ((lowest < per_patient) & (per_patient < highest)).all(), (organ, per_patient)
        assert per_patient.max() > 1.05 * per_patient.min()


def test_only_the_third_patient_lacks_the_left_kidney(mr_scans):
    for index, (_, label) in enumerate(mr_scans):
        assert (LEFT_KIDNEY in label.array) == (index != 2)
        assert {LIVER, RIGHT_KIDNEY, SPLEEN} <= set(np.unique(label.array))


@pytest.mark.parametrize("spec", [CHAOST2, SABS])
def test_the_scan_with_a_missing_organ_is_a_query_scan(spec):
    (scan_index,) = MISSING_ORGANS
    assert spec.cases[scan_index] in make_fold(spec, spec.cases[:8], eval_fold=0).query


def test_organs_have_anatomical_positions(mr_scans):
    for _, label in mr_scans:
        centre = {value: centre_mm(label, value) for value in np.unique(label.array) if value}
        right, front, head = range(3)
        assert centre[LIVER][right] > 20 > -20 > centre[SPLEEN][right]
        assert centre[RIGHT_KIDNEY][right] > 20
        assert centre[LIVER][front] > centre[RIGHT_KIDNEY][front]
        assert centre[SPLEEN][head] > centre[RIGHT_KIDNEY][head]


def centre_mm(label, value):
    z, y, x = np.mean(np.nonzero(label.array == value), axis=1)
    return (label.affine @ [x, y, z, 1])[:3]


def test_organs_are_inside_the_body(mr_scans):
    for image, label in mr_scans:
        body = np.asarray(ndimage.binary_fill_holes(ndimage.binary_opening(image.array.max(axis=0) > 60)))
        assert body[(label.array > 0).any(axis=0)].all()
        for value in set(np.unique(label.array)) - {0}:
            assert np.median(image.array[label.array == value]) > 120


def test_neighbouring_organs_touch(mr_scans):
    for _, label in mr_scans:
        assert contact_px(label.array, LIVER, RIGHT_KIDNEY) > 20
    assert max(contact_px(label.array, SPLEEN, LEFT_KIDNEY) for _, label in mr_scans) > 10


def contact_px(labels, first, second):
    grown = ndimage.binary_dilation(labels == first, ndimage.generate_binary_structure(3, 1))
    return np.count_nonzero(grown & (labels == second))


def test_first_and_last_slices_have_no_organ(mr_scans, ct_scan):
    for _, label in [*mr_scans, ct_scan]:
        assert not label.array[[0, -1]].any()
        assert label.array.any(axis=(1, 2)).mean() > 0.5


def test_grid_points_follow_the_affine():
    affine = np.array([[0.0, 2, 0, 5], [-3, 0, 0, 6], [0, 0, 4, 7], [0, 0, 0, 1]])
    z, y, x = 1, 2, 3
    np.testing.assert_allclose(grid_points(affine, (2, 3, 4))[:, z, y, x], (affine @ [x, y, z, 1])[:3])


def test_labels_do_not_depend_on_the_extent_of_the_grid():
    patient = make_anatomy("chaost2", 1)
    affine = np.diag([6.0, 6, 6, 1])
    affine[:3, 3] = -160, -120, -60
    part = affine.copy()
    part[:3, 3] += affine[:3, :3] @ [20, 10, 5]
    whole = patient.labels(affine, (30, 40, 54), MR_LABELS)
    assert whole.any()
    np.testing.assert_array_equal(patient.labels(part, (25, 30, 34), MR_LABELS), whole[5:, 10:, 20:])
