"""Accounting for the files of a folder."""

from pathlib import Path

from util.inventory import EMPTY, HIDDEN, TWICE, is_archive, is_hidden, list_files, summary


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_every_file_is_listed_or_left_out_with_the_reason(tmp_path):
    kept = [touch(tmp_path / name) for name in ("a/1.png", "b.PNG")]
    touch(tmp_path / "prepared_64px/images/1.png")
    hidden = [touch(tmp_path / name) for name in ("a/._1.png", "Thumbs.db")]
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "a/b").mkdir()
    files, left_out = list_files(tmp_path)
    assert files == kept
    assert {path: reason for path, reason in left_out.items() if reason == HIDDEN} == dict.fromkeys(hidden, HIDDEN)
    assert "link to nothing" in left_out[tmp_path / "gone.png"]
    assert left_out[tmp_path / "a/b"] == EMPTY
    assert len(left_out) == 4


def test_linked_folders_are_followed_once(tmp_path):
    file = touch(tmp_path / "disk/1.png")
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw/link").symlink_to(tmp_path / "disk")
    (tmp_path / "disk/back").symlink_to(tmp_path / "raw")
    files, left_out = list_files(tmp_path / "raw")
    assert [path.resolve() for path in files] == [file]
    assert left_out == {tmp_path / "raw/link/back": TWICE}


def test_the_summary_groups_by_reason_and_names_five():
    left_out = {Path(f"raw/n{number}.txt"): "no picture" for number in range(7)} | {Path("raw/x/.c"): HIDDEN}
    text = summary(20, left_out, Path("raw"))
    assert text == (
        "20 files found, 12 used, 8 left out: 7 no picture (n0.txt, n1.txt, n2.txt, n3.txt, n4.txt, ...); "
        f"1 {HIDDEN} (x/.c)"
    )
    assert summary(3, {}, Path("raw")) == "3 files found, 3 used, 0 left out"


def test_names_that_systems_write():
    assert all(map(is_hidden, ("._a.png", ".DS_Store", "__MACOSX", "thumbs.db", "~$table.csv")))
    assert not is_hidden("a.png")
    assert is_archive("Train.ZIP")
    assert not is_archive("a.nii.gz")
