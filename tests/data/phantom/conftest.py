import pytest

from data.phantom import make_patient


@pytest.fixture(scope="session")
def mr_scans():
    return [make_patient("chaost2", index, seed=0, size_px=64) for index in range(4)]


@pytest.fixture(scope="session")
def ct_scan():
    return make_patient("sabs", 0, seed=0, size_px=96)
