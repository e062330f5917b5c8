"""Many files at once: what fails is named and stops nothing, what is left out is named, and no table is lost."""

import csv
import errno
import os
import struct
from pathlib import Path

import pytest

from dataloaders.io.volumes import read_volume
from models.prediction.batch import Inventory, Table, find_all, name_files, process_each
from models.prediction.scan_search import find_scans
from util.errors import DataError, UserError
from util.items import Failures

COLUMNS = ("scan", "label", "voxels")


def records_of(table: Path):
    with table.open(newline="") as stream:
        return [(record["scan"], record["voxels"]) for record in csv.DictReader(stream)]


def done(voxels):
    return lambda name, path: [{"scan": name, "label": 1, "voxels": voxels}]


def raising(name, path):
    errors = {
        "type": TypeError("cannot unpack"), "memory": MemoryError(), "overflow": OverflowError("too large"),
        "struct": struct.error("4 bytes"), "runtime": RuntimeError("failed"), "disk": OSError(28, "No space left"),
        "data": DataError("damaged"), "unicode": UnicodeEncodeError("utf-8", "\udcfc", 0, 1, "surrogates"),
    }  # fmt: skip
    if name in errors:
        raise errors[name]
    return done(5)(name, path)


def test_any_exception_fails_its_item_alone(tmp_path):
    names = ["type", "memory", "overflow", "struct", "runtime", "disk", "data", "unicode", "good"]
    failures: Failures = {}
    items = {name: tmp_path / f"{name}.nii" for name in names}
    assert process_each(items, raising, tmp_path / "t.csv", COLUMNS, "scans", failures) == 1
    assert list(failures) == names[:-1]
    assert all(str(items[name]) in reason for name, reason in failures.items())
    assert failures["memory"].endswith("needs more memory than there is (no figure given)")
    assert records_of(tmp_path / "t.csv") == [("good", "5")]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_stops_but_the_table_is_written(tmp_path, error):
    def work(name, path):
        if name == "b":
            raise error
        return done(5)(name, path)

    with pytest.raises(error):
        process_each({"a": tmp_path, "b": tmp_path, "c": tmp_path}, work, tmp_path / "t.csv", COLUMNS, "scans", {})
    assert records_of(tmp_path / "t.csv") == [("a", "5")]


def test_on_a_full_disk_the_table_is_a_failure_next_to_those_of_the_items(tmp_path, monkeypatch):
    table, failures = tmp_path / "t.csv", Failures()
    process_each({"a": tmp_path}, done(1), table, COLUMNS, "scans", {})
    earlier, is_full = table.read_bytes(), []

    def fsync(_):
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def work(name, path):
        is_full.append(name)
        return raising(name, path)

    monkeypatch.setattr("util.files.os.fsync", fsync)
    monkeypatch.setattr("models.prediction.batch.TABLE_EVERY_S", 0)
    assert process_each({"b": tmp_path / "b", "disk": tmp_path / "c"}, work, table, COLUMNS, "scans", failures) == 1
    assert list(failures) == ["disk", "t.csv"]  # b is segmented, though its line is missing
    assert f"{table}: cannot be written (No space left on device)" in failures["t.csv"]
    assert table.read_bytes() == earlier
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_lines_of_other_items_and_of_failed_ones_stay(tmp_path):
    table, path = tmp_path / "t.csv", tmp_path / "x"
    process_each({"a": path, "type": path}, done(1), table, COLUMNS, "scans", {})
    process_each({"b": path}, done(2), table, COLUMNS, "scans", {})
    process_each({"a": path, "type": path}, raising, table, COLUMNS, "scans", {})
    assert records_of(table) == [("a", "5"), ("type", "1"), ("b", "2")]


