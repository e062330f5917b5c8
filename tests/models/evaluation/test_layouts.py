"""The tables of each family, as the papers print them."""

import pytest
import torch

from models.evaluation import EVALUATIONS, LAYOUTS, make_evaluation
from util.errors import ConfigError, DataError
from util.results.collect import collect
from util.results.scores import make_scores, write_scores
from util.results.tables import make_tables


def run(value=0.75, alpha=0.7, beta=0.7, **more):
    """A run of T-Loss on ISIC2017, scored on as many test images as in the paper."""
    shared = {"method": "T-Loss", "dataset": "ISIC2017", "structure": "lesion", "task": "lesion", "metric": "dice"}
    conditions = {"weights": "last10", "alpha": alpha, "beta": beta, "noise_options": "", "seed": 0, "n_cases": 600}
    return shared | conditions | {"value": value} | more


def tables_of(family, *records):
    return make_tables(make_scores(records), LAYOUTS[family])


def noise_lines(*records):
    (table,) = tables_of("dense", *records)
    return table.printed.to_dict("records"), table.notes


def test_organs_have_the_papers_columns_in_both_data_sets():
    shared = {"method": "SSL-ALPNet", "setting": 1, "protocol": "blind", "fold": 0, "case": 1, "metric": "dice"}
    names = {"CHAOST2": ("LIVER", "RK", "LK", "SPLEEN"), "SABS": ("SPLEEN", "KID_r", "KID_l", "LIVER", "STOMACH")}
    records = [
        shared | {"dataset": dataset, "structure": name, "value": 0.5} for dataset in names for name in names[dataset]
    ]
    (table,) = tables_of("fewshot", *records)
    assert list(table.printed) == [
        *("Method", "Dataset", "Setting", "Protocol"),
        *("Left kidney", "Right kidney", "Spleen", "Liver", "STOMACH", "Mean", "Folds", "Cases", "Undefined"),
    ]
    assert "| SSL-ALPNet | CHAOST2 | 1 | blind | 50.00" in table.to_markdown()


def test_methods_against_noise_with_the_published_figures():
    lines, notes = noise_lines(
        run(0.70),
        run(0.76, seed=1),
        run(0.9, 0.0, 0.0, method="Upper bound"),
        run(0.8, 0.3, 0.5, method="GCE"),
    )
    assert lines == [
        {"Method": "GCE", "clean": "–", "0.3, 0.5": "80.0 (1)", "0.7, 0.7": "–"},
        {"Method": "GCE, published", "clean": "82.8 (0.6)", "0.3, 0.5": "80.5 (0.9)", "0.7, 0.7": "69.1 (2.2)"},
        {"Method": "T-Loss", "clean": "–", "0.3, 0.5": "–", "0.7, 0.7": "73.0 ± 4.2 (2)"},
        {"Method": "T-Loss, published", "clean": "82.5 (0.5)", "0.3, 0.5": "80.9 (0.6)", "0.7, 0.7": "76.1 (0.6)"},
        {"Method": "Upper bound", "clean": "90.0 (1)", "0.3, 0.5": "–", "0.7, 0.7": "–"},
    ]
    assert notes[0].startswith("lesion of ISIC2017, mean of the last ten evaluations. Dice × 100: mean over seeds")
    assert notes[1] == "Published: Dice × 100 (standard deviation over 3 seeds)."


def test_weights_data_sets_and_structures_have_tables_of_their_own():
    jsrt = {"dataset": "JSRT", "n_cases": 50}
    tables = tables_of(
        "dense",
        run(weights="ema"),
        run(weights="untrained", method="T-Loss untrained"),
        run(),
        *(run(structure=name, task=name, **jsrt) for name in ("heart", "lung")),
    )
    assert [table.notes[0].partition(". ")[0] for table in tables] == [
        "lesion of ISIC2017, mean of the last ten evaluations",
        "heart of JSRT, mean of the last ten evaluations",
        "lung of JSRT, mean of the last ten evaluations",
        "lesion of ISIC2017, averaged weights",
        "lesion of ISIC2017, untrained",
    ]
    assert [any("Published" in note for note in table.notes) for table in tables] == [True, False, False, True, False]


def test_noise_of_another_kind_has_lines_of_its_own():
    lines, _ = noise_lines(run(), run(0.5, noise_options="dilate+erode_per_image_seed3"))
    assert [tuple(line.values()) for line in lines] == [
        ("T-Loss", "", "75.0 (1)"),
        ("T-Loss, published", "", "76.1 (0.6)"),
        ("T-Loss", "dilate+erode_per_image_seed3", "50.0 (1)"),
    ]


def domain_rows(domain, n_patients, **more):
    """A run of CACPS on M&Ms; all patients have the same Dice."""
    shared = {"method": "CACPS", "dataset": "MMS", "labelled": "2 %", "selection": "legacy", "structure": "all"}
    shared |= {"metric": "legacy_dice", "held_out_domain": domain, "seed": 0, "value": 0.8}
    return [shared | {"case": f"{domain}{n}", "patient": f"{domain}{n}"} | more for n in range(n_patients)]


