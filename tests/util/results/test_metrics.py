import math
import warnings
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
import torch

from util.errors import DataError
from util.results.metrics import (
    Counts,
    Scores,
    overlap_counts,
    overlap_scores,
    score_volume,
    summarise,
)

GOLDEN = Path(__file__).parents[2] / "golden/fewshot/dice_metric.npz"
UNIT = (1.0, 1.0, 1.0)
NAN = float("nan")


def cube(z=(2, 6), y=(2, 6), x=(2, 6), shape=(9, 10, 12)):
    mask = np.zeros(shape, bool)
    mask[slice(*z), slice(*y), slice(*x)] = True
    return mask


def same(scores: Scores, *expected: float):
    """Whether the scores are these; where all distances are equal, both conventions of HD95 agree."""
    *overlap, hd95, nsd = expected
    np.testing.assert_allclose(astuple(scores), (*overlap, hd95, hd95, nsd), rtol=1e-6)
    return True


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
@pytest.mark.parametrize(("name", "key"), [("dice", "Dice"), ("precision", "Prec"), ("recall", "Rec"), ("iou", "IoU")])
def test_overlap_reproduces_the_reference_exactly(kind, name, key):
    golden = np.load(GOLDEN)

    def score(scan, label):
        truth, prediction = (golden[f"s1/scan{scan}_label{label}_{side}"] for side in ("gt", "pred"))
        counts = overlap_counts(kind(prediction == 1), kind(truth == 1), kind(truth == 255))
        return getattr(overlap_scores(counts), name)

    raw = np.array([[score(scan, label) for label in (2, 3)] for scan in range(3)])
    if f"s1/raw{key}" in golden:
        np.testing.assert_array_equal(raw, golden[f"s1/raw{key}"])
    np.testing.assert_array_equal(raw.mean(axis=0), golden[f"s1/class{key}"])
    np.testing.assert_array_equal(raw.mean(axis=1).mean(), golden[f"s1/mean{key}"])


def test_ignored_voxels_leave_the_prediction_but_not_the_truth():
    truth, prediction = np.array([1, 1, 0, 0, 0], bool), np.array([1, 0, 1, 1, 0], bool)
    ignore = np.array([0, 1, 1, 0, 0], bool)
    assert overlap_counts(prediction, truth) == Counts(1, 2, 1)
    assert overlap_counts(prediction, truth, ignore) == Counts(1, 1, 1)
    assert overlap_counts(prediction, truth, np.ones(5, bool)) == Counts(0, 0, 2)


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(DataError, match=r"prediction \(1, 4\) and ground truth \(3, 4\).*Resample the prediction"):
        overlap_counts(np.ones((1, 4), bool), np.ones((3, 4), bool))


def test_overlap_by_hand():
    scores = overlap_scores(Counts(6, 2, 4))
    assert scores == (12 / 18, 6 / 8, 6 / 10, 6 / 12)


def test_perfect_prediction():
    assert same(score_volume(cube(), cube(), UNIT), 1, 1, 1, 1, 0, 1)


@pytest.mark.parametrize(
    ("shift", "spacing", "millimetres"), [(1, UNIT, 1.0), (2, UNIT, 2.0), (2, (5.0, 3.0, 1.5), 3.0)]
)
def test_shifted_cube(shift, spacing, millimetres):
    scores = score_volume(cube(x=(2 + shift, 6 + shift)), cube(), spacing, nsd_tolerance_mm=millimetres)
    share = (4 - shift) / 4
    assert same(scores, share, share, share, share / (2 - share), millimetres, 1.0)
    assert score_volume(cube(x=(2 + shift, 6 + shift)), cube(), spacing, nsd_tolerance_mm=millimetres - 0.1).nsd < 0.8


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_distance_follows_the_spacing_of_its_axis(axis):
    spacing = (7.7, 2.5, 1.25)
    scores = score_volume(np.roll(cube(), 1, axis), cube(), spacing, nsd_tolerance_mm=3.0)
    assert scores.hd95_mm == pytest.approx(spacing[axis])
    assert (scores.nsd == pytest.approx(1)) == (spacing[axis] <= 3.0)


