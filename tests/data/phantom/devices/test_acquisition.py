import numpy as np
import pytest

from data.phantom.bodies.abdomen import draw_patient
from data.phantom.devices.acquisition import CT_APPEARANCE, MR_APPEARANCE, acquire_ct
from data.phantom.writers.formats import ScanRequest


def percentiles(scan, value, low, high):
    image, label = scan
    return np.percentile(image.array[label.array == value], [low, high])


def overlap(first, second):
    """Overlap of two ranges as a fraction of the narrower one."""
    shared = min(first[1], second[1]) - max(first[0], second[0])
    return shared / min(first[1] - first[0], second[1] - second[0])


def test_no_threshold_separates_organs_within_an_mr_scan(mr_scans):
    spleen, right_kidney = (np.array([percentiles(scan, value, 5, 95) for scan in mr_scans]) for value in (4, 2))
    assert all(overlap(*ranges) > 0.3 for ranges in zip(spleen, right_kidney, strict=True))
    liver_high = [percentiles(scan, 1, 50, 99)[1] for scan in mr_scans]
    kidney_low = [percentiles(scan, 2, 1, 50)[0] for scan in mr_scans]
    assert all(high > low for high, low in zip(liver_high, kidney_low, strict=True))


def test_no_threshold_separates_organs_across_mr_scans(mr_scans):
    medians = {value: [np.median(image.array[label.array == value]) for image, label in mr_scans] for value in (1, 2)}
    assert max(medians[1]) / min(medians[1]) > 1.15
    brightest_liver = max(percentiles(scan, 1, 5, 95)[1] for scan in mr_scans)
    assert brightest_liver > min(percentiles(scan, 2, 5, 95)[0] for scan in mr_scans)


def test_liver_and_spleen_overlap_in_ct(ct_scan):
    assert overlap(percentiles(ct_scan, 6, 5, 95), percentiles(ct_scan, 1, 5, 95)) > 0.3


def test_mr_air_is_rician_and_below_the_body_threshold(mr_scans):
    for image, _ in mr_scans:
        air = image.array[:, :5, :5].astype(float)
        assert np.percentile(air, 99.5) < 50
        assert air.mean() / air.std() == pytest.approx(np.sqrt(np.pi / (4 - np.pi)), rel=0.1)  # Rayleigh


def test_coil_shading_varies_organ_brightness_across_slices(mr_scans):
    image, label = mr_scans[0]
    slices = [image.array[z][label.array[z] == 1] for z in range(len(label.array))]
    means = np.array([each.mean() for each in slices if each.size > 40])
    assert means.max() / means.min() > 1.1


def test_ct_is_in_hounsfield_units(ct_scan):
    image, label = ct_scan
    assert image.array.dtype == np.int16
    assert -1024 <= image.array.min() < -950
    assert np.median(image.array[:, :4, :4]) == pytest.approx(-1000, abs=5)
    assert 60 < np.median(image.array[label.array == 6]) < 150
    assert image.array.max() > 250  # bone


def test_ct_noise_has_a_realistic_strength_and_zero_mean():
    flat = np.full((4, 64, 64), 40, np.float32)
    noisy = acquire_ct(flat, np.random.default_rng(0)).astype(float)
    assert 8 < noisy.std() < 18
    assert noisy.mean() == pytest.approx(40, abs=1)
    neighbours = np.corrcoef(noisy[:, :, 1:].ravel(), noisy[:, :, :-1].ravel())[0, 1]
    assert neighbours > 0.3


def test_every_tissue_has_an_appearance_in_both_modalities():
    patient_rng, _ = ScanRequest(0).generators("chaost2")
    tissues = {structure.tissue for structure in draw_patient(patient_rng).structures}
    assert tissues - {"gas"} <= MR_APPEARANCE.keys() - {"gas"}
    assert MR_APPEARANCE.keys() == CT_APPEARANCE.keys()