def domain_lines(*runs):
    table, *_ = tables_of("sources", *(row for rows in runs for row in rows))
    return table.printed.to_dict("records"), table.notes


def test_domains_with_the_published_figures_of_those_that_were_tested_whole():
    whole = {"D": 50, "C": 50, "B": 125, "A": 95}
    lines, notes = domain_lines(*(domain_rows(*each) for each in whole.items()))
    assert list(lines[0])[:9] == ["Method", "Dataset", "Labelled", "Selection", "A", "B", "C", "D", "Mean"]
    assert lines[1]["Method"] == "CACPS, published"
    figures = ["82.35 ± 6.24", "82.84 ± 7.59", "86.31 ± 5.47", "86.58 ± 4.78", "84.52 ± 1.94"]
    assert [lines[1][name] for name in ("A", "B", "C", "D", "Mean")] == figures
    assert notes[1].startswith("Published: Dice × 100 ± standard deviation over patients")
    lines, _ = domain_lines(domain_rows("A", 95), domain_rows("B", 12))
    assert [lines[1][name] for name in ("A", "B", "Mean")] == ["82.35 ± 6.24", "–", "–"]


@pytest.mark.parametrize(
    "more",
    [
        {"selection": ""},
        {"labelled": "10 %"},
        {"protocol": "generic"},
        {"sources": "B+C"},
        {"metric": "dice"},
        {"dataset": "HEARTS"},
        {"method": "CPS"},
    ],
)
def test_published_figures_of_domains_are_shown_only_where_they_can_be_compared(more):
    lines, notes = domain_lines(domain_rows("A", 95, **more))
    assert len(lines) == len(notes) == 1


@pytest.mark.parametrize(
    "records",
    [
        [run(alpha=0.9, beta=0.5)],  # no column of the paper
        [run(n_cases=50)],  # not its test images
        [run(), run(n_cases=599, seed=1)],
        [run(noise_options="dilate")],
    ],
)
def test_published_figures_are_shown_only_where_they_can_be_compared(records):
    lines, notes = noise_lines(*records)
    assert len(lines) == len(notes) == 1


def task_row(structure, value=0.5, **more):
    """A network of one task, scored on a set that is annotated for three."""
    shared = {"method": "Expert", "dataset": "IDRID", "case": "1", "metric": "dice", "seed": 0, "split": "test"}
    shared |= {"weights": "last", "steps": 100, "family": "partial", "learned": "one task"}
    return shared | {"structure": structure, "value": value, "config_hash": f"hash of {structure}"} | more


def collected(tmp_path, *runs):
    """The tables of several runs."""
    for number, rows in enumerate(runs):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_scores(folder / "scores.csv", make_scores(rows))
    gathered, failures = collect([tmp_path], LAYOUTS)
    assert not failures
    return make_tables(gathered["partial"], LAYOUTS["partial"])


def test_networks_of_a_task_each_share_a_line(tmp_path):
    whole = {"method": "All", "learned": "lesion+disc_cup", "config_hash": "whole"}
    (table,) = collected(
        tmp_path,
        [task_row("EX", 0.4), task_row("EX", 0.6, case="2"), task_row("MA", 0.3, config_hash="hash of EX")],
        [task_row("disc", 0.9)],
        [task_row(name, 0.8, **whole) for name in ("EX", "MA", "disc")],
    )
    lines = {line["Method"]: line for line in table.printed.to_dict("records")}
    assert list(lines) == ["All", "Expert"]
    assert lines["Expert"]["EX"].startswith("50.00 ±")
    assert lines["Expert"]["disc"] == "90.00, n = 1"
    assert lines["Expert"]["Mean"].startswith("56.67 ±")  # all three structures count alike
    assert lines["All"]["Mean"] == "80.00, n = 1"


@pytest.mark.parametrize(
    ("more", "found"),
    [
        ({"config_hash": "other", "seed": 1}, "structure EX, but with config_hash"),
        ({"structure": "disc", "steps": 50}, "with steps 100 and 50"),
        ({"structure": "disc", "weights": "ema"}, "with weights last and ema"),
        ({"structure": "disc", "learned": "disc_cup+vessel"}, r"with learned one task and disc_cup\+vessel"),
    ],
)
def test_networks_that_differ_in_more_do_not_share_a_line(tmp_path, more, found):
    with pytest.raises(DataError, match=found):
        collected(tmp_path, [task_row("EX")], [task_row(**({"structure": "EX"} | more))])


def test_noise_without_numbers_is_named():
    with pytest.raises(DataError, match=r"noise \('some', '0\.7'\): expected numbers for alpha and beta"):
        noise_lines(run() | {"alpha": "some"})


def test_a_family_without_evaluation_is_named():
    with pytest.raises(ConfigError, match=r"family 'volumes': no evaluation found; expected one of fewshot, dense"):
        make_evaluation("volumes", None, torch.device("cpu"))


def test_every_family_says_how_its_tables_are_made():
    assert LAYOUTS.keys() == EVALUATIONS.keys()
    for layout in LAYOUTS.values():
        assert {"method", "dataset"} <= {*layout.tables, *layout.lines}
        assert {"config_hash", "steps", "split"} <= {*layout.constant}
