import math

import numpy as np
import pandas as pd
import pytest

from tests.util.results.report.conftest import DICE, scores_of
from util.results.report.cases import group_cases
from util.results.report.strip import make_plot
from util.results.scores import make_scores


def test_marks_follow_the_mean_over_defined_structures():
    (group,) = group_cases(scores_of())
    assert group.title == ""
    assert [row.case for row in group.rows][:3] == ["1", "2", "3"]
    assert {row.case: row.mark for row in group.rows if row.mark}["10"] == "best"  # 0.95, the other is undefined
    assert [row.mark for row in group.marked] == ["worst", "median", "best"]
    by_case = {row.case: row for row in group.rows}
    assert by_case["2"].mean == pytest.approx(0.45)
    assert by_case["3"].distance == 120


@pytest.mark.parametrize(
    ("dice", "distance", "is_far"), [(0.5, 50, True), (0.49, 90, False), (0.9, 49.9, False), (0.9, math.nan, False)]
)
def test_a_far_off_piece_needs_a_fair_dice_and_a_large_distance(dice, distance, is_far):
    shared = {"method": "x", "dataset": "y", "case": "1", "structure": "LIVER"}
    values = {"dice": dice, "hd95_mm": distance}
    (group,) = group_cases(make_scores(shared | {"metric": name, "value": value} for name, value in values.items()))
    assert bool(group.rows[0].far) == is_far


def test_scores_of_several_conditions_are_groups_named_by_what_differs():
    found = [scores_of(weights=weights, method=f"Mine {weights}", protocol="blind") for weights in ("last", "ema")]
    groups = group_cases(pd.concat(found, ignore_index=True))
    assert [group.title for group in groups] == ["last", "ema"]
    anchors = [row.anchor for group in groups for row in group.rows]
    assert len(set(anchors)) == 2 * len(DICE)


def test_scores_of_all_cases_together_have_no_cases():
    assert group_cases(make_scores([{"method": "x", "structure": "y", "metric": "dice", "value": 0.5}])) == []
    assert group_cases(make_scores([])) == []


def test_a_strip_has_every_defined_case_at_its_place():
    cases = [(str(n), f"case-{n}", value) for n, value in enumerate([0.0, 50.0, 100.0, math.nan])]
    plot = make_plot([("LIVER", cases), ("RK", [])], 0.0, 100.0)
    assert plot is not None
    strip, empty = plot.strips
    x = [point.x for point in strip.points]
    assert np.diff(x).tolist() == pytest.approx([(plot.right - plot.left) / 2] * 2, abs=0.11)
    assert strip.median == x[1]
    assert strip.box == pytest.approx((np.mean(x[:2]), np.mean(x[1:])), abs=0.11)
    assert [point.anchor for point in strip.points] == ["case-0", "case-1", "case-2"]
    assert strip.summary == "LIVER: median 50.0, quartiles 25.0 to 75.0, 3 cases"
    assert empty.points == []
    assert make_plot([("LIVER", [("1", "a", math.nan)])]) is None


def test_the_axis_of_differences_is_symmetrical():
    plot = make_plot([("LIVER", [("1", "a", -3.0), ("2", "b", 1.0)])], signed=True)
    assert plot is not None
    assert plot.zero == pytest.approx((plot.left + plot.right) / 2)
    assert plot.ticks[0][1].startswith("-")
    assert plot.strips[0].points[0].label == "1, LIVER: -3.0"
    equal = make_plot([("LIVER", [("1", "a", 0.0)])], signed=True)
    assert equal is not None
    assert [equal.ticks[n][1] for n in (0, -1)] == ["-0.1", "+0.1"]


def test_distances_that_were_not_measured_are_not_spoken_of():
    scores = scores_of()
    scores.loc[scores["metric"] == "hd95_mm", "value"] = math.nan
    (group,) = group_cases(scores)
    assert group.distance == ""
