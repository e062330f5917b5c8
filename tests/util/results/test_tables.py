import csv
import io
import math
from dataclasses import replace

import numpy as np
import pytest

from util.results.intervals import mean_interval
from util.results.layout import GENERIC, Layout
from util.results.scores import make_scores
from util.results.tables import make_tables

NAN = float("nan")
WORDS = {"LK": "Left kidney", "KID_l": "Left kidney", "RK": "Right kidney", "SPLEEN": "Spleen", "LIVER": "Liver"}
SCANS = Layout(
    lines=("method", "dataset", "setting", "protocol"),
    columns=("structure",),
    averaged=("fold", "seed"),
    metrics=("dice", "hd95_mm", "nsd"),
    heading=lambda values: WORDS.get(values[0], values[0]),
    order=("Left kidney", "Right kidney", "Spleen", "Liver"),
    has_mean=True,
)
RUNS = Layout(
    tables=("weights", "dataset"),
    lines=("method", "variant"),
    columns=("alpha", "beta"),
    averaged=("seed",),
    heading=lambda values: f"{values[0]}, {values[1]}" if float(values[0]) else "clean",
    order=("last10", "last", "ema"),
    spread="runs",
    digits=1,
    title=lambda values: f"{values[1]}, {values[0]}",
)


def row(value=0.8, *, scan: int | str = 1, organ="LK", **more):
    shared = {"case": scan, "structure": organ, "metric": "dice", "value": value, "fold": 0, "protocol": "published"}
    return shared | {"seed": 1} | more


def run(value, alpha=0.7, beta=0.7, **more):
    shared = {"method": "T-Loss", "dataset": "ISIC2017", "weights": "last10", "metric": "dice", "value": value}
    return shared | {"alpha": alpha, "beta": beta, "seed": 0} | more


def table_of(rows, layout=SCANS, n_folds=0):
    (table,) = make_tables(make_scores([each | {"n_folds": n_folds} for each in rows]), layout, is_complete=True)
    return table


def figures_of(table):
    return {figure["column"]: figure for figure in table.figures.to_dict("records")}


def lines_of(table):
    return table.printed.to_dict("records")


def test_mean_over_folds_of_the_mean_over_cases():
    dice = {0: [0.9, 0.7, 0.8], 1: [0.4]}
    rows = [
        row(value, fold=fold, scan=10 * fold + i) for fold, values in dice.items() for i, value in enumerate(values)
    ]
    figure = figures_of(table_of(rows))["Left kidney"]
    assert figure["mean"] == pytest.approx((0.8 + 0.4) / 2)
    assert figure["std"] == pytest.approx(np.std([0.9, 0.7, 0.8, 0.4], ddof=1))
    assert (figure["n_cases"], figure["n_undefined"], figure["n_runs"]) == (4, 0, 2)
    assert (figure["fold"], figure["seed"]) == ("0 1", "1")
    expected = mean_interval([0.9, 0.7, 0.8, 0.4], range(4), weights=[1 / 6, 1 / 6, 1 / 6, 1 / 2])
    assert (figure["low"], figure["high"], figure["n_patients"]) == pytest.approx(expected)


