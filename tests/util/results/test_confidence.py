"""What a confidence is worth: correlation, the limit that is chosen, and pairs of confidence and Dice."""

import numpy as np
import pandas as pd
import pytest

from util.errors import DataError
from util.results.confidence import measure_worth, paired, review_limit
from util.results.scores import make_scores


def test_the_limit_tells_poor_masks_from_good_ones():
    confidence = np.array([0.9, 0.5, 0.8, 0.55, 0.85, 0.6, 0.7, 0.75, 0.95, 0.65])
    worth = measure_worth(confidence, np.where(confidence < 0.62, 0.2, 0.9))
    assert worth.limit == pytest.approx(0.625)
    assert worth.correlation == pytest.approx(0.80, abs=0.01)
    assert worth.confidence.tolist() == sorted(confidence)
    assert worth.sentences[1].startswith(
        "A Dice below 0.7 have 3 of 3 masks with a confidence below 0.625, and 0 of 7 of the others"
    )


def test_where_no_limit_is_perfect_both_kinds_of_mistakes_count_by_their_share():
    confidence = np.linspace(0.1, 1, 10)
    dice = np.array([0.1, 0.9, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9])  # 2 poor: a limit of 0.15 finds one, 0.35 both
    assert measure_worth(confidence, dice).limit == pytest.approx(0.35)
    assert measure_worth(confidence, np.roll(dice, 5)).limit == pytest.approx(0.85)


def test_equal_confidences_are_not_divided():
    confidence, dice = np.repeat([0.4, 0.8], 6), np.array([0.1] * 5 + [0.9] * 7)
    assert measure_worth(confidence, dice).limit == pytest.approx(0.6)


def test_without_poor_or_good_masks_and_with_few_there_is_no_limit():
    confidence = np.linspace(0.5, 1, 12)
    for dice in (np.full(12, 0.9), np.full(12, 0.1)):
        worth = measure_worth(confidence, dice)
        assert worth.limit is None
        assert np.isnan(worth.correlation)
        assert "too few, or too many" in worth.sentences[-1]
    assert measure_worth(confidence[:9], np.linspace(0, 1, 9)).limit is None


def test_undefined_values_are_counted_apart():
    worth = measure_worth(np.array([np.nan, 0.5, 0.6, 0.7]), np.array([0.0, 0.5, np.nan, 0.9]))
    assert (len(worth.dice), worth.n_left_out) == (2, 2)
    assert "2 more have no confidence" in worth.sentences[1]


def test_the_curve_has_the_means_of_equally_many_masks():
    confidence = np.linspace(0, 1, 15)
    bins = measure_worth(confidence, confidence**2).bins
    assert [n for *_, n in bins] == [3] * 5
    np.testing.assert_allclose([c for c, *_ in bins], confidence.reshape(5, 3).mean(1))
    np.testing.assert_allclose([d for _, d, _ in bins], (confidence**2).reshape(5, 3).mean(1))
    assert measure_worth(confidence[:2], confidence[:2]).bins == []


def scores(n=12, **columns):
    return make_scores(
        {"case": str(case), "structure": name, "protocol": "blind", "metric": metric, "value": value} | columns
        for case in range(n)
        for name in ("a", "b")
        for metric, value in {"dice": case / n, "confidence": 0.5 + case / 100, "nsd": 0.3}.items()
    )


def test_pairs_are_of_the_same_mask():
    found = paired(scores(2))
    assert found[["case", "structure", "confidence", "dice"]].to_numpy().tolist() == [
        *(["0", "a", 0.5, 0.0], ["0", "b", 0.5, 0.0], ["1", "a", 0.51, 0.5], ["1", "b", 0.51, 0.5]),
    ]
    assert paired(scores().query("metric != 'confidence'")).empty


def test_a_validation_chooses_a_limit_or_says_why_not():
    assert review_limit(scores(), "exps/1") == pytest.approx(0.585)  # 8/12 is below 0.7, 9/12 is not
    told = scores().assign(protocol="reference")
    is_dice = told["metric"] == "dice"  # in that protocol the other way round; prediction is not told where to look
    told.loc[is_dice, "value"] = 1.0 * (told.loc[is_dice, "value"] < 0.7)
    assert review_limit(pd.concat([scores(), told]), "exps/1") == pytest.approx(0.585)
    assert review_limit(scores().assign(protocol="reference"), "exps/1") == pytest.approx(0.585)
    with pytest.raises(DataError, match=r"exps/1: 4 masks, 4 of them with a Dice below 0.7; expected at least 10"):
        review_limit(scores(2), "exps/1")
    with pytest.raises(DataError, match=r"no confidences beside the Dice. Run the validation again"):
        review_limit(scores().query("metric == 'dice'"), "exps/1")
