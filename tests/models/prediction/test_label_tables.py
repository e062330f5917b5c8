"""Tables of label values that ITK-SNAP and 3D Slicer read."""

import re

from models.prediction.label_tables import write_label_tables
from util.results.pictures import COLOURS


def test_values_names_and_colours(tmp_path):
    write_label_tables(tmp_path, {"left  kidney": 300, 'a "b"': 2})
    snap = (tmp_path / "labels.txt").read_text().splitlines()
    rows = [re.fullmatch(r'\s*(\d+)((?:\s+\d+){6})\s+"([^"]*)"', line) for line in snap if not line.startswith("#")]
    assert [(row[1], row[2].split(), row[3]) for row in rows if row] == [
        ("0", ["0", "0", "0", "0", "0", "0"], "Clear Label"),
        ("2", [*hexadecimal(COLOURS[1]), "1", "1", "1"], "a 'b'"),
        ("300", [*hexadecimal(COLOURS[0]), "1", "1", "1"], "left kidney"),
    ]
    assert None not in rows
    slicer = [line.split() for line in (tmp_path / "labels.ctbl").read_text().splitlines() if line[0] != "#"]
    assert slicer == [
        ["0", "Background", "0", "0", "0", "0"],
        ["2", 'a_"b"', *hexadecimal(COLOURS[1]), "255"],
        ["300", "left_kidney", *hexadecimal(COLOURS[0]), "255"],
    ]


def hexadecimal(colour):
    return [str(int(colour[place : place + 2], 16)) for place in (1, 3, 5)]


def test_further_tasks_continue_the_colours(tmp_path):
    write_label_tables(tmp_path, {"cup": 1}, "labels_disc_cup", 3)
    assert f"1 cup {' '.join(hexadecimal(COLOURS[3]))} 255" in (tmp_path / "labels_disc_cup.ctbl").read_text()