def test_surface_weighs_by_area():
    """Slabs 2 mm apart in z share their side walls; those are next to nothing beside the top and the bottom."""
    low, high = cube(z=(2, 4), y=(1, 39), x=(1, 39), shape=(8, 40, 40)), cube((4, 6), (1, 39), (1, 39), (8, 40, 40))
    scores = score_volume(low, high, UNIT, nsd_tolerance_mm=0.5)
    # Of two tops, two bottoms and four 2 mm high walls each, only the touching top and bottom are found.
    assert scores.nsd == pytest.approx(2 * 38**2 / (4 * 38**2 + 2 * 4 * 38 * 2), rel=0.06)


def test_picture_is_scored_by_its_outline():
    truth, prediction = cube(z=(0, 1), shape=(1, 10, 12)), cube(z=(0, 1), x=(3, 7), shape=(1, 10, 12))
    # At tolerance 0 the two horizontal edges that both outlines share are found, the vertical ones are not: one half.
    assert same(score_volume(prediction, truth, (9.0, 1.0, 1.0), nsd_tolerance_mm=0.0), 0.75, 0.75, 0.75, 0.6, 1, 0.5)


def test_mask_at_the_border_of_the_volume():
    whole = np.ones((3, 4, 5), bool)
    part = whole.copy()
    part[:, :, -1] = False
    assert score_volume(part, whole, UNIT).hd95_mm == 1.0
    assert score_volume(part, whole, UNIT, nsd_tolerance_mm=1.0).nsd == 1.0


def test_empty_masks():
    empty = np.zeros_like(cube())
    assert same(score_volume(empty, empty, UNIT), NAN, NAN, NAN, NAN, NAN, NAN)
    assert same(score_volume(cube(), empty, UNIT), 0, 0, NAN, 0, NAN, 0)
    assert same(score_volume(empty, cube(), UNIT), 0, NAN, 0, 0, NAN, 0)
    assert same(score_volume(cube(), empty, UNIT, ignore=cube()), NAN, NAN, NAN, NAN, NAN, NAN)


def test_ignored_voxels_enter_neither_counts_nor_surfaces():
    prediction = cube()
    prediction[8, 9, 11] = True
    ignore = cube((8, 9), (9, 10), (11, 12))
    assert score_volume(prediction, cube(), UNIT).precision == 64 / 65
    assert same(score_volume(prediction, cube(), UNIT, ignore), 1, 1, 1, 1, 0, 1)


def test_surface_scores_equal_monai():
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance
    from monai.metrics.surface_dice import compute_surface_dice

    rng = np.random.default_rng(0)
    spacing = (7.7, 1.25, 1.5)
    prediction, truth = (cube() ^ (rng.random((9, 10, 12)) < 0.1) for _ in range(2))
    scores = score_volume(prediction, truth, spacing, nsd_tolerance_mm=1.3)
    batch = torch.from_numpy(prediction)[None, None], torch.from_numpy(truth)[None, None]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI calls itself with a deprecated argument
        distance = compute_hausdorff_distance(*batch, include_background=True, percentile=95, spacing=spacing)
        dice = compute_surface_dice(
            *batch, class_thresholds=[1.3], include_background=True, spacing=spacing, use_subvoxels=True
        )
    assert scores.hd95_mm == pytest.approx(distance.item(), rel=1e-6)
    assert scores.nsd == pytest.approx(dice.item(), rel=1e-6)
    assert 0.1 < scores.nsd < 0.95


def test_both_conventions_of_hd95_by_hand():
    """A line and the same with a tail: every distance from the line is 0, those from the tail are 1 to 10 pixels."""
    truth, prediction = cube((0, 1), (2, 3), (0, 90), (1, 5, 100)), cube((0, 1), (2, 3), (0, 100), (1, 5, 100))
    scores = score_volume(prediction, truth, (1.0, 1.0, 2.0))
    from_prediction, from_truth = [0.0] * 90 + [2.0 * n for n in range(1, 11)], [0.0] * 90
    assert scores.hd95_mm == pytest.approx(np.percentile(from_prediction, 95)) == pytest.approx(10.1)
    assert scores.hd95_pooled_mm == pytest.approx(np.percentile(from_prediction + from_truth, 95)) == pytest.approx(1.1)


def test_summary_counts_what_is_undefined():
    assert summarise([0.5, NAN, 0.9, 0.7]) == pytest.approx((0.7, 0.2, 3, 1))
    one = summarise([0.5, NAN])
    assert one.mean == 0.5
    assert math.isnan(one.std)
    none = summarise([NAN, NAN])
    assert math.isnan(none.mean)
    assert none.n_undefined == 2
    assert summarise([]).n_undefined == 0
