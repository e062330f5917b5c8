"""What confidence is worth, of scores made up for it."""

import numpy as np
import pytest

from benchmarks import confidence
from util.errors import ConfigError
from util.results.scores import make_scores, write_scores

CONDITIONS = {"family": "dense", "dataset": "ISIC2017", "split": "test", "structure": "lesion", "steps": "1"}
N_CASES = 20


def scores(method, seed, limit, weights="last"):
    """Masks whose confidences are spread evenly; those below `limit` are poor, the others good."""
    records = []
    for case, value in enumerate(np.linspace(0.025, 0.975, N_CASES)):
        one = CONDITIONS | {"method": method, "seed": seed, "weights": weights, "case": f"c{case}"}
        records += [
            one | {"metric": "dice", "value": 0.3 + value / 10 if value < limit else 0.8 + value / 10},
            one | {"metric": "confidence", "value": value},
        ]
    return records


def write_runs(folder, runs):
    for number, records in enumerate(runs):
        write_scores(folder / f"run{number}" / "validation" / "1" / "scores.csv", make_scores(records))


def printed(capsys, *words):
    confidence.main([str(word) for word in words])
    text = capsys.readouterr().out
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()[2:]]


def test_a_limit_is_chosen_on_other_seeds_alone(tmp_path, capsys):
    """Poor masks end at 0.5 with one seed and at 0.3 with the other: each limit is wrong by four masks on the other."""
    write_runs(tmp_path, [scores("CPS", "0", 0.5), scores("CPS", "1", 0.3)])
    [row] = printed(capsys, tmp_path)
    del row[3]  # the correlation, see tests of measure_worth
    assert row == ["CPS", "40", "40 %", "0.30 to 0.50", "12 of 16 (75 %)", "4 of 24 (17 %)", "75 %"]


def test_methods_have_lines_of_their_own_and_one_kind_of_weights_counts(tmp_path, capsys):
    first, second = (scores("CPS", seed, 0.5) + scores("CPS", seed, 0.9, "ema") for seed in "01")
    write_runs(tmp_path, [first, second, scores("CACPS", "0", 0.0), scores("CACPS", "1", 0.0)])
    good, usual = printed(capsys, tmp_path)
    assert good[:3] == ["CACPS", "40", "0 %"]
    assert good[4:] == ["none: fewer than 10 masks, or all are good, or all poor", "", "", ""]
    assert usual[:3] == ["CPS", "40", "50 %"]
    [averaged] = printed(capsys, tmp_path / "run0", tmp_path / "run1", "--weights", "ema")
    assert averaged[:3] == ["CPS", "40", "90 %"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ("--chosen-on", "domain"),
            r"--chosen-on: 'domain' has the values \[''\] in these runs",
        ),
        (("--weights", "none"), "--weights: no masks with confidence and Dice of the weights 'none'"),
    ],
)
def test_what_the_runs_do_not_have_is_named(tmp_path, words, message):
    write_runs(tmp_path, [scores("CPS", "0", 0.5), scores("CPS", "1", 0.3)])
    with pytest.raises(ConfigError, match=message):
        confidence.main([str(tmp_path), *words])
