"""Label values there and back, and label maps from masks."""

import numpy as np
import pytest

from dataloaders.catalog import dataset
from dataloaders.description import ClassSpec, DatasetSpec
from dataloaders.scans.labels import combine_masks, to_prepared_values, to_supplied_values
from util.errors import DataError

SPEC = DatasetSpec("mine", "scans", classes=(ClassSpec("tumour", value=2048), ClassSpec("liver", value=1)))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64])
def test_supplied_values_become_places_and_come_back(dtype):
    supplied = np.array([[0, 1], [2048, 0]], dtype)
    prepared = to_prepared_values(supplied, SPEC)
    assert prepared.dtype == np.uint8
    assert prepared.tolist() == [[0, 2], [1, 0]]
    back = to_supplied_values(prepared, SPEC)
    assert back.dtype == np.uint16
    np.testing.assert_array_equal(back, supplied)


def test_values_of_the_built_in_sets_stay():
    label = np.arange(5, dtype=np.uint8)
    chaos = dataset("CHAOST2")
    np.testing.assert_array_equal(to_prepared_values(label, chaos), label)
    assert to_supplied_values(label, chaos).dtype == np.uint8
    np.testing.assert_array_equal(to_supplied_values(label, chaos), label)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([0, 2, 2, 1], r"label value 2 \(2 voxels\): no class of mine; expected 0 .*2048 tumour, 1 liver"),
        ([-1, 70_000, 0, 0.9996], r"label value -1 \(1 voxels\), 70000 \(1 voxels\): no class"),
        ([1.5, -1, np.nan], r"label values 1\.5, nan in 2 of 3 voxels; expected whole numbers"),
        ([np.float32(0.998), 1], r"label values 0\.998\d* in 1 of 2 voxels"),
        (list(range(10)), "6 \\(1 voxels\\) and 3 further values"),
    ],
)
def test_values_that_are_no_class_are_counted(values, found):
    with pytest.raises(DataError, match=found):
        to_prepared_values(np.array(values), SPEC)


def test_masks_become_a_label_map_in_the_order_of_the_classes():
    masks = {"liver": np.array([0, 7, 1, 0]), "tumour": np.array([1, 1, 0, 0])}
    label, n_shared = combine_masks(masks, SPEC)
    assert label.tolist() == [1, 2, 2, 0]
    assert n_shared == 1
