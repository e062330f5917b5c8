"""Small prepared sets, written once."""

import pytest

from tests.partial_sets import write_sets


@pytest.fixture(scope="session")
def sets(tmp_path_factory):
    """A data root with LINES, BLOBS, DISCS and MIXED."""
    return write_sets(tmp_path_factory.mktemp("partial"))
