"""Areas under curves and rates of pixels against reference values and other implementations."""

import math

import numpy as np
import pytest
from scipy.stats import mannwhitneyu
from skimage.filters import threshold_otsu

from util.errors import DataError
from util.results.ranking import (
    PixelCounts,
    average_precision,
    count_pixels,
    eleven_point_aupr,
    otsu_mask,
    pool,
    rank_pixels,
    roc_auc,
    sum_counts,
)


@pytest.fixture(scope="module")
def lesions(golden_file):
    """Reference values, probabilities (image, class, H, W), and masks of the same shape."""
    golden = golden_file("partial/metrics.npz")
    truth = golden["lesion_gt"][:, None] == np.arange(1, 5)[:, None, None]
    return golden, golden["lesion_prob"], truth


@pytest.mark.parametrize("kind", range(4))
def test_pooled_areas_equal_the_reference(lesions, kind):
    golden, probability, truth = lesions
    pooled = pool([rank_pixels(*pair) for pair in zip(probability[:, kind], truth[:, kind], strict=True)])
    assert average_precision(pooled) == pytest.approx(golden["lesion_ap_exact"][kind], abs=1e-9)
    assert eleven_point_aupr(pooled) == pytest.approx(golden["lesion_aupr_11"][kind], abs=1e-9)
    at_once = rank_pixels(probability[:, kind], truth[:, kind])
    for name in ("score", "positive", "negative"):
        np.testing.assert_array_equal(getattr(pooled, name), getattr(at_once, name))


@pytest.mark.parametrize("kind", range(4))
def test_pooled_rates_equal_the_reference(lesions, kind):
    golden, probability, truth = lesions
    pairs = zip(probability[:, kind] > 0.5, truth[:, kind], strict=True)
    counts = sum_counts([count_pixels(*pair) for pair in pairs])
    assert counts.rates.sensitivity == pytest.approx(golden["lesion_se"][kind], abs=1e-9)
    assert counts.rates.precision == pytest.approx(golden["lesion_ppv"][kind], abs=1e-9)
    assert sum(counts) == truth[:, kind].size


def test_auc_is_the_statistic_of_ranks_with_ties(lesions):
    _, probability, truth = lesions
    for image in range(4):
        rounded = probability[image, 0].round(1)
        one, other = rounded[truth[image, 0]], rounded[~truth[image, 0]]
        expected = mannwhitneyu(one, other).statistic / len(one) / len(other)
        assert roc_auc(rank_pixels(rounded, truth[image, 0])) == pytest.approx(expected, abs=1e-12)


def test_areas_by_hand():
    """Descending: hit, miss, hit, miss; precision 1 at recall 1/2, and 2/3 at recall 1."""
    ranking = rank_pixels(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False]))
    assert average_precision(ranking) == pytest.approx((1 + 2 / 3) / 2)
    assert roc_auc(ranking) == pytest.approx(3 / 4)
    hits, false_alarms = ranking.above(np.array([0.0, 0.7, 0.75, 0.9]))
    assert hits.tolist() == [2, 1, 1, 0]
    assert false_alarms.tolist() == [2, 1, 1, 0]
    tied = rank_pixels(np.full(4, 0.3), np.array([True, False, True, False]))
    assert (roc_auc(tied), average_precision(tied)) == (0.5, 0.5)


@pytest.mark.parametrize("n_scores", [3, 49, 98, 1000])
def test_rounding_lifts_no_area_above_one(n_scores):
    score, mask = np.linspace(1, 1.5, n_scores) - 0.5, np.ones(n_scores, bool)
    ranking = rank_pixels(score, mask)
    assert average_precision(ranking) == eleven_point_aupr(ranking) == 1


def test_only_pixels_inside_count(lesions):
    _, probability, truth = lesions
    image, mask = probability[0, 0], truth[0, 0]
    inside = np.zeros(image.shape, bool)
    inside[5:30, 4:20] = True
    cropped = image[5:30, 4:20], mask[5:30, 4:20]
    ranked = rank_pixels(image, mask, inside), rank_pixels(*cropped)
    for area in (roc_auc, average_precision, eleven_point_aupr):
        assert area(ranked[0]) == area(ranked[1])
    assert count_pixels(image > 0.5, mask, inside) == count_pixels(cropped[0] > 0.5, cropped[1])


def test_black_surroundings_raise_specificity_and_accuracy_only():
    prediction, truth = np.array([1, 1, 0, 0, 0, 0], bool), np.array([1, 0, 1, 0, 0, 0], bool)
    inside = np.array([1, 1, 1, 1, 0, 0], bool)
    within, everywhere = (count_pixels(prediction, truth, where) for where in (inside, None))
    assert (within, everywhere) == (PixelCounts(1, 1, 1, 1), PixelCounts(1, 1, 1, 3))
    assert within.rates == (0.5, 0.5, 0.5, 0.5)
    assert everywhere.rates == (0.5, 0.75, 0.5, 4 / 6)


def test_rounding_bounds_the_memory_and_hardly_changes_the_areas(lesions):
    _, probability, truth = lesions
    exact, rounded = (rank_pixels(probability[:, 0], truth[:, 0], n_levels=n) for n in (None, 256))
    assert len(rounded.score) <= 256 < len(exact.score)
    for area in (roc_auc, average_precision):
        assert area(rounded) == pytest.approx(area(exact), abs=0.005)


def test_single_precision_is_ranked_as_given():
    scores = np.array([0.1, 0.5, 0.7], np.float32)
    assert eleven_point_aupr(rank_pixels(scores, scores > 0.3)) == 1


def test_areas_of_nothing_are_undefined():
    probability = np.array([0.2, 0.6])
    without, full = (rank_pixels(probability, np.full(2, value)) for value in (False, True))
    assert all(math.isnan(area(without)) for area in (roc_auc, average_precision, eleven_point_aupr))
    assert math.isnan(roc_auc(full))
    assert average_precision(full) == 1
    empty = count_pixels(np.zeros(2, bool), np.zeros(2, bool)).rates
    assert math.isnan(empty.sensitivity)
    assert (empty.specificity, empty.accuracy) == (1, 1)


def test_otsu_within_a_field_equals_another_implementation():
    generator = np.random.default_rng(0)
    probability = np.clip(
        np.where(generator.random((40, 30)) > 0.8, 0.7, 0.2) + generator.normal(0, 0.1, (40, 30)), 0, 1
    )
    inside = generator.random((40, 30)) > 0.3
    values = (probability * 255).astype(np.uint8)
    np.testing.assert_array_equal(otsu_mask(probability), values > threshold_otsu(values))
    np.testing.assert_array_equal(otsu_mask(probability, inside), inside & (values > threshold_otsu(values[inside])))


def test_wrong_input_is_an_error():
    with pytest.raises(DataError, match="expected the same shape"):
        count_pixels(np.zeros((2, 3), bool), np.zeros((2, 3), bool), np.zeros((2, 3), bool)[:, :2])
    with pytest.raises(DataError, match=r"from -1 to 0\.5; expected 0 to 1"):
        rank_pixels(np.array([-1, 0.5]), np.array([True, False]))
    with pytest.raises(DataError, match="expected at least one"):
        pool([])
    with pytest.raises(DataError, match="no pixel of"):
        otsu_mask(np.zeros((2, 2)), np.zeros((2, 2), bool))
