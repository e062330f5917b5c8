import numpy as np
import pytest

from dataloaders.catalog import dataset
from dataloaders.scans.manifest import statistics_of
from dataloaders.scans.normalise import Normalisation

CHAOST2 = dataset("CHAOST2")
SABS = dataset("SABS")


@pytest.fixture(scope="module")
def scans():
    generator = np.random.default_rng(0)
    return [generator.normal(50 * n, 10 + n, (3 + n, 8, 8)) for n in range(1, 4)]


def test_mr_is_normalised_scan_by_scan(scans):
    rule = Normalisation.fit(CHAOST2, [statistics_of(scan) for scan in scans])
    for scan in scans:
        normalised = rule.apply(scan)
        assert normalised.dtype == np.float32
        assert normalised.mean() == pytest.approx(0, abs=1e-5)
        assert normalised.std() == pytest.approx(1, abs=1e-5)


def test_ct_is_normalised_by_all_voxels_of_the_training_scans(scans):
    rule = Normalisation.fit(SABS, [statistics_of(scan) for scan in scans])
    voxels = np.concatenate([scan.ravel() for scan in scans])
    assert rule.mean == pytest.approx(voxels.mean())
    assert rule.std == pytest.approx(voxels.std())
    another = np.full((1, 8, 8), voxels.mean() + voxels.std())
    np.testing.assert_allclose(rule.apply(another), 1, atol=1e-5)
    assert Normalisation.from_dict(rule.to_dict()) == rule


def test_a_constant_scan_becomes_zero():
    assert not Normalisation().apply(np.full((2, 8, 8), 7.0)).any()
