import csv
import io
import math

import numpy as np
import pytest

from util.results.metrics import Scores, bootstrap_interval
from util.results.scores import ScoreRow
from util.results.tables import measured_tables, paper_table, to_csv, to_markdown

NAN = float("nan")
LABELS = {"LIVER": 1, "RK": 2, "LK": 3, "SPLEEN": 4}


def row(dice=0.8, *, fold=0, scan=1, organ="LK", protocol="published", **more):
    scores = Scores(dice, 0.7, 1 / 3, 0.6, NAN if math.isnan(dice) else 4.25, 0.5)
    return ScoreRow(protocol=protocol, fold=fold, scan=scan, label=LABELS[organ], organ=organ, scores=scores, **more)


def only(table):
    (line,) = table.lines
    return line.figures


def test_mean_over_folds_of_the_mean_over_scans():
    dice = {0: [0.9, 0.7, 0.8], 1: [0.4]}
    rows = [
        row(value, fold=fold, scan=10 * fold + i) for fold, values in dice.items() for i, value in enumerate(values)
    ]
    figure = only(paper_table(rows))["Left kidney"]
    assert figure.mean == pytest.approx((0.8 + 0.4) / 2)
    assert figure.std == pytest.approx(np.std([0.9, 0.7, 0.8, 0.4], ddof=1))
    assert (figure.n_scans, figure.n_undefined, figure.folds) == (4, 0, (0, 1))
    expected = bootstrap_interval([0.4, 0.7, 0.8, 0.9], range(4), weights=[1 / 2, 1 / 6, 1 / 6, 1 / 6])
    assert (figure.low, figure.high) == pytest.approx(expected)


def test_seeds_count_alike_whatever_their_number_of_scans():
    rows = [row(0.2, seed="1"), row(0.8, seed="2"), row(1.0, seed="2", scan=2), row(0.5, seed="2", fold=1)]
    table = paper_table(rows, n_folds=2)
    assert only(table)["Left kidney"].mean == pytest.approx((0.2 + 0.9 + 0.5) / 3)
    header, (line,) = table.cells()
    assert dict(zip(header, line, strict=True))["Seeds"] == "2"
    assert "mean over folds and seeds" in table.notes[0]
    assert "Seeds" not in paper_table(rows[1:], n_folds=2).cells()[0]


def test_columns_follow_the_paper_and_the_mean_is_over_organs():
    dice = {"LIVER": 0.2, "SPLEEN": 0.4, "RK": 0.6, "LK": 0.8}
    rows = [row(value + 0.01 * scan, scan=scan, organ=organ) for organ, value in dice.items() for scan in (1, 2, 3)]
    table = paper_table(rows, n_folds=1)
    assert table.columns == ("Left kidney", "Right kidney", "Spleen", "Liver", "Mean")
    figure = only(table)["Mean"]
    assert figure.mean == pytest.approx(0.52)
    assert figure.std == pytest.approx(0.01)  # of the scans' means over organs: 0.51, 0.52, 0.53
    assert figure.n_scans == 3
    assert 0.51 <= figure.low < 0.52 < figure.high <= 0.53  # a patient's organs are drawn together
    assert len(table.notes) == 1


