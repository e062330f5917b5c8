"""Scores, pictures and files of a domain that was not trained on."""

import builtins
import csv
import io
import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch

from dataloaders.io.nifti import read_nifti
from dataloaders.scans.normalise import Normalisation
from dataloaders.sources.frames import SliceRule
from models.evaluation import LAYOUTS, Candidate, ScoreOptions, make_evaluation
from models.evaluation.sources import SourcesEvaluation
from tests.models.hearts import ORIGINAL, Bright, open_hearts, write_hearts
from util.errors import ConfigError, DataError, FailedItemsError
from util.results.collect import write_tables
from util.results.scores import read_scores

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def hearts(tmp_path_factory):
    return write_hearts(tmp_path_factory.mktemp("hearts"), patients=4)


def score(data, out, **options):
    evaluation = make_evaluation("sources", data, CPU)
    candidate = Candidate("Bright", Bright().train(), step=7)
    result = evaluation.score([candidate], out, ScoreOptions(seed=3, config_hash="abc", **options))
    return result, read_scores(out / "scores.csv"), candidate.method


def values(scores, metric, **wanted):
    rows = scores[scores["metric"] == metric]
    for name, value in wanted.items():
        rows = rows[rows[name] == value]
    return rows["value"].tolist()


@pytest.fixture(scope="module")
def scored(hearts, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    data = open_hearts(hearts, selection="legacy", hist_match="train")
    return score(data, out), out


def test_scores_of_frames_and_patients(scored):
    (result, scores, method), _ = scored
    for number in (1, 2, 3, 4):  # so many of 8 rows too many in each structure, see `write_hearts`
        expected = 16 / (16 + number)
        for phase in ("ED", "ES"):
            found = values(scores, "dice", case=f"A{number}_{phase}", phase=phase)
            assert found == pytest.approx([expected] * 2)
        (joint,) = values(scores, "legacy_dice", case=f"PA{number}", structure="all")
        assert joint == pytest.approx((1 + expected) / 2, abs=1e-5)  # half of the slices are empty
        assert values(scores, "hd95_mm", case=f"A{number}_ED") == pytest.approx([2.0 * number] * 2)
    assert len(values(scores, "hd95_pooled_mm")) == 16
    assert values(scores, "confidence") == [1.0] * 16
    assert len(scores) == 4 * 2 * 2 * 4 + 4 * 2
    assert result.headline == pytest.approx(np.mean([16 / (16 + n) for n in (1, 2, 3, 4)]))
    assert (result.n_cases, dict(result.failed), result.failures) == (4, {}, ())
    assert method.training


def test_conditions_of_the_run(scored):
    _, scores, _ = scored[0]
    first = scores.iloc[0]
    expected = {
        "dataset": "HEARTS", "split": "held-out domain", "family": "sources", "held_out_domain": "A",
        "labelled": "50 %", "selection": "legacy", "protocol": "", "hist_match": "train", "sources": "", "seed": "3",
        "selection_seed": "", "steps": "7", "config_hash": "abc", "patient": "PA1", "domain": "A", "centre": "1",
        "grid": "original", "structure": "LV", "label": "10",
    }  # fmt: skip
    assert {name: first[name] for name in expected} == expected
    assert set(scores[scores["metric"].str.startswith("legacy")]["grid"]) == {""}


def test_label_maps_lie_on_the_original_grid_with_the_supplied_values(scored):
    _, out = scored
    assert len(list((out / "predictions").iterdir())) == 8
    found = read_nifti(out / "predictions" / "A1_ED_segmentation.nii.gz")
    assert found.array.shape == ORIGINAL.shape
    np.testing.assert_allclose(found.affine, ORIGINAL.affine)
    assert set(np.unique(found.array)) == {0, 10, 300}
    assert np.flatnonzero((found.array == 300).any((0, 1))).tolist() == list(range(10, 22))  # two columns further


def test_worst_median_and_best_patient_are_drawn(scored):
    (result, _, _), out = scored
    names = ["A4_ED.png", "A4_ES.png", "A1_ED.png", "A1_ES.png", "A2_ED.png", "A2_ES.png"]
    assert [path.name for path in result.pictures.values()] == names
    assert {path.name for path in (out / "overlays").iterdir()} == set(names)
    assert next(iter(result.pictures)) == "worst patient, A4_ED"


def test_tables_of_a_run(scored):
    (result, _, _), _ = scored
    metrics = [(table.metric, table.breakdown) for table in result.tables]
    assert metrics == [("legacy_dice", ""), ("dice", ""), ("hd95_mm", ""), ("dice", "phase"), ("dice", "structure")]
    assert list(result.tables[0].printed)[:5] == ["Method", "Dataset", "Labelled", "Selection", "Hist match"]
    assert list(result.tables[3].printed)[6:9] == ["ED", "ES", "Mean"]
    assert list(result.tables[4].printed)[6:9] == ["LV", "RV", "Mean"]


def test_without_original_labels_scores_and_files_are_on_the_prepared_grid(tmp_path):
    folder = write_hearts(tmp_path, original=False)
    _, scores, _ = score(open_hearts(folder), tmp_path / "out", surface_scores=False)
    assert set(scores[scores["metric"] == "dice"]["grid"]) == {"prepared"}
    assert values(scores, "dice", case="A1_ED") == pytest.approx([16 / 17] * 2)
    assert all(math.isnan(value) for value in values(scores, "hd95_mm"))
    found = read_nifti(tmp_path / "out/predictions/A1_ED_segmentation.nii.gz")
    assert found.array.shape == (4, 32, 32)


def test_all_scans_are_scored_on_one_grid(tmp_path):
    folder = write_hearts(tmp_path)
    (folder / "original-label_A2.nii.gz").unlink()
    _, scores, _ = score(open_hearts(folder), tmp_path / "out", surface_scores=False)
    assert set(scores[scores["metric"] == "dice"]["grid"]) == {"prepared"}
    assert read_nifti(tmp_path / "out/predictions/A1_ED_segmentation.nii.gz").array.shape == ORIGINAL.shape


@pytest.mark.parametrize("original", [True, False])
def test_generic_protocol_scores_the_annotated_slices(tmp_path, original, monkeypatch):
    everything = lambda self, case, support=None: torch.full((2, len(case.image), 32, 32), 0.6)  # noqa: E731
    monkeypatch.setattr(Bright, "probabilities", everything)
    folder = write_hearts(tmp_path, original=original)
    _, scores, _ = score(open_hearts(folder, protocol="generic"), tmp_path / "out", surface_scores=False)
    # All pixels go to the first class; two of four slices count: 2 * 2 * 56 / (2 * 32 * 32 + 2 * 56).
    n_pixels = 32 * 32 * 2
    assert values(scores, "dice", case="A1_ED", structure="LV") == pytest.approx([2 * 112 / (n_pixels + 112)], rel=0.05)
    assert values(scores, "dice", case="A1_ED", structure="RV") == [0]
    assert set(scores["protocol"]) == {"generic"}
    assert set(scores["selection_seed"]) == {"0"}


def test_a_scan_that_cannot_be_read_is_named_and_the_others_are_scored(tmp_path):
    folder = write_hearts(tmp_path)
    (folder / "image_A1.nii.gz").write_bytes(b"damaged")
    result, scores, _ = score(open_hearts(folder), tmp_path / "out")
    assert list(result.failed) == ["A1"]
    assert "image_A1.nii.gz" in result.failed["A1"]
    assert result.n_cases == 2
    assert set(scores["patient"]) == {"PA2"}
    assert set(scores["n_failed"]) == {"1"}
    (folder / "image_A2.nii.gz").unlink()
    (folder / "image_A2.nii.gz").write_bytes(b"damaged")
    with pytest.raises(FailedItemsError, match=r"(?s)none of the 2 cases.*image_A1.*image_A2"):
        score(open_hearts(folder), tmp_path / "out")


def test_slices_of_another_size_are_named(tmp_path):
    folder = write_hearts(tmp_path)
    with pytest.raises(FailedItemsError, match=r"image_A1\.nii\.gz: slices of \(32, 32\) px.*expected 48"):
        score(open_hearts(folder, size_px=48), tmp_path / "out")


def test_a_file_that_cannot_be_written_costs_no_score(tmp_path):
    folder = write_hearts(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "predictions").write_text("no folder")
    result, scores, _ = score(open_hearts(folder), tmp_path / "out")
    assert len(result.failures) == 4
    assert len(values(scores, "dice")) == 8


def test_without_tested_domain_there_is_nothing_to_score(hearts, tmp_path):
    with pytest.raises(DataError, match=r"no domain is tested; set test_domains to some of A, B, C, D"):
        score(open_hearts(hearts, test_domains=()), tmp_path)


@pytest.mark.parametrize("hist_match", ["none", "train+test"])
def test_curve_is_of_development_scans_and_opens_no_tested_one(hearts, monkeypatch, hist_match):
    data = open_hearts(hearts, labelled_fraction=1.0, development_patients=1, hist_match=hist_match)
    opened: list[str] = []
    original = io.open

    def spy(path, *arguments, **named):
        opened.append(str(path))
        return original(path, *arguments, **named)

    for module in (io, builtins):
        monkeypatch.setattr(module, "open", spy)
    curve = SourcesEvaluation(data, CPU).curve(Bright(), Normalisation())
    assert any("image_B4" in name for name in opened)
    assert not any(f"_A{number}" in name for name in opened for number in (1, 2, 3, 4))
    if hist_match == "none":
        assert curve == pytest.approx(dict.fromkeys(("val/dice", "val/dice/lv", "val/dice/rv"), 16 / 20))
    assert SourcesEvaluation(open_hearts(hearts), CPU).curve(Bright(), Normalisation()) == {}


def test_further_conditions(tmp_path):
    folder = write_hearts(tmp_path)
    data = open_hearts(folder, train_domains=("B", "C"), selection="random", selection_seed=5)
    result, scores, _ = score(data, tmp_path / "out", surface_scores=False, save_predictions=False, pictures=False)
    assert result.pictures == {}
    first = scores.iloc[0]
    assert [first[name] for name in ("sources", "selection", "selection_seed")] == ["B+C", "random", "5"]
    assert not (tmp_path / "out" / "predictions").exists()
    with (tmp_path / "out" / "scores.csv").open() as stream:
        assert "held_out_domain" in next(csv.reader(stream))


def run(root, folder, seed, **settings):
    """The validation of a run in a folder of experiments; in a domain all patients have a Dice of their own."""
    data = open_hearts(folder, **settings)
    out = root / f"seed {seed}, {data.config.summary('')}" / "validation" / "1"
    shift = Bright(offset=seed if "B" in settings["test_domains"] else 0)
    candidate, options = Candidate("Bright", shift, step=7), ScoreOptions(seed=seed, config_hash="abc")
    make_evaluation("sources", data, CPU).score([candidate], out, options)


def test_runs_over_domains_and_seeds_make_one_table(hearts, tmp_path):
    for seed, domain in itertools.product((0, 1), "AB"):
        run(tmp_path, hearts, seed, test_domains=(domain,))
    collected = write_tables(tmp_path, LAYOUTS)
    text, failures = collected.to_markdown(), collected.left_out
    assert failures == []
    legacy = pd.read_csv(tmp_path / "table_sources_legacy_dice.csv").set_index("column")
    by_number = np.array([(1 + 16 / (16 + n)) / 2 for n in (1, 2, 3, 4)])
    assert list(legacy.index) == ["A", "B", "Mean"]
    assert legacy["mean"]["A"] == pytest.approx(by_number.mean(), abs=1e-5)
    assert legacy["std"]["A"] == pytest.approx(by_number.std(ddof=1), abs=1e-5)
    assert legacy["mean"]["B"] < legacy["mean"]["A"]  # the second seed misses a column there
    assert legacy["mean"]["Mean"] == pytest.approx((legacy["mean"]["A"] + legacy["mean"]["B"]) / 2)
    assert legacy["n_patients"].tolist() == [4, 4, 8]
    assert legacy["n_runs"].tolist() == [2, 2, 2]
    header, _, line, *_ = text.splitlines()
    assert [cell.strip() for cell in header.split("|")[1:-1]] == [
        *("Method", "Dataset", "Labelled", "A", "B", "Mean", "Cases", "Undefined", "Seeds"),
    ]
    assert line.startswith("| Bright | HEARTS | 50 % | ")
    assert line.endswith("| 8 | 0 | 2 |")
    dice = pd.read_csv(tmp_path / "table_sources_dice.csv").set_index("column")
    assert dice["mean"]["A"] == pytest.approx(np.mean([16 / (16 + n) for n in (1, 2, 3, 4)]))
    assert dice["n_cases"].tolist() == [8, 8, 16]  # patients and phases


def test_tables_by_phase_and_structure(hearts, tmp_path):
    for domain in "AB":
        run(tmp_path, hearts, 0, test_domains=(domain,))
    write_tables(tmp_path, LAYOUTS)
    names = {path.name for path in tmp_path.glob("table_sources_*.csv")}
    assert {name for name in names if "_by_" in name} == {
        "table_sources_dice_by_phase.csv", "table_sources_dice_by_structure.csv",
    }  # fmt: skip
    for by, headings in (("phase", ["ED", "ES"]), ("structure", ["LV", "RV"])):
        figures = pd.read_csv(tmp_path / f"table_sources_dice_by_{by}.csv")
        assert figures["held_out_domain"].tolist() == ["A"] * 3 + ["B"] * 3
        assert figures["column"].tolist() == [*headings, "Mean"] * 2
        assert figures["mean"].tolist() == pytest.approx([np.mean([16 / (16 + n) for n in (1, 2, 3, 4)])] * 6)


def test_two_domains_tested_together_are_a_column_of_their_own(hearts, tmp_path):
    run(tmp_path, hearts, 0, test_domains=("A", "B"))
    run(tmp_path, hearts, 0, test_domains=("A",))
    write_tables(tmp_path, LAYOUTS)
    assert pd.read_csv(tmp_path / "table_sources_dice.csv")["column"].tolist() == ["A", "A+B", "Mean"]
    by = pd.read_csv(tmp_path / "table_sources_dice_by_domain.csv")
    assert sorted(by[["held_out_domain", "column"]].to_numpy().tolist()) == [
        ["A", "A"], ["A", "Mean"], ["A+B", "A"], ["A+B", "B"], ["A+B", "Mean"],
    ]  # fmt: skip


def test_a_further_set_is_normalised_as_in_training(hearts, tmp_path):
    data = open_hearts(hearts, test_domains=("all",), hist_match="train+test")
    rule = SliceRule((0.0, 100.0), 32)
    evaluation = SourcesEvaluation(data, CPU)
    result = evaluation.score(
        [Candidate("Bright", Bright(), slices=rule)], tmp_path, ScoreOptions(surface_scores=False)
    )
    assert result.headline == pytest.approx(np.mean([16 / (16 + n) for n in (1, 2, 3, 4)]))
    with pytest.raises(ConfigError, match=r"hist_match=train\+test: HEARTS has no source .* Train it first"):
        evaluation.score([Candidate("Bright", Bright())], tmp_path, ScoreOptions())
