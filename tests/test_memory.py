import importlib.util
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

PLACE = Path(__file__).parent / "soak" / "memory.py"


@pytest.fixture(scope="module")
def memory():
    spec = importlib.util.spec_from_file_location("soak_memory", PLACE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def test_memory_of_training_is_flat_from_few_to_many_scans(memory, make_prepared, tmp_path):
    report = memory.compare(SimpleNamespace(write_prepared=make_prepared), 20, 400, tmp_path)
    assert report["few"]["again"]["n_drawn"] == report["many"]["again"]["n_drawn"] == 20
    assert report["is_flat"], report


GROWING = """
import memory
before = memory.anonymous_mb()
block = bytearray(50_000_000)
print(memory.anonymous_mb() - before)
"""


def test_growing_memory_would_be_seen(memory):
    """In a process of its own: this one may hold freed memory, which further blocks are taken from."""
    done = subprocess.run([sys.executable, "-c", GROWING], cwd=PLACE.parent, capture_output=True, check=True)
    assert 45 < float(done.stdout) < 55
    assert memory.MOST_GROWTH * 380 * memory.SLICES_BYTES < 50e6  # half of what 380 small scans hold
