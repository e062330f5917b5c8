import numpy as np
import pytest

from dataloaders.fewshot import protocol
from util.errors import ConfigError


def cases(golden):
    return sorted({key.split("/")[0] for key in golden.files})


def test_parts_and_support_slices_equal_the_reference(golden_file):
    golden = golden_file("fewshot/part_assignment.npz")
    assert len(cases(golden)) >= 3
    for case in cases(golden):
        n_parts, n_slices, first, last = (int(text.strip("npartz")) for text in case.split("_"))
        parts = protocol.reference_parts(n_slices, first, last, n_parts)
        np.testing.assert_array_equal(parts, golden[f"{case}/part"])
        chosen = protocol.support_slices(range(first, last + 1), n_parts)
        np.testing.assert_array_equal(chosen, golden[f"{case}/support_z"])
        np.testing.assert_allclose(protocol.part_fractions(n_parts), golden[f"{case}/pcts"])


@pytest.mark.parametrize("n_parts", [0, 2, -1])
def test_an_even_number_of_parts_is_refused(n_parts):
    with pytest.raises(ConfigError, match="n_sup_part"):
        protocol.part_fractions(n_parts)


def test_blind_parts_follow_relative_height():
    # support slices 2, 5, 8 of 10; a query of 20 slices has the same heights at 4-5, 10-11, 16-17
    parts = protocol.blind_parts(20, [2, 5, 8], 10)
    assert parts[[0, 4, 5]].tolist() == [0, 0, 0]
    assert parts[[10, 11]].tolist() == [1, 1]
    assert parts[[16, 19]].tolist() == [2, 2]
    assert (np.diff(parts) >= 0).all()
