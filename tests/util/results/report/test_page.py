import hashlib
import json
import math
import re
import shutil

import pandas as pd
import pytest

from tests.util.results.report.conftest import DICE, EVIL, STRUCTURES, scores_of
from util.errors import DataError
from util.results.report import Record, save_report
from util.results.report.__main__ import main
from util.results.report.images import niivue
from util.results.report.record import PrintedTable
from util.results.report.runs import find_run, read_run
from util.results.scores import FILE_NAME, read_scores, write_scores

ESCAPED = "&lt;/script&gt;&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;&#39;&amp;"


@pytest.fixture(scope="module")
def run_folder(write_run, tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("run"), failed={"7": "image_7.nii.gz: cut short"})


@pytest.fixture(scope="module")
def page(run_folder):
    return save_report(run_folder).read_text(encoding="utf-8")


def text_of(page):
    """What a reader sees, spaces joined."""
    body = re.sub(r"<(style|script|title)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(re.sub("<[^>]+>", " ", body).split())


def test_the_head_tells_what_was_run_the_score_and_what_is_wrong(page):
    text = text_of(page)
    assert f"Mine on {ESCAPED}, weights last: 5 of 6 cases scored, 26 November 2026." in text
    assert re.search(r"68\.38 95 % confidence interval \d+\.\d+ to \d+\.\d+ mean Dice × 100, 4 patients", text)
    assert "1 of 6 cases could not be scored; the means are of the others." in text
    assert "7 : image_7.nii.gz: cut short" in text


def test_worst_median_and_best_case_and_far_off_pieces_are_marked(page):
    rows = dict(re.findall(r'<th scope="row">(.*?)<(?:/th>| ?span class="mark (\w+))', page))
    marks = {case.strip(): mark for case, mark in rows.items()}
    assert marks == {"1": "", "2": "worst", "3": "far", "10": "best", ESCAPED: "median"}
    assert "LIVER: HD95 120 mm at Dice 70.0" in page
    assert "Dice of 50 or more although HD95 is 50 mm or more" in page


def test_the_confidence_of_every_mask_is_shown_beside_its_dice(page):
    figure = page[page.index('<figure class="strip scatter">') :]
    labels = re.findall(r'class="case" tabindex="-?\d" aria-label="(.*?)"', figure[: figure.index("</figure>")])
    assert labels[0] == f"2, RK {ESCAPED}: confidence 63.3, Dice 40.0"
    assert len(labels) == 9  # one Dice is undefined
    assert "9 masks; Spearman&#39;s correlation of confidence and Dice 1.00." in figure
    assert "1 more have no confidence" in figure
    anchor = re.search(r'href="#(case-\d+)" class="case" tabindex="0"', figure)
    assert anchor
    assert f'<tr id="{anchor[1]}"' in page


def test_without_confidences_there_is_no_plot_of_them(tmp_path, write_run):
    folder = write_run(tmp_path / "run")
    scores = read_scores(folder / FILE_NAME)
    write_scores(folder / FILE_NAME, scores[scores["metric"] != "confidence"])
    assert "Does the confidence tell" not in save_report(folder).read_text(encoding="utf-8")


def test_settings_that_were_changed_come_first_and_the_rest_is_folded(page):
    changed, rest = page[page.index("differ from the defaults") :].split("<details>", 1)
    assert "<dt>optim.lr</dt><dd>0.01</dd>" in changed
    assert "<dt>seed</dt><dd>1234</dd>" in rest
    assert "seed" not in changed
    assert '<button type="button" class="copy" data-copies="command">' in page


def test_names_are_no_markup(page):
    assert page.count(ESCAPED) > 10
    assert "<script>alert" not in page
    assert len(re.findall("<script", page)) == len(re.findall("</script", page)) == 3  # views, NiiVue, the page's own
    (views,) = re.findall(r'id="views">(.*?)</script>', page)
    assert json.loads(views)[0]["names"] == {"1": "LIVER", "2": STRUCTURES[1]}
    assert [view["label"] for view in json.loads(views)] == ["worst case, 2", f"median case, {EVIL}", "best case, 10"]


def test_no_patient_is_named_and_nothing_is_loaded(page):
    assert "SECRET" not in page
    assert set(re.findall(r'(?:src|href)="([a-z]+:|#)', page)) == {"data:", "#"}
    assert "data:image/png" not in page
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    assert policy.startswith("default-src &#39;none&#39;; script-src &#39;sha256-")
    assert "unsafe" not in policy


def test_a_page_without_niivue_shows_slices_alone(run_folder, tmp_path, monkeypatch):
    monkeypatch.setattr("util.results.report.images.NIIVUE", tmp_path / "gone")
    text = save_report(run_folder, tmp_path / "page.html").read_text(encoding="utf-8")
    assert "niivue-bundle" not in text.partition("</main>")[2].partition("<script>")[0]
    assert 'id="views"' in text
    assert "connect-src" not in text


def test_niivue_is_the_released_file():
    bundle = niivue()
    assert bundle is not None
    digest = hashlib.sha256(bundle.script).hexdigest()
    assert digest == "47b896b77ec4a5be3ef1949c33ad393b6f45629921f326c279000bcf51bdb4af"


def test_a_run_of_scores_alone_has_a_page_that_says_what_is_missing(run_folder, tmp_path):
    shutil.copy(run_folder / "scores.csv", tmp_path)
    text = text_of(save_report(tmp_path).read_text(encoding="utf-8"))
    assert "Mine on CHAOST2, weights last: 5 of 5 cases scored." in text
    assert "No report.json" in text
    assert "run.json, config.json missing" in text
    for heading in ("Slices", "Training", "Reproduce", "Pictures"):
        assert heading not in text


def test_a_missing_picture_or_a_damaged_view_is_a_warning(run_folder, tmp_path):
    folder = shutil.copytree(run_folder, tmp_path / "run")
    (folder / "curves.png").unlink()
    (folder / "views" / "1.npz").write_bytes(b"no view")
    text = text_of(save_report(folder).read_text(encoding="utf-8"))
    assert "curves.png: cannot be read (No such file or directory)" in text
    assert "1.npz: not a view of a case" in text


def test_runs_are_found_by_their_folder_experiment_or_scores(run_folder, tmp_path):
    for number in (2, 10):
        shutil.copytree(run_folder, tmp_path / f"experiment/validation/{number}")
    newest = tmp_path / "experiment/validation/10"
    for path in (newest, newest / "scores.csv", tmp_path / "experiment"):
        assert find_run(path) == newest
    assert read_run(newest).name == "experiment/10"
    (tmp_path / "empty").mkdir()
    for path, reason in (
        (tmp_path / "gone", "no such file or folder"),
        (tmp_path / "empty", r"neither scores\.csv nor validation/\*/scores\.csv in it"),
        (newest / "curves.png", "not a file of scores"),
    ):
        with pytest.raises(DataError, match=f"{path.name}: {reason}; expected a run's folder"):
            find_run(path)


def test_the_command_line_writes_pages_and_names_what_is_no_run(run_folder, tmp_path, monkeypatch):
    def report(*arguments):
        monkeypatch.setattr("sys.argv", ["report", *map(str, arguments)])
        main()

    report(run_folder, "--out", tmp_path / "one.html")
    report(run_folder, run_folder, "--out", tmp_path / "two.html")
    assert "Comparison of 2 runs" in (tmp_path / "two.html").read_text()
    assert "Comparison" not in (tmp_path / "one.html").read_text()
    with pytest.raises(DataError, match="no such file or folder"):
        report(tmp_path / "gone")


def test_the_mean_is_that_of_the_table(page):
    defined = [value for values in DICE.values() for value in values if not math.isnan(value)]
    liver, kidney = (
        [values[place] for values in DICE.values() if not math.isnan(values[place])] for place in (0, 1)
    )  # fmt: skip
    assert len(defined) == 9
    assert f"{50 * (sum(liver) / len(liver) + sum(kidney) / len(kidney)):.2f}" in text_of(page)


def test_without_a_record_scores_of_different_conditions_are_not_averaged(tmp_path):
    both = [scores_of({"1": (value, value)}, protocol=name) for name, value in (("reference", 0.8), ("blind", 0.2))]
    write_scores(tmp_path / "scores.csv", pd.concat(both, ignore_index=True))
    text = text_of(save_report(tmp_path).read_text(encoding="utf-8"))
    assert "80.00 mean Dice × 100, reference, 1 patient" in text
    assert "50.00" not in text


def test_a_training_has_a_page_of_its_own(tmp_path):
    Record(title="Training of Mine", finished="2026-11-26T10:00:00+00:00", settings={"seed": 3}).save(tmp_path)
    text = text_of(save_report(find_run(tmp_path)).read_text(encoding="utf-8"))
    assert "Training of Mine, 26 November 2026." in text
    assert "Cases" not in text


@pytest.mark.parametrize("n_further", [3, 4])
def test_many_tables_of_further_scores_are_folded(tmp_path, n_further):
    titles = ["Dice × 100", *(f"Score {n}" for n in range(n_further)), "Dice × 100"]
    cells = [["Mine", "0.00 ± 0.00, n = 2", "1.50 ± 0.20 [1.00, 2.00], n = 3"]]
    tables = [PrintedTable(["Method", "LIVER", "Mean"], cells, 1, ["a note"], title) for title in titles]
    Record(title="Mine", tables=tables).save(tmp_path)
    page = save_report(find_run(tmp_path)).read_text(encoding="utf-8")
    before, summary, folded = page.partition(f"<summary>{n_further} tables of further scores</summary>")
    assert bool(summary) == (n_further > 3)
    shown = [text.count("<caption>Score") for text in (before, folded)]
    assert shown == ([0, n_further] if summary else [n_further, 0])
    assert before.count("<caption>Dice") == 2
    assert before.count(">0.00 ± 0.00<small>n\u00a0=\u00a02</small>") == len(tables) - shown[1]
    assert ">1.50 ± 0.20<small>[1.00, 2.00], n\u00a0=\u00a03</small>" in before
