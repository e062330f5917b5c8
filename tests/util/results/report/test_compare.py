import json
import re

import numpy as np
import pandas as pd
import pytest

from tests.util.results.report.conftest import DICE, STRUCTURES, scores_of
from util.errors import DataError
from util.results.intervals import mean_interval
from util.results.report.__main__ import main
from util.results.report.compare import default_place, save_comparison
from util.results.scores import FILE_NAME, write_scores

OTHER = {"1": (0.95, 0.8), "2": (0.6, 0.3), "3": (0.6, 0.9), "77": (0.5, 0.5)}


def cells(page, caption):
    """Rows of the table with a caption."""
    table = next(part for part in re.findall("<table.*?</table>", page, re.DOTALL) if caption in part)
    rows = re.findall("<tr.*?</tr>", table.partition("<tbody>")[2], re.DOTALL)
    return [[re.sub("<[^>]+>", "", cell) for cell in re.findall("<t[hd].*?</t[hd]>", row, re.DOTALL)] for row in rows]


def test_runs_are_compared_on_the_cases_they_share(write_run, tmp_path):
    runs = [write_run(tmp_path / "a", title="First"), write_run(tmp_path / "b", OTHER, title="Second")]
    page = save_comparison(runs, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Compared on the 3 cases that all runs share (a: 5 cases; b: 4 cases)." in page
    liver, _, mean = cells(page, "B minus A, paired by case")
    change = np.array([5.0, 10.0, -10.0])
    low, high, _ = mean_interval(change, ["1", "2", "3"], highest=None)
    assert liver == ["LIVER", "3", "+5.0", "+1.7", f"{low:+.1f} to {high:+.1f}", "2", "1"]
    assert mean[:4] == ["Mean", "3", "+2.5", "+4.2"]  # 2.5, 0, 10
    assert mean[5:] == ["2", "0"]
    shared = cells(page, "of every shared case")
    assert [row[0] for row in shared] == ["1", "2", "3"]
    assert shared[0][1:3] == ["90.0", "95.0"]
    assert "SECRET" not in page
    assert "<script>alert" not in page


def test_a_comparison_as_json_has_the_figures_of_the_page(write_run, tmp_path, capsys):
    runs = [str(write_run(tmp_path / "a", title="First")), str(write_run(tmp_path / "b", OTHER, title="Second"))]
    main([*runs, "--out", str(tmp_path / "page.html"), "--json"])
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["page"] == str(tmp_path / "page.html")
    assert found["runs"] == [{"name": name, "folder": run} for name, run in zip("AB", runs, strict=True)]
    assert found["warnings"][0] == "Compared on the 3 cases that all runs share (a: 5 cases; b: 4 cases)."
    (scores,) = found["sets"]
    assert (scores["cases"], scores["higher_is_better"]) == (["1", "2", "3"], True)
    first, second = scores["runs"]
    assert first["differences"] == []
    liver, _, mean = second["differences"]
    assert (liver["structure"], liver["n"], liver["better"], liver["worse"]) == ("LIVER", 3, 2, 1)
    assert (liver["median"], liver["mean"]) == pytest.approx((5.0, 5 / 3))
    assert mean["median"] == pytest.approx(2.5)
    assert second["means"]["LIVER"] - first["means"]["LIVER"] == pytest.approx(5 / 3)


def test_the_page_of_a_run_as_json(write_run, tmp_path, capsys):
    run = write_run(tmp_path / "a", {"1": (0.9, 0.8), "2": (0.5, float("nan"))}, title="First")
    main([str(run), "--json"])
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (found["page"], found["run"], found["title"]) == (str(run / "report.html"), str(run), "First")
    (scores,) = found["scores"]
    assert scores["metric"] == "Dice × 100"
    assert list(scores["means"].values()) == pytest.approx([70.0, 80.0])


def test_every_set_of_scores_that_all_runs_have_is_compared(write_run, tmp_path):
    protocols = {
        "a": {"reference": DICE, "blind": DICE, "other": {"8": (0.1, 0.2)}},
        "b": {"reference": DICE, "told": DICE, "blind": OTHER, "other": {"9": (0.1, 0.2)}},
    }
    for name, sets in protocols.items():
        scores = pd.concat([scores_of(dice, protocol=protocol) for protocol, dice in sets.items()], ignore_index=True)
        write_scores(write_run(tmp_path / name) / FILE_NAME, scores)
    runs = [tmp_path / name for name in protocols]
    page = save_comparison(runs, tmp_path / "page.html").read_text(encoding="utf-8")
    assert cells(page, "B minus A, paired by case, reference")[0][:4] == ["LIVER", "5", "+0.0", "+0.0"]
    assert cells(page, "B minus A, paired by case, blind")[0][:4] == ["LIVER", "3", "+5.0", "+1.7"]
    assert cells(page, "of every shared case, blind")[0][:3] == ["1", "90.0", "95.0"]
    assert "blind: compared on the 3 cases that all runs share (a: 5 cases; b: 4 cases)." in page
    assert "a: not compared, as not all runs have such scores of the same cases: other." in page
    assert "b: not compared, as not all runs have such scores of the same cases: told; other." in page
    ids = re.findall('id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert len(set(re.findall('href="#(case-[^"]+)"', page)) & set(ids)) == 5 + 3


def test_first_sets_that_differ_are_both_named(write_run, tmp_path):
    orders = {"a": ("last", "ema"), "b": ("ema", "last")}
    for name, order in orders.items():
        scores = pd.concat([scores_of(DICE, weights=weights) for weights in order], ignore_index=True)
        write_scores(write_run(tmp_path / name) / FILE_NAME, scores)
    page = save_comparison([tmp_path / name for name in orders], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "Dice × 100, last and ema, on 5 shared cases" in page


def test_a_structure_without_a_shared_defined_case_has_no_difference(write_run, tmp_path):
    runs = [write_run(tmp_path / name, {"10": DICE["10"]}) for name in "ab"]
    page = save_comparison(runs, tmp_path / "page.html").read_text(encoding="utf-8")
    assert cells(page, "B minus A")[1][1:] == ["0", "–", "–", "–", "0", "0"]
    assert cells(page, "B minus A")[0][1:] == ["1", "+0.0", "+0.0", "–", "0", "0"]  # equal


@pytest.mark.parametrize(
    ("second", "reason"),
    [
        ({"dice": {"8": (0.1, 0.2)}}, r"no case is in all runs \(a: 5 cases; b: 1 cases\)"),
        ({"dataset": "SABS"}, "runs of different data sets .a: CHAOST2; b: SABS."),
        ({"protocol": "blind"}, "runs of different protocols"),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(write_run, tmp_path, second, reason):
    runs = [write_run(tmp_path / "a"), write_run(tmp_path / "b", **second)]
    with pytest.raises(DataError, match=reason):
        save_comparison(runs, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_the_page_is_written_where_the_runs_are(write_run, tmp_path):
    runs = [write_run(tmp_path / f"exps/{name}/validation/1") for name in "ab"]
    assert default_place(runs) == (tmp_path / "exps/comparison.html").resolve()
    assert len(STRUCTURES) == 2
