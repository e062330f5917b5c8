import math

import numpy as np
import pytest

from benchmarks.interval_coverage import POPULATIONS, SIZES, coverage
from util.results.intervals import mean_interval

NAN = float("nan")


def test_the_textbook_interval_where_no_bound_is_known():
    values = [4.0, 6.0, 7.0, 9.0]  # mean 6.5, sample variance 13 / 3; t with 3 degrees: 3.182
    low, high, n = mean_interval(values, range(4), highest=None)
    assert (low, high) == pytest.approx((6.5 - 3.182446 * math.sqrt(13 / 12), 6.5 + 3.182446 * math.sqrt(13 / 12)))
    assert n == 4
    narrow = mean_interval(values, range(4), highest=None, level=0.5)
    assert low < narrow.low < 6.5 < narrow.high < high


def test_the_logit_scale_by_hand():
    # The mean's logit is 0, with a standard error of 0.1 / (0.5 * 0.5); the quantile of t with 1 degree is 12.706.
    low, high, _ = mean_interval([0.4, 0.6], ["a", "b"])
    assert high == pytest.approx(1 / (1 + math.exp(-0.4 * 12.7062)))
    assert low == pytest.approx(1 - high)


def test_the_logarithmic_scale_by_hand():
    low, high, _ = mean_interval([4.0, 6.0], ["a", "b"], highest=math.inf)
    assert (low, high) == pytest.approx((5 * math.exp(-0.2 * 12.7062), 5 * math.exp(0.2 * 12.7062)))


@pytest.mark.parametrize("highest", [1.0, 100.0, math.inf])
def test_an_interval_stays_within_the_bounds(highest):
    generator = np.random.default_rng(0)
    for n in (2, 3, 5):
        for values in generator.beta(0.2, 0.2, (60, n)) * min(highest, 10):
            low, high, _ = mean_interval(values, range(n), highest=highest)
            assert 0 <= low <= values.mean() <= high <= highest


@pytest.mark.parametrize("values", [[], [NAN, NAN], [0.5], [0.5, NAN], [0.0, 0.0, 0.0], [1.0, 1.0], [0.3, 0.3]])
@pytest.mark.parametrize("highest", [1.0, math.inf, None])
def test_no_interval_without_two_patients_that_differ(values, highest):
    low, high, n = mean_interval(values, range(len(values)), highest=highest)
    assert math.isnan(low)
    assert math.isnan(high)
    assert n == np.count_nonzero(~np.isnan(values))


def test_patients_count_not_values():
    patients = np.repeat(range(5), 40)
    few = np.linspace(0.1, 0.9, 5)
    assert mean_interval(few[patients], patients) == pytest.approx(mean_interval(few, range(5)))
    assert mean_interval(few[patients], patients).n == 5


def test_weights_move_the_interval_and_undefined_values_leave_it():
    two = pytest.approx(mean_interval([0.2, 0.6], ["a", "b"]))
    assert mean_interval([0.2, 0.6, NAN], ["a", "b", "c"]) == two
    assert mean_interval([0.2, 0.6, 0.9], ["a", "b", "c"], [1, 1, 0]) == two
    heavy = mean_interval([0.1, 0.9] * 10, range(20), weights=[1, 3] * 10)
    assert 0.4 < heavy.low < 0.7 < heavy.high < 0.9


@pytest.mark.parametrize("name", ["Dice 0.80 ± 0.10", "Dice 0.90 ± 0.09, skewed", "HD95, log-normal, sigma 0.5"])
@pytest.mark.parametrize("n", [3, 4, 8])
def test_the_interval_holds_its_level_for_few_patients(name, n):
    """A bootstrap of percentiles would cover 70 to 88 %; the standard error of 600 samples is about 1 %."""
    student, _ = coverage(POPULATIONS[name], n, 600, np.random.default_rng(7), with_bootstrap=False)
    assert 90 <= student <= 98


def test_the_level_holds_with_unequal_numbers_of_scans_per_patient():
    generator = np.random.default_rng(3)
    counts = np.array([1, 1, 2, 4])
    patients = np.repeat(range(4), counts)
    hits = 0
    for _ in range(600):
        patient = generator.normal(0.8, 0.05, 4)
        low, high, _ = mean_interval(np.clip(patient[patients] + generator.normal(0, 0.02, 8), 0, 1), patients)
        hits += low <= 0.8 <= high
    assert 0.92 <= hits / 600 <= 0.99


def test_the_percentile_bootstrap_falls_short():
    _, percentile = coverage(POPULATIONS["Dice 0.80 ± 0.10"], 4, 300, np.random.default_rng(7))
    assert percentile < 85
    assert 4 in SIZES
