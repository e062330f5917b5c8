import csv
import os

import pytest

from util.errors import DataError
from util.results.collect import SOURCE, collect, write_tables
from util.results.layout import Layout
from util.results.scores import make_scores, write_scores

SCANS = Layout(
    lines=("method", "setting", "protocol"),
    columns=("structure",),
    averaged=("fold", "seed"),
    constant=("config_hash", "steps"),
    metrics=("dice", "hd95_mm"),
    has_mean=True,
)
IMAGES = Layout(
    tables=("weights",),
    lines=("method",),
    columns=("noise",),
    averaged=("seed",),
    constant=("config_hash",),
    spread="runs",
    digits=1,
)
LAYOUTS = {"scans": SCANS, "images": IMAGES}


def scan(value=0.8, **more):
    shared = {"method": "ALPNet", "dataset": "CHAOST2", "case": "1", "structure": "LIVER", "metric": "dice", "fold": 0}
    return shared | {"family": "scans", "protocol": "blind", "value": value, "n_folds": 5} | more


def image(value=0.75, **more):
    shared = {"method": "T-Loss", "dataset": "ISIC2017", "structure": "lesion", "metric": "dice", "case": "a"}
    return shared | {"family": "images", "noise": "a0.7", "weights": "last", "seed": 0, "value": value} | more


def write(root, experiment, number, *records, at=None):
    path = root / experiment / "validation" / str(number) / "scores.csv"
    write_scores(path, make_scores(records))
    if at is not None:
        os.utime(path, (at, at))
    return path


def values(root, family="scans"):
    return collect([root], LAYOUTS)[0][family]["value"].tolist()


def test_files_below_folders_are_read_once(tmp_path):
    write(tmp_path, "a", 1, scan())
    path = write(tmp_path, "b", 1, scan(fold=1, case="5"), image())
    found, failures = collect([tmp_path, path], LAYOUTS)
    assert failures == []
    assert list(found) == ["scans", "images"]
    assert found["scans"][["fold", "case"]].to_numpy().tolist() == [["0", "1"], ["1", "5"]]
    assert found["images"][SOURCE].tolist() == [str(path)]


def test_a_file_of_another_name_can_be_given(tmp_path):
    write_scores(tmp_path / "named otherwise.csv", make_scores([scan()]))
    assert len(collect([tmp_path / "named otherwise.csv"], LAYOUTS)[0]["scans"]) == 1


def test_of_an_experiment_validated_several_times_the_highest_number_counts(tmp_path):
    """File times are those of a copy or a checkout."""
    write(tmp_path, "a", 9, image(0.5), image(0.1, case="b"), at=3000)
    write(tmp_path, "a", 10, image(0.6), at=2000)
    write(tmp_path, "a", 11, image(0.4, weights="ema"), at=500)
    write(tmp_path, "b", 1, image(0.9, seed=1), at=1500)
    assert sorted(values(tmp_path, "images")) == [0.1, 0.4, 0.6, 0.9]


def test_a_copy_of_a_validation_under_another_name_is_refused(tmp_path):
    paths = [write(tmp_path, "a", number, image(value)) for number, value in ((1, 0.5), ("1 (copy)", 0.6))]
    with pytest.raises(DataError, match="both have scores of") as caught:
        collect([tmp_path], LAYOUTS)
    assert all(str(path) in str(caught.value) for path in paths)


def test_the_same_score_of_two_experiments_is_refused(tmp_path):
    paths = [write(tmp_path, name, 1, scan(value)) for name, value in (("a", 0.8), ("b", 0.9))]
    with pytest.raises(DataError, match=r"both have scores of method ALPNet.*exp_prefix=NAME") as caught:
        collect([tmp_path], LAYOUTS)
    assert all(str(path) in str(caught.value) for path in paths)
    assert "protocol blind, case 1, structure LIVER, metric dice" in str(caught.value)
    write(tmp_path, "b", 1, scan(0.9, method="other"))
    assert values(tmp_path) == [0.8, 0.9]


def test_files_outside_of_experiments_repeat_nothing(tmp_path):
    for name in ("a", "b"):
        write_scores(tmp_path / name / "scores.csv", make_scores([scan()]))
    with pytest.raises(DataError, match="both have scores of"):
        collect([tmp_path], LAYOUTS)


def test_a_score_repeated_in_one_file_is_refused(tmp_path):
    write(tmp_path, "a", 1, scan(0.8), scan(0.9))
    with pytest.raises(DataError, match=r"scores\.csv: several rows for method ALPNet.*expected one"):
        collect([tmp_path], LAYOUTS)


@pytest.mark.parametrize(("name", "first", "second"), [("config_hash", "f00d", "beef"), ("steps", "100", "60")])
def test_runs_that_differ_in_more_than_the_layout_averages_are_refused(tmp_path, name, first, second):
    one = write(tmp_path, "a", 1, scan(seed=1, **{name: first}))
    write(tmp_path, "b", 1, scan(seed=2, fold=1, **{name: first}))
    write(tmp_path, "unknown", 1, scan(seed=4, fold=1))
    assert len(values(tmp_path)) == 3
    other = write(tmp_path, "c", 1, scan(seed=3, **{name: second}))
    with pytest.raises(DataError, match=rf"both are method ALPNet, protocol blind, but with {name}") as caught:
        collect([tmp_path], LAYOUTS)
    assert f"{name} {first} and {second}; only runs that differ in nothing but fold and seed" in str(caught.value)
    assert str(one) in str(caught.value)
    assert str(other) in str(caught.value)
    write(tmp_path, "c", 1, scan(seed=3, setting="2", **{name: second}))
    assert len(values(tmp_path)) == 4


