import pickle

import pytest
import torch

from util.errors import CheckpointError, UserError
from util.runtime import checkpoint


class Hostile:
    """Runs code when it is unpickled by a reader that lets it."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code of the file was run')",))


def content(step):
    return {"step": step, "weights": {"a": torch.full((3,), float(step))}, "names": ["x"]}


def newest_step(path):
    newest = checkpoint.load_newest(path)
    assert newest is not None
    return newest["step"]


def test_what_is_saved_is_read_back(tmp_path):
    checkpoint.save(tmp_path / "c.pt", content(1))
    read = checkpoint.load(tmp_path / "c.pt")
    assert read["step"] == 1
    assert torch.equal(read["weights"]["a"], torch.ones(3))
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_the_previous_checkpoint_is_kept_and_used_when_the_last_is_damaged(tmp_path, caplog):
    path = tmp_path / "c.pt"
    for step in (1, 2):
        checkpoint.save(path, content(step), keep_previous=True)
    assert checkpoint.load(checkpoint.previous_path(path))["step"] == 1
    assert newest_step(path) == 2
    path.write_bytes(path.read_bytes()[:200])
    assert newest_step(path) == 1
    assert "c.pt: damaged" in caplog.text
    checkpoint.previous_path(path).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"c\.pt\.previous: damaged"):
        checkpoint.load_newest(path)


def test_no_checkpoint_is_none(tmp_path):
    assert checkpoint.load_newest(tmp_path / "c.pt") is None
    with pytest.raises(CheckpointError, match=r"c\.pt: no such checkpoint"):
        checkpoint.load(tmp_path / "c.pt")


@pytest.mark.parametrize("writer", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj, protocol=2))])
def test_code_in_a_checkpoint_is_refused(tmp_path, writer):
    path = tmp_path / "hostile.pt"
    writer({"weights": Hostile()}, path)
    with pytest.raises(CheckpointError, match=r"hostile\.pt: refused.*hidden code"):
        checkpoint.load(path)


def test_foreign_files_are_named(tmp_path):
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(CheckpointError, match=r"text\.pt: damaged, or not a checkpoint"):
        checkpoint.load(tmp_path / "text.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CheckpointError, match="contains a list"):
        checkpoint.load(tmp_path / "list.pt")


def test_a_full_disk_leaves_the_last_checkpoint_intact(tmp_path, monkeypatch):
    path = tmp_path / "c.pt"
    checkpoint.save(path, content(1), keep_previous=True)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    with pytest.raises(UserError, match=r"c\.pt: cannot be written \(No space left.*Free some disk space"):
        checkpoint.save(path, content(2), keep_previous=True)
    assert newest_step(path) == 1
    assert len(list(tmp_path.iterdir())) == 1


def test_a_damaged_checkpoint_never_takes_the_place_of_the_good_one(tmp_path):
    path = tmp_path / "checkpoint.pt"
    for step in (1, 2):
        checkpoint.save(path, {"step": step}, keep_previous=True)
    path.write_bytes(b"damaged")
    found = checkpoint.load_newest(path)
    assert found == {"step": 1}
    assert path.with_name("checkpoint.pt.damaged").read_bytes() == b"damaged"
    checkpoint.save(path, {"step": 3}, keep_previous=True)
    assert checkpoint.load(checkpoint.previous_path(path)) == {"step": 1}  # the one resumed from
    assert checkpoint.load(path) == {"step": 3}
