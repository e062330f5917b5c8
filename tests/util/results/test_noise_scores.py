import math
import os
from dataclasses import replace

import numpy as np
import pytest
from util.results.noise_scores import COLUMNS, RunScore, collect_runs, noise_tables, read_runs, write_runs

from util.errors import DataError
from util.results.tables import to_markdown

RUN = RunScore("T-Loss", "ISIC2017", "lesion", "a0.7_b0.7", 0.7, 0.7, 0, "f00d", "last10", 100, 600, 0.75, 0.6, 0.8)


def clean(run):
    return replace(run, noise="a0_b0", alpha=0.0, beta=0.0)


def write(root, training, number, *runs, at=None):
    path = root / training / "validation" / str(number) / "summary.csv"
    write_runs(path, runs)
    if at is not None:
        os.utime(path, (at, at))
    return path


def test_runs_come_back_as_written(tmp_path):
    runs = [RUN, replace(RUN, dice=1 / 3, hd95_px=4.25, n_undefined=3)]
    first, second = read_runs(write(tmp_path, "a", 1, *runs))
    assert second == runs[1]
    assert replace(first, hd95_px=0.0) == replace(RUN, hd95_px=0.0)
    assert math.isnan(first.hd95_px)
    lines = (tmp_path / "a/validation/1/summary.csv").read_text().splitlines()
    assert lines[0].startswith("method,dataset,structure,noise,alpha,beta,seed,recipe,figure,")
    assert lines[1] == "T-Loss,ISIC2017,lesion,a0.7_b0.7,0.7,0.7,0,f00d,last10,100,600,0.75,0.6,0.8,,0"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (",0.75,", ",three quarters,", r"summary\.csv, line 2: damaged \(could not convert"),
        (",600,", ",600.5,", r"line 2: damaged.*Run the validation again"),
        (",0.75,", ",", "line 2: damaged"),
        (",0.75,", ",1,2,", "line 2: damaged"),
        ("method,", "methods,", "expected the columns method, dataset"),
        (",".join(COLUMNS), "", "expected the columns"),
    ],
)
def test_damaged_files_are_named(tmp_path, old, new, message):
    path = write(tmp_path, "a", 1, RUN)
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        read_runs(path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00"])
def test_what_is_no_table_is_named(tmp_path, content):
    (tmp_path / "summary.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"summary\.csv: cannot be read.*Run the validation again"):
        read_runs(tmp_path / "summary.csv")


def test_of_a_training_validated_twice_the_later_counts(tmp_path):
    write(tmp_path, "a", 2, replace(RUN, dice=0.5), at=1000)
    write(tmp_path, "a", 1, replace(RUN, dice=0.6), at=2000)
    write(tmp_path, "a", 3, replace(RUN, figure="ema", dice=0.4), at=500)
    write(tmp_path, "b", 1, replace(RUN, seed=1), at=1500)
    assert sorted(run.dice for run in collect_runs(tmp_path)) == [0.4, 0.6, 0.75]
    assert collect_runs(tmp_path / "nothing here") == []


def test_two_trainings_that_call_themselves_the_same_are_refused(tmp_path):
    write(tmp_path, "a", 1, RUN)
    write(tmp_path, "b", 1, replace(RUN, dice=0.5, steps=200))
    with pytest.raises(DataError, match=r"a/validation and .*b/validation: both hold T-Loss, lesion.*exp_prefix=NAME"):
        collect_runs(tmp_path)


def test_seeds_of_other_settings_are_not_averaged(tmp_path):
    write(tmp_path, "a", 1, RUN)
    write(tmp_path, "b", 1, replace(RUN, seed=1, recipe="beef"))
    with pytest.raises(
        DataError, match=r"T-Loss, ISIC2017, lesion, a0\.7_b0\.7, but differ in more than seed.*exp_pre"
    ):
        collect_runs(tmp_path)
    write(tmp_path, "b", 1, replace(RUN, noise="a0.3_b0.7", seed=1, recipe="beef"))
    assert len(collect_runs(tmp_path)) == 2


def cells(table):
    header, lines = table.cells()
    return [dict(zip(header, line, strict=True)) for line in lines]


def test_the_table_by_hand():
    runs = [
        replace(RUN, seed=0, dice=0.70),
        replace(RUN, seed=1, dice=0.76),
        clean(replace(RUN, method="Upper bound", dice=0.9)),
        replace(RUN, method="GCE", noise="a0.3_b0.5", alpha=0.3, beta=0.5, dice=0.8),
    ]
    (table,) = noise_tables(runs)
    spread = np.std([70, 76], ddof=1)
    assert cells(table) == [
        {"Method": "GCE", "clean": "–", "0.3, 0.5": "80.0 (1)", "0.7, 0.7": "–"},
        {"Method": "GCE, published", "clean": "82.8 (0.6)", "0.3, 0.5": "80.5 (0.9)", "0.7, 0.7": "69.1 (2.2)"},
        {"Method": "T-Loss", "clean": "–", "0.3, 0.5": "–", "0.7, 0.7": f"73.0 ± {spread:.1f} (2)"},
        {"Method": "T-Loss, published", "clean": "82.5 (0.5)", "0.3, 0.5": "80.9 (0.6)", "0.7, 0.7": "76.1 (0.6)"},
        {"Method": "Upper bound", "clean": "90.0 (1)", "0.3, 0.5": "–", "0.7, 0.7": "–"},
    ]
    assert "lesion of ISIC2017: mean Dice per test image x 100, mean of the last ten" in table.notes[0]
    assert "Published: Dice x 100 (standard deviation over 3 seeds)." in table.notes
    assert "| T-Loss | – | – | 73.0 ± 4.2 (2) |" in to_markdown(table)


def test_data_sets_structures_and_figures_have_tables_of_their_own():
    runs = [
        replace(RUN, figure="ema"),
        replace(RUN, figure="untrained", method="T-Loss untrained"),
        RUN,
        replace(RUN, dataset="JSRT", structure="heart"),
        replace(RUN, dataset="JSRT", structure="lung"),
    ]
    tables = noise_tables(runs)
    assert [(table.figure, table.title) for table in tables] == [
        ("last10", "lesion of ISIC2017"),
        ("last10", "heart of JSRT"),
        ("last10", "lung of JSRT"),
        ("ema", "lesion of ISIC2017"),
        ("untrained", "lesion of ISIC2017"),
    ]
    assert [bool(table.published) for table in tables] == [True, False, False, True, False]
    assert not any("Published" in note for note in tables[1].notes)


def test_noise_unlike_the_papers_has_lines_of_its_own():
    odd = replace(RUN, noise="a0.7_b0.7_dilate+erode_per_image_seed3", dice=0.5)
    (table,) = noise_tables([RUN, odd])
    assert [(line["Method"], line["0.7, 0.7"]) for line in cells(table)] == [
        ("T-Loss", "75.0 (1)"),
        ("T-Loss, published", "76.1 (0.6)"),
        ("T-Loss (dilate+erode_per_image_seed3)", "50.0 (1)"),
    ]


@pytest.mark.parametrize(
    "runs",
    [
        [replace(RUN, noise="a0.9_b0.5", alpha=0.9, beta=0.5)],  # no column of the paper
        [replace(RUN, n_images=50)],  # not its test images
        [RUN, replace(RUN, n_images=599, seed=1)],
    ],
)
def test_published_figures_stand_only_beside_what_they_can_be_compared_with(runs):
    (table,) = noise_tables(runs)
    assert table.published == {}
