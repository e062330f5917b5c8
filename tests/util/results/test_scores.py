import math

import numpy as np
import pytest

from util.errors import DataError
from util.results.metrics import Scores
from util.results.scores import ScoreRow, collect, read_scores, write_scores

NAN = float("nan")
LABELS = {"LIVER": 1, "RK": 2, "LK": 3, "SPLEEN": 4}


def row(dice=0.8, *, fold=0, scan=1, organ="LK", protocol="published", **more):
    scores = Scores(dice, 0.7, 1 / 3, 0.6, NAN if math.isnan(dice) else 4.25, 0.5)
    return ScoreRow(protocol=protocol, fold=fold, scan=scan, label=LABELS[organ], organ=organ, scores=scores, **more)


def test_scores_come_back_as_written(tmp_path):
    path = tmp_path / "run" / "scores.csv"
    rows = [row(1 / 3, method="ALPNet", setting="1", seed="5", recipe="f00d"), row(NAN, scan=2)]
    write_scores(path, rows)
    back = read_scores(path)
    assert back[0] == rows[0]
    assert math.isnan(back[1].scores.dice)
    assert back[1].key == rows[1].key
    header, first, second = path.read_text().splitlines()
    assert header == (
        "method,dataset,setting,seed,recipe,protocol,fold,scan,label,organ,dice,precision,recall,iou,hd95_mm,nsd"
    )
    assert first == "ALPNet,,1,5,f00d,published,0,1,3,LK,0.3333333333333333,0.7,0.3333333333333333,0.6,4.25,0.5"
    assert second == ",,,,,published,0,2,3,LK,,0.7,0.3333333333333333,0.6,,0.5"


def test_numpy_numbers_are_written_as_plain_numbers(tmp_path):
    path = tmp_path / "scores.csv"
    write_scores(path, [row(np.float64(0.25))])
    assert read_scores(path)[0].scores.dice == 0.25


def test_file_without_context_columns_or_with_further_ones(tmp_path):
    path = tmp_path / "scores.csv"
    path.write_text(
        "\ufeffprotocol,fold,scan,label,organ,dice,precision,recall,iou,hd95_mm,nsd,remark\np,0,1,3,LK,nan,0,,1,2,1,x\n"
    )
    (only_row,) = read_scores(path)
    assert only_row.key == ("", "", "", "", "p", 0, 1, 3)
    assert math.isnan(only_row.scores.dice)
    assert math.isnan(only_row.scores.recall)
    assert only_row.scores.hd95_mm == 2.0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (",3,LK,0.8,0.7", ",3,LK,eighty,0.7"),
        (",0,2,3,", ",zero,2,3,"),
        (",0,2,3,LK,0.8,0.7,0.3333333333333333,0.6,4.25,0.5", ",0,2"),
        (",4.25,0.5", ",4.25"),
        (",4.25,0.5", ",4.25,0.5,1"),
        (",0.8,0.7", ",1.8,0.7"),
        (",0.8,0.7", ",-0.1,0.7"),
        (",4.25,0.5", ",inf,0.5"),
    ],
)
def test_damaged_row_is_named(tmp_path, old, new):
    path = tmp_path / "scores.csv"
    write_scores(path, [row(0.5), row(0.8, scan=2), row(0.9, fold=1, scan=3)])
    lines = path.read_text().splitlines()
    assert old in lines[2]
    lines[2] = lines[2].replace(old, new)
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"scores\.csv, line 3: damaged row .*Run the validation again"):
        read_scores(path)


def test_bad_files_say_what_to_do(tmp_path):
    path = tmp_path / "scores.csv"
    with pytest.raises(DataError, match=r"scores\.csv: cannot be read.*Run the validation"):
        read_scores(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"scores\.csv: cannot be read"):
        read_scores(path)
    path.write_text("")
    with pytest.raises(DataError, match=r"scores\.csv: no column protocol, fold"):
        read_scores(path)
    write_scores(path, [])
    with pytest.raises(DataError, match=r"scores\.csv: a header but no scores"):
        read_scores(path)
    path.write_text(path.read_text().replace("hd95_mm", "hd95"))
    with pytest.raises(DataError, match=r"scores\.csv: no column hd95_mm; expected .*Run the validation again"):
        read_scores(path)


def test_collect_finds_files_below_folders_and_reads_each_once(tmp_path):
    write_scores(tmp_path / "a/1/scores.csv", [row()])
    write_scores(tmp_path / "b/scores.csv", [row(fold=1, scan=5)])
    rows = collect([tmp_path, tmp_path / "b/scores.csv"])
    assert [(one.fold, one.scan) for one in rows] == [(0, 1), (1, 5)]


def test_collect_refuses_what_was_scored_twice(tmp_path):
    write_scores(tmp_path / "a/scores.csv", [row(0.8)])
    write_scores(tmp_path / "b/scores.csv", [row(0.9)])
    with pytest.raises(DataError) as caught:
        collect([tmp_path])
    message = str(caught.value)
    assert str(tmp_path / "a/scores.csv") in message
    assert str(tmp_path / "b/scores.csv") in message
    assert "protocol published, fold 0, scan 1, label 3" in message
    write_scores(tmp_path / "b/scores.csv", [row(0.9, method="other")])
    assert len(collect([tmp_path])) == 2


def test_collect_refuses_to_average_other_settings(tmp_path):
    write_scores(tmp_path / "a" / "scores.csv", [row(method="ALPNet", seed="1", recipe="f00d")])
    write_scores(tmp_path / "b" / "scores.csv", [row(method="ALPNet", seed="2", recipe="f00d", fold=1)])
    assert len(collect([tmp_path])) == 2
    write_scores(tmp_path / "c" / "scores.csv", [row(method="ALPNet", seed="3", recipe="beef")])
    with pytest.raises(DataError, match=r"ALPNet, but differ in more than seed and fold.*exp_prefix=NAME"):
        collect([tmp_path])


def test_collect_finds_nothing(tmp_path):
    with pytest.raises(DataError, match=r"no scores\.csv there or below\. Run the validation first"):
        collect([tmp_path])


def test_collect_takes_a_file_of_another_name(tmp_path):
    write_scores(tmp_path / "named otherwise.csv", [row()])
    assert len(collect([tmp_path / "named otherwise.csv"])) == 1
