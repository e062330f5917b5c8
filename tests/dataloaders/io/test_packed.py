import logging
import os
from pathlib import Path

import numpy as np
import pytest

from dataloaders.io import packed as module
from dataloaders.io.packed import packed
from util.errors import DataError, UserError


class CountingReader:
    def __init__(self):
        self.read = []

    def __call__(self, path):
        self.read.append(path.name)
        return np.load(path)


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    paths = [folder / f"{name}.npy" for name in ("c", "a", "b")]
    for k, path in enumerate(paths):
        np.save(path, np.arange(12, dtype=np.uint8).reshape(3, 4) + k)
    return paths


def caches(folder):
    return sorted(path.name for path in folder.glob("*.npy"))


def test_holds_the_files_in_the_order_given_read_only_and_mapped(files, tmp_path):
    array = packed(files, np.load, tmp_path / "all")
    np.testing.assert_array_equal(array, np.stack([np.load(path) for path in files]))
    assert array.dtype == np.uint8
    assert isinstance(array, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


def test_the_second_call_reads_no_file(files, tmp_path):
    reader = CountingReader()
    first = packed(files, reader, tmp_path / "all")
    assert reader.read == ["c.npy", "a.npy", "b.npy"]
    np.testing.assert_array_equal(packed(files, reader, tmp_path / "all"), first)
    assert len(reader.read) == 3
    assert len(caches(tmp_path)) == 1


def test_the_cache_moves_with_its_files(files, tmp_path):
    packed(files, np.load, tmp_path / "images" / "all")
    moved = (tmp_path / "images").rename(tmp_path / "elsewhere")
    reader = CountingReader()
    packed([moved / path.name for path in files], reader, moved / "all")
    assert reader.read == []


def test_another_time_alone_changes_nothing(files, tmp_path):
    packed(files, np.load, tmp_path / "all")
    os.utime(files[1], ns=(0, 12345))
    reader = CountingReader()
    packed(files, reader, tmp_path / "all")
    assert reader.read == []


@pytest.mark.parametrize("change", ["content", "order", "fewer"])
def test_changed_files_are_read_again_and_the_former_array_is_removed(files, tmp_path, change):
    packed(files, np.load, tmp_path / "all")
    before = caches(tmp_path)
    if change == "content":
        np.save(files[1], np.full((3, 4), 99, np.uint8))
        os.utime(files[1], ns=(0, 12345))
    elif change == "order":
        files = files[::-1]
    else:
        files = files[:2]
    reader = CountingReader()
    array = packed(files, reader, tmp_path / "all")
    assert len(reader.read) == len(files)
    np.testing.assert_array_equal(array, np.stack([np.load(path) for path in files]))
    after = caches(tmp_path)
    assert len(after) == 1
    assert after != before


def test_arrays_of_other_names_are_left_alone(files, tmp_path):
    packed(files, np.load, tmp_path / "all-clean")
    packed(files, np.load, tmp_path / "all")
    packed(files[:2], np.load, tmp_path / "all")
    assert sorted(name.rsplit("-", 1)[0] for name in caches(tmp_path)) == ["all", "all-clean"]


@pytest.mark.parametrize("content", [b"", b"nonsense", "truncated", "short"])
def test_a_damaged_array_is_made_again(files, tmp_path, content):
    expected = np.array(packed(files, np.load, tmp_path / "all"))
    cache = tmp_path / caches(tmp_path)[0]
    if content == "truncated":
        content = cache.read_bytes()[:-5]
    elif content == "short":
        np.save(cache, expected[:2])
        content = cache.read_bytes()
    cache.write_bytes(content)
    reader = CountingReader()
    np.testing.assert_array_equal(packed(files, reader, tmp_path / "all"), expected)
    assert len(reader.read) == 3


@pytest.mark.parametrize("other", [np.zeros((3, 5), np.uint8), np.zeros((3, 4), np.float32)])
def test_a_file_that_differs_is_named_and_nothing_is_written(files, tmp_path, other):
    np.save(files[2], other)
    with pytest.raises(DataError) as caught:
        packed(files, np.load, tmp_path / "all")
    message = str(caught.value)
    assert str(files[2]) in message
    assert f"{other.dtype} of shape {other.shape}; expected uint8 of shape (3, 4)" in message
    assert "Prepare" in message
    assert caches(tmp_path) == []


def test_absent_files_and_no_files_are_refused(files, tmp_path):
    with pytest.raises(DataError, match=r"absent\.npy: no such file.*Run the step"):
        packed([*files, tmp_path / "absent.npy"], np.load, tmp_path / "all")
    with pytest.raises(DataError, match=r"all: no files to pack.*Check"):
        packed([], np.load, tmp_path / "all")


def test_errors_of_the_reader_are_passed_on(files, tmp_path):
    def damaged(path):
        raise DataError(f"{path}: damaged")

    with pytest.raises(DataError, match="damaged"):
        packed(files, damaged, tmp_path / "all")


def test_without_a_writable_folder_the_array_is_in_memory_with_one_warning(files, tmp_path, monkeypatch, caplog):
    def refuse(path):
        raise UserError(f"{path}: cannot be written (Read-only file system).")

    monkeypatch.setattr(module, "atomic_write", refuse)
    with caplog.at_level(logging.WARNING):
        array = packed(files, np.load, tmp_path / "all")
    np.testing.assert_array_equal(array, np.stack([np.load(path) for path in files]))
    assert not array.flags.writeable
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "all-" in caplog.text
    assert "memory" in caplog.text
    assert caches(tmp_path) == []


def test_a_disk_that_fills_up_leaves_nothing_behind(files, tmp_path, monkeypatch):
    def full(stream, arrays, count):
        stream.write(b"begun")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_write", full)
    array = packed(files, np.load, tmp_path / "all")
    assert len(array) == 3
    assert caches(tmp_path) == []


def test_folders_are_made_and_two_starts_agree(files, tmp_path):
    cache = tmp_path / "new" / "cache" / "all"

    def read(path: Path):
        if path == files[0] and not cache.parent.joinpath("begun").exists():
            cache.parent.joinpath("begun").touch()
            packed(files, np.load, cache)  # another start is quicker
        return np.load(path)

    np.testing.assert_array_equal(packed(files, read, cache)[1], np.load(files[1]))
    assert len(list(cache.parent.glob("all-*.npy"))) == 1