def test_columns_that_are_not_averaged_may_differ(tmp_path):
    write(tmp_path, "a", 1, image(config_hash="f00d"))
    write(tmp_path, "b", 1, image(config_hash="beef", noise="a0.3"))
    assert len(values(tmp_path, "images")) == 2
    write(tmp_path, "c", 1, image(config_hash="beef", seed=1))
    with pytest.raises(DataError, match="config_hash f00d and beef"):
        collect([tmp_path], LAYOUTS)


@pytest.mark.parametrize("layouts", [LAYOUTS, {}])
def test_an_empty_folder_is_named(tmp_path, layouts):
    with pytest.raises(DataError, match=r"no scores\.csv found there or below\. Run the validation first"):
        write_tables(tmp_path, layouts)


def test_a_damaged_file_is_named(tmp_path):
    path = write(tmp_path, "a", 1, scan())
    path.write_text("scan,dice\n1,0.5\n")
    with pytest.raises(DataError, match=r"a/validation/1/scores\.csv, line 1: no column method"):
        write_tables(tmp_path, LAYOUTS)


def cut_last_row(path):
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))


def repeat_last_row(path):
    path.write_text(path.read_text() + path.read_text().splitlines(keepends=True)[-1])


def swap_last_row(path):
    cut_last_row(path)
    repeat_last_row(path)


def damage_a_value(path):
    path.write_text(path.read_text().replace("0.7", "0.x7"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_last_row, "found 2 scores, but the validation wrote 3; the file was cut short"),
        (repeat_last_row, "found 4 scores, but the validation wrote 3"),
        (swap_last_row, "several rows for method ALPNet"),
        (damage_a_value, "line 2: damaged row"),
        (lambda path: path.write_bytes(b"case\xff"), "cannot be read"),
        (lambda path: path.unlink() or path.symlink_to("nowhere"), "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_and_the_others_are_collected(tmp_path, damage, message):
    write(tmp_path, "a", 1, scan(0.5))
    path = write(tmp_path, "b", 1, *(scan(0.7, case=case, fold=1) for case in ("5", "6", "7")))
    damage(path)
    collected = write_tables(tmp_path, LAYOUTS)
    text, (failure,) = collected.to_markdown(), collected.left_out
    assert "| ALPNet | blind | 50.00, n = 1 | 50.00, n = 1 |" in text
    assert text == (tmp_path / "table.md").read_text()
    assert message in failure
    assert text.endswith(f"- Left out: {failure}\n")
    assert "nowhere" in failure or str(path) in failure


def test_several_files_in_one_and_files_without_the_number_are_read(tmp_path):
    write(tmp_path, "a", 1, scan(0.5), scan(0.7, case="2"))
    other = write(tmp_path, "b", 1, scan(0.5, fold=1), scan(0.7, case="2", fold=1))
    joined = tmp_path / "a/validation/1/scores.csv"
    joined.write_text(joined.read_text() + other.read_text().partition("\n")[2])
    other.unlink()
    assert len(values(tmp_path)) == 4
    rows = [line.rpartition(",")[0] for line in joined.read_text().splitlines()]
    joined.write_text("\n".join(rows[:-1]) + "\n")
    assert len(values(tmp_path)) == 3


def rows_of(path):
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_tables_of_all_families(tmp_path):
    write(tmp_path, "tloss/seed0", 1, image(0.7), image(0.8, case="b"), image(float("nan"), case="c"))
    write(tmp_path, "alpnet", 1, scan(0.8), scan(2.5, metric="hd95_mm"))
    text = write_tables(tmp_path, LAYOUTS).to_markdown()
    assert text == (tmp_path / "table.md").read_text()
    assert "| ALPNet | blind | 80.00, n = 1 | 80.00, n = 1 |" in text
    assert "ALPNet, blind: no defined score of fold 1, 2, 3, 4 for LIVER." in text
    assert "| T-Loss | 75.0 (1) |" in text
    assert text.index("ALPNet") < text.index("T-Loss")
    names = ["runs.csv", "table.md", "table_images_dice.csv", "table_scans_dice.csv", "table_scans_hd95_mm.csv"]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == names
    assert {row["mean"] for row in rows_of(tmp_path / "table_scans_hd95_mm.csv")} == {"2.5"}
    first, second = rows_of(tmp_path / "runs.csv")
    assert (first["family"], first["method"], first["dice"], first["hd95_mm"]) == ("scans", "ALPNet", "0.8", "2.5")
    assert (second["noise"], second["dice"], second["hd95_mm"]) == ("a0.7", "0.75", "")
    assert (first["n_undefined"], second["n_undefined"]) == ("0", "1")


def test_only_what_was_measured_has_a_table(tmp_path):
    write(tmp_path, "alpnet", 1, scan(), scan(float("nan"), metric="hd95_mm"))
    write_tables(tmp_path, LAYOUTS)
    assert sorted(path.name for path in tmp_path.glob("table*")) == ["table.md", "table_scans_dice.csv"]


def test_gathering_again_gives_the_same(tmp_path):
    write(tmp_path, "a", 1, scan(), image())
    files = []
    for _ in range(2):
        write_tables(tmp_path, LAYOUTS)
        files.append({path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()})
    assert files[0] == files[1]


def test_scores_of_other_families_get_a_generic_table(tmp_path):
    write(tmp_path, "a", 1, scan(0.5, family="new"), {**scan(0.6, method="none"), "family": ""})
    text = write_tables(tmp_path, LAYOUTS).to_markdown()
    assert "| ALPNet | CHAOST2 | 50.00, n = 1 |" in text
    assert "| none | CHAOST2 | 60.00, n = 1 |" in text
    assert (tmp_path / "table_dice.csv").exists()
