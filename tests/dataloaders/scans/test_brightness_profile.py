"""Scans of one kind are told from those of another by how their brightness is distributed."""

import numpy as np
import pytest

from data.phantom import make_patient
from dataloaders.scans.brightness_profile import LIMIT, brightness_profile, profile_distance


def scan(seed):
    return make_patient("chaost2", 0, seed)[0].array.astype(np.float64)


@pytest.fixture(scope="module")
def scans():
    return [scan(seed) for seed in range(3)]


def test_scale_offset_air_and_cut_do_not_matter(scans):
    wanted = brightness_profile(scans[0])
    assert wanted.shape == (100,)
    for changed in (
        3.7 * scans[0] + 400,
        np.pad(scans[0], ((0, 0), (60, 60), (60, 60)), constant_values=scans[0].min()),
        scans[0][:, 30:-30, 30:-30],
        scans[1],
        scans[2],
    ):
        assert profile_distance(wanted, brightness_profile(changed)) < LIMIT
    air = np.pad(scans[0], ((0, 0), (200, 200), (200, 200)), constant_values=scans[0].min())
    assert profile_distance(wanted, brightness_profile(air)) < 0.1


@pytest.mark.parametrize("change", [np.negative, lambda x: np.minimum(x, np.quantile(x, 0.8))])
def test_inverted_and_saturated_scans_are_told(scans, change):
    for one in scans:
        changed = brightness_profile(change(one))
        assert min(profile_distance(changed, brightness_profile(each)) for each in scans) > LIMIT


def test_a_constant_scan_has_a_profile():
    assert not brightness_profile(np.full((2, 4, 4), 7.0)).any()