@pytest.mark.parametrize("content", [b"my,own\n1,2\n", b"scan,label,voxels\na,1\n", b"\xff\xfe\n", b'scan,"label'])
def test_another_table_is_not_replaced(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(UserError, match=r"t\.csv(: not a table|: cannot be read|, line 1: damaged).* Move it away"):
        Table(tmp_path / "t.csv", COLUMNS)
    assert (tmp_path / "t.csv").read_bytes() == content


def test_names_of_any_bytes_are_written_and_found_again(tmp_path):
    path = tmp_path / "x"
    names = [os.fsdecode(b"M\xfcller"), "a$x_{1$", "two\nlines", "-dash", "Grüße 日本"]
    items = dict(zip(names, [path] * len(names), strict=True))
    for voxels in (1, 2):
        process_each(items, done(voxels), tmp_path / "t.csv", COLUMNS, "scans", {})
    expected = [r"M\udcfcller", *names[1:]]
    assert records_of(tmp_path / "t.csv") == [(name, "2") for name in expected]


def test_two_files_of_one_name_are_both_named(tmp_path):
    with pytest.raises(DataError, match=r"image_2\.nii, .*image_2\.nii\.gz: the same name but for the suffix"):
        name_files([tmp_path / "image_2.nii", tmp_path / "image_2.nii.gz"], lambda path: path.name.partition(".")[0])


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_everything_below_a_folder_is_used_or_named(tmp_path):
    touch(
        tmp_path, "a.nii.gz", "B/1.dcm", "B/2.dcm", "B/notes.txt", "C/IM0", "C/IM1", "pair.hdr", "pair.img", "half.img"
    )
    touch(
        tmp_path, "d.zip", ".DS_Store", "._a.nii.gz", ".git/x", "volumes.csv", "old_segmentation.nii.gz", "D/DICOMDIR"
    )
    touch(tmp_path, "D/E/00001", "a_label.nii.gz", "readme.md")
    (tmp_path / "plain").write_bytes(bytes(128) + b"DICM")
    (tmp_path / "empty").mkdir()
    (tmp_path / "gone.nii.gz").symlink_to("nowhere.nii.gz")
    (tmp_path / "patient").symlink_to("nowhere")
    (tmp_path / "gone.txt").symlink_to("nowhere")
    (tmp_path / "C" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "again").symlink_to(tmp_path / "B", target_is_directory=True)
    inventory = Inventory()
    found = {path.relative_to(tmp_path).as_posix() for path in find_scans(tmp_path, inventory)}
    assert len(found & {"B", "again"}) == 1  # the same folder
    assert found - {"B", "again"} == {".", "a.nii.gz", "C", "pair.hdr", "D/E", "gone.nii.gz", "patient"}
    left_out = {path.relative_to(tmp_path).as_posix() for path in inventory.left_out}
    assert len(left_out & {"B", "again"}) == 1
    left_out = {name.replace("again/", "B/") for name in left_out - {"B", "again"}}
    assert left_out == {
        *("B/notes.txt", "half.img", "d.zip", ".DS_Store", "._a.nii.gz", ".git", "volumes.csv", "readme.md", "empty"),
        *("old_segmentation.nii.gz", "D/DICOMDIR", "a_label.nii.gz", "gone.txt", "C/loop"),
    }
    assert inventory.n_used == 1 + 2 + 2 + 2 + 1 + 1 + 2  # a, B, C, pair, D/E, plain, both links
    assert str(inventory).startswith("26 files found, 11 used, 15 left out: ")


def test_long_lists_are_cut(tmp_path):
    touch(tmp_path, "a.nii", *(f"{number}.txt" for number in range(9)))
    inventory = Inventory()
    find_scans(tmp_path, inventory)
    assert str(inventory).count(".txt") == 5
    assert "9 neither NIfTI nor DICOM (0.txt, 1.txt, " in str(inventory)


def test_a_place_without_scans_is_a_failure_among_others(tmp_path):
    touch(tmp_path, "a.nii")
    (tmp_path / "empty").mkdir()
    failures: Failures = {}
    found, _ = find_all([tmp_path / "absent", tmp_path / "a.nii", tmp_path / "empty"], find_scans, failures)
    assert found == [tmp_path / "a.nii"]
    assert "absent: no such file or folder" in failures[str(tmp_path / "absent")]
    assert "empty: no scan found; looked for" in failures[str(tmp_path / "empty")]
    with pytest.raises(DataError, match=r"absent: no such file or folder.*empty: no scan found"):
        find_all([tmp_path / "absent", tmp_path / "empty"], find_scans, {})


def test_folders_that_cannot_be_read_are_failures(tmp_path, monkeypatch):
    touch(tmp_path, "a.nii", "locked/1.dcm")
    iterdir, access = Path.iterdir, os.access

    def is_locked(path):
        return Path(path).name == "locked"

    def refuse(path):
        if is_locked(path):
            raise PermissionError(13, "Permission denied", str(path))
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", refuse)  # for root, every folder is readable
    monkeypatch.setattr(os, "access", lambda path, mode: not is_locked(path) and access(path, mode))
    assert find_scans(tmp_path) == [tmp_path / "a.nii", tmp_path / "locked"]
    with pytest.raises(DataError, match=r"locked: cannot be read \(permission denied\)"):
        read_volume(tmp_path / "locked")