def test_cases_of_a_patient_count_together():
    values = np.random.default_rng(0).random(12)
    rows = [row(value, scan=f"scan {n}", patient=n // 3) for n, value in enumerate(values)]
    figure = figures_of(table_of(rows))["Left kidney"]
    expected = mean_interval(values, np.arange(12) // 3)
    assert (figure["low"], figure["high"], figure["n_patients"]) == pytest.approx(expected, abs=1e-12)
    assert (figure["n_cases"], figure["n_patients"]) == (12, 4)


def test_seeds_count_alike_whatever_their_number_of_cases():
    rows = [row(0.2, seed=1), row(0.8, seed=2), row(1.0, seed=2, scan=2), row(0.5, seed=2, fold=1)]
    table = table_of(rows)
    assert figures_of(table)["Left kidney"]["mean"] == pytest.approx((0.2 + 0.9 + 0.5) / 3)
    (line,) = lines_of(table)
    assert (line["Folds"], line["Seeds"]) == ("2", "2")
    assert "mean over folds and seeds" in table.notes[0]
    assert "Seeds" not in table_of(rows[1:]).printed


def test_columns_follow_the_layout_and_the_mean_is_over_columns():
    dice = {"LIVER": 0.2, "SPLEEN": 0.4, "RK": 0.6, "LK": 0.8}
    rows = [row(value + 0.01 * scan, scan=scan, organ=organ) for organ, value in dice.items() for scan in (1, 2, 3)]
    table = table_of(rows)
    assert list(table.printed)[1:6] == ["Left kidney", "Right kidney", "Spleen", "Liver", "Mean"]
    figure = figures_of(table)["Mean"]
    assert figure["mean"] == pytest.approx(0.52)
    assert figure["std"] == pytest.approx(0.01)  # of the scans' means over organs: 0.51, 0.52, 0.53
    assert figure["n_cases"] == 3
    assert 0.49 < figure["low"] < 0.52 < figure["high"] < 0.55  # a patient's organs count together
    assert len(table.notes) == 1


def test_the_mean_weighs_columns_alike_however_many_cases_they_have():
    rows = [*(row(0.9, scan=scan, fold=scan // 3) for scan in range(9)), row(0.1, scan=0, organ="LIVER")]
    assert figures_of(table_of(rows))["Mean"]["mean"] == pytest.approx(0.5)


def test_names_with_the_same_heading_share_a_column():
    rows = [row(dataset="CHAOST2"), row(organ="KID_l", dataset="SABS"), row(organ="PORES", dataset="SABS")]
    table = table_of(rows)
    assert list(table.printed)[2:5] == ["Left kidney", "PORES", "Mean"]
    assert [line["Dataset"] for line in lines_of(table)] == ["CHAOST2", "SABS"]
    assert len(table.notes) == 1  # CHAOST2 is not expected to have the organs of SABS


def test_undefined_values_are_counted_and_named():
    rows = [row(0.8, scan=1), row(NAN, scan=2), row(0.6, fold=1, scan=3), row(NAN, fold=2, scan=4)]
    rows.append(row(NAN, scan=1, organ="LIVER"))
    table = table_of(rows, n_folds=3)
    figures = figures_of(table)
    assert figures["Left kidney"]["mean"] == pytest.approx(0.7)
    assert figures["Left kidney"]["n_undefined"] == 2
    assert math.isnan(figures["Liver"]["mean"])
    assert figures["Mean"]["mean"] == pytest.approx(0.7)
    assert figures["Mean"]["n_undefined"] == 3
    assert table.notes[1:] == (
        "published: no defined score of fold 2 for Left kidney.",
        "published: no defined score of fold 0, 1, 2 for Liver.",
        "published: the mean is without Liver.",
    )


def test_missing_folds_and_columns_are_named():
    rows = [row(fold=fold, scan=fold, method="a", organ=organ) for fold in (0, 2) for organ in ("LK", "RK")]
    rows += [row(fold=fold, scan=fold, method="b", setting="2") for fold in range(3)]
    notes = table_of(rows, n_folds=3).notes
    assert "a, published: no defined score of fold 1 for Left kidney, Right kidney." in notes
    assert "b, setting 2, published: the mean is without Right kidney." in notes
    assert len(notes) == 3


def test_a_single_fold_is_not_called_incomplete():
    scores = make_scores([row(n_folds=5)])
    assert len(make_tables(scores, SCANS)[0].notes) == 1
    assert len(make_tables(scores, SCANS, is_complete=True)[0].notes) == 2


def test_columns_of_the_layout_stay_apart():
    table = table_of([row(0.8), row(0.6, protocol="no ground truth"), row(0.4, setting="2")])
    assert [line["Mean"] for line in lines_of(table)] == ["80.00, n = 1", "60.00, n = 1", "40.00, n = 1"]


def test_lines_are_sorted_by_method_and_then_as_they_come():
    rows = [row(method=method, protocol=protocol) for method in ("b10", "b9", "a") for protocol in ("z", "y")]
    assert [(line["Method"], line["Protocol"]) for line in lines_of(table_of(rows))] == [
        *[("a", "z"), ("a", "y"), ("b9", "z"), ("b9", "y"), ("b10", "z"), ("b10", "y")],
    ]


def test_markdown():
    rows = [row(0.8, scan=1, method="A|B"), row(0.9, scan=2, method="A|B"), row(NAN, organ="LIVER", method="A|B")]
    lines = table_of(rows).to_markdown().splitlines()
    assert lines[0] == "| Method | Protocol | Left kidney | Liver | Mean | Folds | Cases | Undefined |"
    assert lines[1] == "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    kidney = "85.00 ± 7.07 [3.74, 99.88], n = 2"
    assert lines[2] == rf"| A\|B | published | {kidney} | – | {kidney} | 1 | 2 | 1 |"
    assert lines[3] == ""
    assert lines[4].startswith("- Dice × 100: mean over folds of the mean over cases ± sample standard deviation over")


def test_distances_are_not_multiplied():
    (table,) = make_tables(make_scores([row(4.25, metric="hd95_mm")]), SCANS)
    assert lines_of(table)[0]["Left kidney"] == "4.25, n = 1"
    assert table.notes[0].startswith("HD95 in mm (larger of the two directed 95th percentiles): mean over")


def test_the_tables_show_hd95_in_the_chosen_convention():
    scores = make_scores([row(0.5), row(4.0, metric="hd95_mm"), row(3.0, metric="hd95_pooled_mm")])
    larger, pooled = (make_tables(scores, SCANS.with_hd95(name))[1] for name in ("larger", "pooled"))
    assert lines_of(larger)[0]["Left kidney"] == "4.00, n = 1"
    assert lines_of(pooled)[0]["Left kidney"] == "3.00, n = 1"
    assert pooled.notes[0].startswith("HD95 in mm (95th percentile of both directions pooled): mean over")


def test_csv_is_unrounded_and_long():
    rows = [row(1 / 3, scan=1, setting="2"), row(0.5, scan=2, setting="2"), row(NAN, organ="RK")]
    records = list(csv.DictReader(io.StringIO(table_of(rows).to_csv())))
    assert [(record["setting"], record["column"]) for record in records] == [
        ("2", "Left kidney"),
        ("2", "Mean"),
        ("", "Right kidney"),
        ("", "Mean"),
    ]
    assert float(records[0]["mean"]) == pytest.approx((1 / 3 + 0.5) / 2, abs=1e-15)
    assert records[0]["fold"] == "0"
    assert (records[2]["mean"], records[2]["n_undefined"]) == ("", "1")


def test_further_metrics_have_a_table_where_they_were_measured():
    rows = [row(), row(NAN, metric="nsd"), row(NAN, metric="hd95_mm"), row(0.5, metric="iou")]
    assert [table.metric for table in make_tables(make_scores(rows), SCANS)] == ["dice"]
    rows += [row(3.0, metric="hd95_mm", scan=2), row(0.9, metric="nsd", scan=2)]
    assert [table.metric for table in make_tables(make_scores(rows), SCANS)] == ["dice", "hd95_mm", "nsd"]


def test_mean_and_deviation_over_runs():
    runs = [
        run(0.70, seed=0),
        run(0.76, seed=1),
        run(0.9, alpha=0.0, beta=0.0, method="Upper bound"),
        run(0.8, alpha=0.3, beta=0.5, method="GCE"),
        run(0.5, variant="dilate"),
    ]
    table = table_of(runs, RUNS)
    assert list(table.printed) == ["Method", "Variant", "clean", "0.3, 0.5", "0.7, 0.7"]
    spread = np.std([70, 76], ddof=1)
    assert [list(line.values()) for line in lines_of(table)] == [
        ["GCE", "", "–", "80.0 (1)", "–"],
        ["T-Loss", "", "–", "–", f"73.0 ± {spread:.1f} (2)"],
        ["T-Loss", "dilate", "–", "–", "50.0 (1)"],
        ["Upper bound", "", "90.0 (1)", "–", "–"],
    ]
    assert table.notes[0].startswith("ISIC2017, last10. Dice × 100: mean over seeds of the mean over cases ± sample")
    assert "| T-Loss |  | – | – | 73.0 ± 4.2 (2) |" in table.to_markdown()


def test_runs_of_several_cases_count_alike():
    runs = [run(0.2, case="a"), run(0.4, case="b"), run(0.9, case="a", seed=1), run(NAN, case="b", seed=1)]
    figure = figures_of(table_of(runs, RUNS))["0.7, 0.7"]
    assert figure["mean"] == pytest.approx((0.3 + 0.9) / 2)
    assert figure["std"] == pytest.approx(np.std([0.3, 0.9], ddof=1))
    assert (figure["n_runs"], figure["n_undefined"]) == (2, 1)


def test_columns_of_numbers_ascend():
    table = table_of([run(0.5, alpha=alpha) for alpha in (1.0, 0.0, 0.25, 0.3)], RUNS)
    assert list(table.printed)[1:] == ["clean", "0.25, 0.7", "0.3, 0.7", "1.0, 0.7"]


def test_tables_come_in_the_order_of_the_layout():
    runs = [run(0.5, weights=name, dataset=data) for data in ("B", "A") for name in ("ema", "untrained", "last10")]
    tables = make_tables(make_scores(runs), RUNS)
    found = [tuple(table.figures[["weights", "dataset"]].iloc[0]) for table in tables]
    assert found == [
        ("last10", "B"),
        ("last10", "A"),
        ("ema", "B"),
        ("ema", "A"),
        ("untrained", "B"),
        ("untrained", "A"),
    ]


def test_published_lines_follow_the_measured_ones():
    layout = replace(
        RUNS,
        published=lambda rows: {"clean": "82.5 (0.5)", "0.1, 0.1": "1"} if rows["method"].iloc[0] == "T-Loss" else {},
        published_note="Published: elsewhere.",
    )
    runs = [run(0.5, method="GCE"), run(0.5), run(0.5, alpha=0.0, method="Upper bound")]
    table = table_of(runs, layout)
    assert [(line["Method"], line["clean"]) for line in lines_of(table)] == [
        *[("GCE", "–"), ("T-Loss", "–"), ("T-Loss, published", "82.5 (0.5)"), ("Upper bound", "50.0 (1)")],
    ]
    assert table.notes[1] == "Published: elsewhere."
    other = table_of([run(0.5)], layout)  # no column that was published
    assert len(other.printed) == len(other.notes) == 1


def test_scores_of_no_family_have_a_table_per_metric():
    rows = [row(0.5, method="m", dataset="d", split="test"), row(2.5, metric="volume_ml", method="m", dataset="d")]
    tables = make_tables(make_scores(rows), GENERIC)
    assert [table.metric for table in tables] == ["dice", "volume_ml"]
    assert lines_of(tables[0])[0] == {
        **{"Method": "m", "Dataset": "d", "Split": "test", "LK": "50.00, n = 1", "Mean": "50.00, n = 1"},
        **{"Folds": "1", "Cases": "1", "Undefined": "0"},
    }
    assert lines_of(tables[1])[0]["LK"] == "2.50, n = 1"


def test_cases_of_several_domains_get_a_table_by_domain():
    rows = [run(0.1 * n, case=n, structure="disc", domain="ab"[n % 2], seed=seed) for n in range(4) for seed in (0, 1)]
    rows.append(run(0.5, metric="pooled_dice"))  # of all cases: belongs to no domain
    whole, by_domain = make_tables(make_scores(rows), RUNS)
    assert (whole.breakdown, by_domain.breakdown) == ("", "domain")
    assert figures_of(whole)["0.7, 0.7"]["mean"] == pytest.approx(0.15)
    assert {name: figure["mean"] for name, figure in figures_of(by_domain).items()} == pytest.approx(
        {"a": 0.1, "b": 0.2}
    )
    (line,) = lines_of(by_domain)
    assert (line["Alpha"], line["Beta"], line["a"]) == ("0.7", "0.7", "10.0 ± 0.0 (2)")
    assert by_domain.notes[0].startswith("ISIC2017, last10, by domain. ")
    assert len(make_tables(make_scores([each | {"domain": "a"} for each in rows]), RUNS)) == 1
