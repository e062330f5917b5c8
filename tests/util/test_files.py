import os
from pathlib import Path

import numpy as np
import pytest

from util import files
from util.errors import DataError, UserError
from util.files import read_json, read_json5, read_json_object


def test_a_failed_write_keeps_the_old_file_and_removes_the_temporary_one(tmp_path):
    path = tmp_path / "deep" / "a.nii.gz"
    files.write_text(path, "old")

    def fail():
        with files.atomic_write(path) as temporary:
            assert temporary.name.endswith(".nii.gz")
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert os.listdir(path.parent) == ["a.nii.gz"]  # noqa: PTH208


def test_stale_temporary_files_are_removed(tmp_path):
    old, young = tmp_path / ".writing-a.pt-x.pt", tmp_path / ".writing-a.pt-y.pt"
    for leftover in (old, young):
        leftover.write_text("half")
    os.utime(old, (0, 0))
    files.write_text(tmp_path / "a.pt", "whole")
    assert not old.exists()
    assert young.exists()


def test_the_error_names_a_path_that_is_not_a_folder(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"a\.json: cannot be written.*choose another output folder"):
        files.write_json(tmp_path / "file" / "a.json", {})


def test_the_error_names_a_read_only_folder(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.mkstemp", refuse)
    with pytest.raises(UserError, match=r"Permission denied.*writable"):
        files.write_text(tmp_path / "a.txt", "")


def test_json_round_trip_and_corrupt_files(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"a": [1, 2]})
    assert files.read_json(path) == {"a": [1, 2]}
    path.write_text("{")
    with pytest.raises(UserError, match=r"a\.json: not valid JSON"):
        files.read_json(path)
    with pytest.raises(UserError, match="cannot be read"):
        files.read_json(Path(tmp_path / "none.json"))


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    assert files.file_sha256(tmp_path / "a").startswith("ba7816bf")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[" * 100_000, "recursion"),
        ("9" * 5000, "Exceeds the limit"),
        ('{"a": 1, "a": 2}', "the key 'a' is given twice"),
        ("{", "Expecting"),
        ("\0", "a NUL character"),
    ],
)
def test_hostile_json_is_named(tmp_path, text, found):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(DataError, match=rf"a\.json.*{found}"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{a: NaN}", "the number nan"),
        ("{a: [1, -Infinity]}", "the number -inf"),
        ("{a: 1e999}", "the number inf"),
        ("[" * 100_000, "recursion"),
        ("9" * 5000, "Exceeds the limit"),
        ("{a: 1, a: 2}", "a"),
        (" " * 2**20 + "{}", "larger than 1048576 bytes"),
    ],
)
def test_hostile_json5_is_named(tmp_path, text, found):
    (tmp_path / "a.json5").write_text(text)
    with pytest.raises(DataError, match=rf"a\.json5.*{found}"):
        read_json5(tmp_path / "a.json5", "Write it again.")


def test_json_with_a_byte_order_mark_and_undefined_numbers_is_read(tmp_path):
    (tmp_path / "a.json").write_text("\ufeff" + '{"a": NaN}')
    assert np.isnan(read_json_object(tmp_path / "a.json")["a"])


def test_an_object_is_expected(tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(DataError, match=r"a\.json: holds a list; expected \{\.\.\.\}"):
        read_json_object(tmp_path / "a.json")
