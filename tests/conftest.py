"""Fixtures of the whole suite."""

from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="session")
def golden_file():
    """Loads a file of reference values: `golden_file("fewshot/alp_module.npz")["case/array"]`."""
    return lambda name: np.load(GOLDEN / name)
