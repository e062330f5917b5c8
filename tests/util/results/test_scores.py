import math

import numpy as np
import pandas as pd
import pytest

from util.errors import DataError
from util.ids import natural_key
from util.results.scores import COLUMNS, csv_text, make_scores, read_scores, write_scores

NAN = float("nan")


def record(value=0.8, **more):
    shared = {"method": "ALPNet", "dataset": "CHAOST2", "split": "test", "fold": 0, "case": "1", "patient": "1"}
    return shared | {"structure": "LK", "metric": "dice", "value": value, "seed": 5, "protocol": "blind"} | more


def written(folder, *records):
    path = folder / "run" / "scores.csv"
    write_scores(path, make_scores(records))
    return path


def test_scores_come_back_as_written(tmp_path):
    records = [record(1 / 3), record(NAN, case="2"), record(np.float64(0.1) + 0.2), record(4.25, metric="hd95_mm")]
    path = written(tmp_path, *records)
    back = read_scores(path)
    pd.testing.assert_frame_equal(back, make_scores(records), check_exact=True)
    assert back["value"].tolist()[0] == 1 / 3
    header, first, second, third, _ = path.read_text().splitlines()
    assert header == ",".join(COLUMNS) + ",seed,protocol,n_scores"
    assert first == "ALPNet,CHAOST2,test,0,1,1,LK,dice,0.3333333333333333,5,blind,4"
    assert second == "ALPNet,CHAOST2,test,0,2,1,LK,dice,,5,blind,4"
    assert ",0.30000000000000004," in third


def test_files_of_earlier_versions_have_a_column_per_metric(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text(
        "method,dataset,setting,seed,recipe,protocol,fold,scan,label,organ,dice,hd95_mm\n"
        "ALPNet,SABS,1,5,f00d,blind,0,07,6,LIVER,0.25,\nALPNet,SABS,1,5,f00d,blind,0,08,6,LIVER,0.5,3.5\n"
    )
    scores = read_scores(path)
    assert list(zip(scores["case"], scores["metric"], scores["value"].fillna(-1), strict=True)) == [
        *[("07", "dice", 0.25), ("07", "hd95_mm", -1), ("08", "dice", 0.5), ("08", "hd95_mm", 3.5)]
    ]
    assert set(zip(scores["family"], scores["structure"], scores["config_hash"], strict=True)) == {
        ("fewshot", "LIVER", "f00d")
    }
    path.write_text(path.read_text().replace("0.5,3.5", "0.5"))
    with pytest.raises(DataError, match=r"line 3: damaged row \(found 11 cells"):
        read_scores(path)


def test_pandas_reads_the_same(tmp_path):
    path = written(tmp_path, record(1 / 3, case="007"), record(NAN))
    plain = pd.read_csv(path, dtype={"case": str})
    assert plain["case"].tolist() == ["007", "1"]
    assert plain["value"].tolist()[0] == 1 / 3
    assert math.isnan(plain["value"][1])


@pytest.mark.parametrize("case", ["007", "img, 3", 'a "b"', "Żółw|$x$", " x ", "NA", "nan", "1e5", "two\nlines"])
def test_an_id_is_any_text(tmp_path, case):
    assert read_scores(written(tmp_path, record(case=case)))["case"].tolist() == [case]


def test_records_of_other_families_have_other_conditions(tmp_path):
    scores = make_scores([record(), {"metric": "iou", "value": 1, "alpha": 0.7}])
    assert list(scores.columns) == [*COLUMNS, "seed", "protocol", "alpha"]
    assert scores.iloc[1].tolist() == ["", "", "", "", "", "", "", "iou", 1.0, "", "", "0.7"]


def test_spreadsheets_may_reorder_columns_and_write_a_mark(tmp_path):
    path = written(tmp_path, record(0.25))
    frame = pd.read_csv(path, dtype=str)
    path.write_text("\ufeff" + frame[frame.columns[::-1]].to_csv(index=False))
    back = read_scores(path)
    assert back["value"].tolist() == [0.25]
    assert back["seed"].tolist() == ["5"]


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (",0.8,", ",eighty,", r"found dice 'eighty', expected a number from 0 to 1 or an empty cell"),
        (",0.8,", ",1.8,", r"found dice '1\.8', expected a number from 0 to 1 or"),
        (",0.8,", ",-0.1,", "found dice '-0.1', expected"),
        (",0.8,", ",inf,", "found dice 'inf', expected"),
        ("dice,0.8", "hd95_mm,-1", "found hd95_mm '-1', expected a number from 0 or an empty cell"),
        ("dice,0.8", "hd95_mm,inf", "found hd95_mm 'inf', expected a number from 0 or"),
        ("dice,0.8", "volume_ml,x", "found volume_ml 'x', expected a number or an empty cell"),
        (",test,0,", ",test,zero,", "found the fold 'zero', expected a whole number or an empty cell"),
        (",5,blind", ",5", "found 11 cells, expected 12"),
        (",5,blind", ",5,blind,1", "found 13 cells, expected 12"),
    ],
)
def test_a_damaged_row_is_named(tmp_path, old, new, found):
    path = written(tmp_path, record(0.5), record(0.8, case="2"), record(0.9, case="3"))
    lines = path.read_text().splitlines()
    assert old in lines[2]
    lines[2] = lines[2].replace(old, new)
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"scores\.csv, line 3: damaged row \({found}.*Run the validation again"):
        read_scores(path)


def test_unknown_metrics_have_any_number(tmp_path):
    assert read_scores(written(tmp_path, record(-3.5, metric="volume_ml")))["value"].tolist() == [-3.5]


def test_bad_files_say_what_to_do(tmp_path):
    path = tmp_path / "scores.csv"
    with pytest.raises(DataError, match=r"scores\.csv: cannot be read.*Run the validation"):
        read_scores(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"scores\.csv: cannot be read"):
        read_scores(path)
    path.write_text("")
    with pytest.raises(DataError, match=r"scores\.csv, line 1: no column method, dataset"):
        read_scores(path)
    write_scores(path, make_scores([]))
    with pytest.raises(DataError, match=r"scores\.csv: a header but no scores"):
        read_scores(path)
    path.write_text(path.read_text().replace("metric", "metrics"))
    with pytest.raises(DataError, match=r"line 1: no column metric; expected method, dataset.*Run the validation ag"):
        read_scores(path)
    path.write_text(",".join([*COLUMNS, "seed", "seed"]) + "\n")
    with pytest.raises(DataError, match=r"column 'seed' is given twice; expected it once\. Run the validation"):
        read_scores(path)


def test_csv_text_keeps_digits_and_leaves_undefined_cells_empty():
    records = [{"id": "a", "n": 3, "x": 1 / 3, "unused": 1}, {"id": "b", "n": 0, "x": NAN}]
    assert csv_text(("id", "n", "x"), records) == "id,n,x\na,3,0.3333333333333333\nb,0,\n"
    assert csv_text(("id", "n"), []) == "id,n\n"


def test_ids_are_sorted_as_people_do():
    ids = ["scan 9", "scan 10", "scan 1", "10", "9", "a2b10", "a2b9", "", "007", "7", "a"]
    assert sorted(ids, key=natural_key) == [
        "",
        "007",
        "7",
        "9",
        "10",
        "a",
        "a2b9",
        "a2b10",
        "scan 1",
        "scan 9",
        "scan 10",
    ]
