"""CSV files: what spreadsheets write is read, what is damaged or hostile is named with its line."""

import pytest

from util.csv_files import read_csv, read_table
from util.errors import DataError


def written(folder, content, encoding="utf-8"):
    path = folder / "t.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode(encoding))
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_spreadsheets_write(tmp_path, delimiter, encoding, end):
    lines = ["id,split", " ä1 ,train", "", '"b ""2""",test', ","]
    path = written(tmp_path, end.join(lines).replace(",", delimiter) + end, encoding)
    assert read_csv(path, ("id", "split")) == [{"id": "ä1", "split": "train"}, {"id": 'b "2"', "split": "test"}]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("id,split\na,train\n../b,test\n", r"line 3: the id '\.\./b' holds a slash"),
        ("id\n/tmp/x\n", r"line 2: the id '/tmp/x' holds a slash"),
        ("id,split\na,train,x\n", r"line 2: a line with too many or too few cells \(3\); expected 2"),
        ("id,split\na\n", r"line 2: a line with too many or too few cells \(1\)"),
        ("id,id\na,b\n", "column 'id' is given twice"),
        ("name\na\n", "no column id"),
        ("", "no column id"),
        ("id\n" + "a" * 200_000, r"line 2: damaged \(field larger than field limit"),
        ('id\n"a\nb', r"damaged \(unexpected end of data"),
        (b"id\na\0b\n", "line 2: a NUL character"),
        ("id\nm\xfcller\n".encode("latin-1"), "not UTF-8 .*Save it in UTF-8"),
        (b"\xff\xfei", "not UTF-8"),
    ],
)
def test_damaged_files_are_named(tmp_path, content, found):
    with pytest.raises(DataError, match=rf"t\.csv.*{found}.*Do this"):
        read_csv(written(tmp_path, content), ("id",), "Do this.")


def test_lines_keep_their_numbers(tmp_path):
    table = read_table(written(tmp_path, 'a,b\n\n"x\ny",1\nz\n'))
    assert table.columns == ("a", "b")
    assert [(line.number, line.cells) for line in table.lines] == [(4, ("x\ny", "1")), (5, ("z",))]


def test_an_absent_file_and_a_folder_are_named(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(DataError, match=r"cannot be read .*Repeat the step"):
            read_table(path)
