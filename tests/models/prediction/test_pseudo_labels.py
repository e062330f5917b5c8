"""Labels made from probabilities: relations of classes, thresholds and filters."""

from typing import get_args

import numpy as np
import pytest

from models.prediction.pseudo_labels import UNKNOWN, ClassRelation, PseudoLabelConfig, make_pseudo_labels, small_regions
from util.errors import ConfigError, DataError

PUBLISHED = PseudoLabelConfig()


@pytest.mark.parametrize(("task", "relation"), [("vessel", "independent"), ("lesion", "exclusive"), ("odoc", "nested")])
def test_label_maps_equal_the_reference(golden_file, task, relation):
    golden = golden_file("partial/pseudo_labels.npz")
    probabilities = golden[f"prob_{task}"].clip(0, 1)  # some stored values are above 1
    labels = make_pseudo_labels(probabilities, relation, PUBLISHED)
    assert labels.is_certain.all()
    np.testing.assert_array_equal(labels.label_map, golden[f"label_{task}"])


def row(*classes):
    """Probabilities (K, 1, W)."""
    return np.array(classes)[:, None]


def test_relations_by_hand():
    probabilities = row([0.9, 0.6, 0.5, 0.2], [0.8, 0.7, 0.4, 0.6])
    expected = {
        "independent": [[1, 1, 0, 0], [1, 1, 0, 1]],
        "exclusive": [[1, 0, 0, 0], [0, 1, 0, 1]],
        "nested": [[1, 1, 0, 1], [1, 1, 0, 1]],
    }
    for relation in get_args(ClassRelation):
        masks = make_pseudo_labels(probabilities, relation, PUBLISHED).masks
        assert masks[:, 0].astype(int).tolist() == expected[relation]


def test_thresholds_of_each_class():
    """The most probable class counts among those above their thresholds."""
    probabilities = row([0.6, 0.6, 0.8], [0.3, 0.1, 0.3])
    labels = make_pseudo_labels(probabilities, "exclusive", PseudoLabelConfig(thresholds=(0.7, 0.2)))
    assert labels.label_map.tolist() == [[2, 0, 1]]


def test_doubtful_pixels_are_unknown():
    probabilities = row([0.95, 0.6, 0.3, 0.05])
    labels = make_pseudo_labels(probabilities, "independent", PseudoLabelConfig(min_confidence=0.8))
    assert labels.is_certain.tolist() == [[[True, False, False, True]]]
    assert labels.masks.tolist() == [[[True, True, False, False]]]
    assert labels.label_map.tolist() == [[1, UNKNOWN, UNKNOWN, 0]]


def test_a_confident_inner_class_makes_the_outer_one_certain():
    labels = make_pseudo_labels(row([0.3], [0.9]), "nested", PseudoLabelConfig(min_confidence=0.8))
    assert labels.is_certain.all()
    assert labels.label_map.tolist() == [[2]]


def test_small_regions_are_unknown():
    mask = np.zeros((6, 8), bool)
    mask[0, 0] = mask[1, 1] = mask[2, 2] = True  # one region of 3, across corners
    mask[4:6, 4:6] = True
    assert small_regions(mask, 3).sum() == 0
    assert np.array_equal(small_regions(mask, 4), mask & (np.arange(8) < 3))
    assert small_regions(mask, 5).sum() == 7
    labels = make_pseudo_labels(mask[None] * 0.9, "independent", PseudoLabelConfig(min_area_px=4))
    assert (labels.label_map == 1).sum() == 4
    assert (labels.label_map == UNKNOWN).sum() == 3
    assert labels.masks.sum() == 4


def test_wrong_input_is_an_error():
    for bad in (np.nan, 1.5, -0.1):
        with pytest.raises(DataError, match="expected 0 to 1"):
            make_pseudo_labels(row([0.5, bad]), "independent", PUBLISHED)
    with pytest.raises(ConfigError, match="2 thresholds for 3 classes"):
        make_pseudo_labels(np.zeros((3, 2, 2)), "exclusive", PseudoLabelConfig(thresholds=(0.5, 0.5)))
    with pytest.raises(ConfigError, match="min_confidence"):
        PseudoLabelConfig(min_confidence=1.5)
    overlapping = make_pseudo_labels(row([0.9], [0.9]), "independent", PUBLISHED)
    with pytest.raises(DataError, match="Store one mask per class"):
        _ = overlapping.label_map
    with pytest.raises(DataError, match="300 classes; expected at most 254"):
        _ = make_pseudo_labels(np.zeros((300, 1, 1)), "exclusive", PUBLISHED).label_map