def test_mean_weighs_organs_alike_however_many_scans_have_them():
    rows = [*(row(0.9, scan=scan, fold=scan // 3) for scan in range(9)), row(0.1, scan=0, organ="LIVER")]
    assert only(paper_table(rows))["Mean"].mean == pytest.approx(0.5)


def test_names_of_both_data_sets_share_a_column():
    ct = ScoreRow(protocol="p", fold=0, scan=0, label=3, organ="KID_l", scores=row().scores, dataset="SABS")
    other = ScoreRow(protocol="p", fold=0, scan=0, label=9, organ="PORES", scores=row().scores, dataset="SABS")
    table = paper_table([row(dataset="CHAOST2", protocol="p"), ct, other], n_folds=1)
    assert table.columns == ("Left kidney", "PORES", "Mean")
    assert [line.dataset for line in table.lines] == ["CHAOST2", "SABS"]
    assert len(table.notes) == 1  # CHAOST2 is not expected to have the organs of SABS


def test_undefined_values_are_counted_and_named():
    rows = [row(0.8, scan=1), row(NAN, scan=2), row(0.6, fold=1, scan=3), row(NAN, fold=2, scan=4)]
    rows.append(row(NAN, scan=1, organ="LIVER"))
    table = paper_table(rows, n_folds=3)
    figures = only(table)
    assert figures["Left kidney"].mean == pytest.approx(0.7)
    assert figures["Left kidney"].n_undefined == 2
    assert math.isnan(figures["Liver"].mean)
    assert figures["Mean"].mean == pytest.approx(0.7)
    assert figures["Mean"].n_undefined == 3
    assert table.notes[1:] == (
        "published: no defined score of fold 2 for Left kidney.",
        "published: no defined score of fold 0, 1, 2 for Liver.",
        "published: the mean is without Liver.",
    )


def test_missing_folds_and_organs_are_stated():
    rows = [row(fold=fold, scan=fold, method="a", organ=organ) for fold in (0, 2) for organ in ("LK", "RK")]
    rows += [row(fold=fold, scan=fold, method="b") for fold in range(3)]
    notes = paper_table(rows, n_folds=3).notes
    assert "a, published: no defined score of fold 1 for Left kidney, Right kidney." in notes
    assert "b, published: the mean is without Right kidney." in notes
    assert len(notes) == 3


def test_protocols_and_settings_stay_apart():
    table = paper_table([row(0.8), row(0.6, protocol="no ground truth"), row(0.4, setting="2")])
    assert [line.figures["Mean"].mean for line in table.lines] == pytest.approx([0.8, 0.6, 0.4])


def test_markdown():
    rows = [row(0.8, scan=1, method="A|B"), row(0.9, scan=2, method="A|B"), row(NAN, organ="LIVER", method="A|B")]
    lines = to_markdown(paper_table(rows, n_folds=1)).splitlines()
    assert lines[0] == "| Method | Protocol | Left kidney | Liver | Mean | Folds | Scans | Undefined |"
    assert lines[1] == "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    kidney = "85.00 ± 7.07 [80.00, 90.00]"
    assert lines[2] == rf"| A\|B | published | {kidney} | – | {kidney} | 1 | 2 | 1 |"
    assert lines[3] == ""
    assert lines[4].startswith("- Dice × 100: mean over folds of the mean over query scans ± sample standard deviation")


def test_distances_are_not_multiplied():
    table = paper_table([row()], metric="hd95_mm")
    assert table.cells()[1][0][1] == "4.25"
    assert table.notes[0].startswith("HD95 in mm")


def test_csv_is_unrounded_and_long():
    text = to_csv(paper_table([row(1 / 3, scan=1, setting="2"), row(0.5, scan=2, setting="2"), row(NAN, organ="RK")]))
    records = list(csv.DictReader(io.StringIO(text)))
    assert [(record["setting"], record["organ"]) for record in records] == [
        ("2", "Left kidney"),
        ("2", "Mean"),
        ("", "Right kidney"),
        ("", "Mean"),
    ]
    assert float(records[0]["mean"]) == pytest.approx((1 / 3 + 0.5) / 2, abs=1e-15)
    assert records[0]["folds"] == "0"
    assert (records[2]["mean"], records[2]["n_undefined"]) == ("", "1")


def test_only_what_was_measured_gets_a_table():
    shared = {"protocol": "blind", "fold": 0, "label": 1, "organ": "LIVER"}
    one = ScoreRow(scan=1, scores=Scores(0.5, 0.5, 0.5, 0.4, NAN, NAN), **shared)
    assert [table.metric for table in measured_tables([one])] == ["dice"]
    whole = ScoreRow(scan=2, scores=Scores(0.5, 0.5, 0.5, 0.4, 3.0, 0.9), **shared)
    assert [table.metric for table in measured_tables([one, whole])] == ["dice", "hd95_mm", "nsd"]
