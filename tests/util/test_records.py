"""Records of what files were made from, and hashes that are not computed anew for files that have not changed."""

import json
import os

import pytest

from util import records
from util.errors import DataError, UserError
from util.files import file_sha256
from util.records import CACHE_NAME, Record, different_contents, digest, hash_files


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name for name in ("a.png", "sub/b.png")]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.name)
        os.utime(path, (1e9, 1e9))
    return paths


@pytest.fixture
def read(monkeypatch):
    """Names of the files that were read."""
    found = []
    monkeypatch.setattr(records, "file_sha256", lambda path: found.append(path.name) or file_sha256(path))
    return found


def test_unchanged_files_are_read_once(files, tmp_path, read):
    first = hash_files(files, tmp_path)
    assert first == {"a.png": file_sha256(files[0]), "sub/b.png": file_sha256(files[1])}
    assert hash_files(files[::-1], tmp_path) == first
    assert sorted(read) == ["a.png", "b.png"]


def test_another_size_or_time_makes_a_file_be_read_again(files, tmp_path, read):
    first = hash_files(files, tmp_path)
    read.clear()
    files[0].write_text("b.png")  # of the same size, now
    os.utime(files[1], (2e9, 2e9))
    second = hash_files(files, tmp_path)
    assert sorted(read) == ["a.png", "b.png"]
    assert second["a.png"] != first["a.png"]
    assert second["sub/b.png"] == first["sub/b.png"]


def test_a_file_that_was_just_written_is_not_trusted_by_its_time(files, tmp_path, read):
    files[0].write_text("first")
    before = files[0].stat()
    first = hash_files(files, tmp_path)
    files[0].write_text("other")  # within the same tick of the clock
    os.utime(files[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    assert hash_files(files, tmp_path)["a.png"] != first["a.png"]
    assert read.count("b.png") == 1


def test_absent_files_are_left_out_and_unreadable_ones_named(files, tmp_path, monkeypatch):
    assert list(hash_files([*files, tmp_path / "c.png"], tmp_path)) == ["a.png", "sub/b.png"]
    (tmp_path / CACHE_NAME).unlink()

    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(records, "file_sha256", refuse)
    with pytest.raises(DataError, match=r"a\.png: cannot be read \(Permission denied\)"):
        hash_files(files, tmp_path)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"format": 1, "files": 3}', '{"format": 1, "files": {"a.png": 4, "sub/b.png": [1]}}'],
)
def test_damaged_memory_is_made_again(files, tmp_path, content):
    expected = hash_files(files, tmp_path)
    (tmp_path / CACHE_NAME).write_text(content)
    assert hash_files(files, tmp_path) == expected


def test_a_folder_that_cannot_be_written_to_is_no_obstacle(files, tmp_path, monkeypatch):
    def refuse(path, text):
        raise UserError("read-only")

    monkeypatch.setattr(records, "write_text", refuse)
    assert len(hash_files(files, tmp_path)) == 2
    assert not (tmp_path / CACHE_NAME).exists()


def test_a_record_comes_back_from_json():
    record = Record({"beta": 0.7, "types": ["dilate"]}, {"a.png": "1"}, {"b.png": "2"}, {"n": 3})
    assert Record.from_json(json.loads(json.dumps(record.to_json()))) == record


@pytest.mark.parametrize(
    "content",
    [None, [], 3, {}, {"made_with": {}}, {"record": 1, "settings": {}}, {"record": 2, "settings": {}, "made_from": {}}],
)
def test_what_is_no_record_is_none(content):
    assert Record.from_json(content) is None


def test_differences_are_named():
    record = Record({"beta": 0.7, "crop": [0, 1]}, {"a": "1", "b": "2", "c": "3"})
    assert record.differences({"beta": 0.7, "crop": (0, 1)}, {"c": "3", "a": "1", "b": "2"}) == ""
    found = record.differences({"beta": 0.5, "crop": [0, 1]}, {"a": "9", "c": "3", "d": "4"})
    assert found == "beta: 0.7 then, 0.5 now; changed: a; gone: b; new: d"
    assert different_contents(dict.fromkeys("abcde", "1"), {}) == "gone: a, b, c and 2 more"


def test_staleness_compares_with_the_files_as_they_are(files, tmp_path):
    outside = {"../raw/x.dcm": "0"}
    record = Record({}, hash_files(files, tmp_path) | outside, hash_files(files[:1], tmp_path))
    assert record.staleness(tmp_path) == ""
    assert record.is_intact(tmp_path)
    assert record.staleness(tmp_path, expected=["a.png"]) == "gone: sub/b.png"
    files[0].write_text("changed")
    files[1].unlink()
    assert record.staleness(tmp_path) == "changed: a.png; gone: sub/b.png"
    assert not record.is_intact(tmp_path)


def test_a_digest_covers_names_and_contents():
    digests = {digest(contents) for contents in ({"a": "1"}, {"a": "2"}, {"b": "1"}, {"a": "1", "b": "2"}, {})}
    assert len(digests) == 5
