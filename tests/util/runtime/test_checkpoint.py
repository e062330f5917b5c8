import os
import pickle
import resource
import zipfile

import pytest
import torch

from tests.dataloaders.io.fuzz import bit_flips, truncations
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
    with pytest.raises(CheckpointError, match=r"c\.pt\.previous: damaged, and no other .*move it"):
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


def same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.equal(other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    return one == other


def test_changed_bytes_are_noticed_and_the_previous_checkpoint_is_taken(tmp_path, caplog):
    path = tmp_path / "c.pt"
    for step in (1, 2):
        checkpoint.save(path, content(step) | {"more": torch.ones(10_000)}, keep_previous=True)
    damaged = bytearray(path.read_bytes())
    damaged[20_000:24_000] = bytes(4000)  # inside a tensor: the file can still be read
    path.write_bytes(damaged)
    assert torch.load(path, weights_only=True)["step"] == 2
    with pytest.raises(CheckpointError, match=r"c\.pt: damaged.*checksum of .*data.* or use .*c\.pt\.previous\."):
        checkpoint.load(path)
    assert newest_step(path) == 1
    assert "Resuming from" in caplog.text
    assert (tmp_path / "c.pt.damaged").read_bytes() == damaged


def test_the_message_names_a_file_that_can_be_used(tmp_path):
    for step in (90, 100):
        checkpoint.save(tmp_path / "snapshots" / f"{step}.pth", content(step))
    (tmp_path / "checkpoint.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"or use .*snapshots/100\.pth\."):
        checkpoint.load(tmp_path / "checkpoint.pt")
    (tmp_path / "checkpoint.pt.previous").write_bytes(b"PK")
    with pytest.raises(CheckpointError) as error:
        checkpoint.load_newest(tmp_path / "checkpoint.pt")
    assert "previous.previous" not in str(error.value)
    assert "move both elsewhere" in str(error.value)


def test_every_damage_is_a_user_error_or_harmless(tmp_path):
    """Truncated files and flipped bits, of today's format with checksums and of that before PyTorch 1.6."""
    path, before = tmp_path / "c.pt", content(3)
    checkpoint.save(path, before)
    whole = path.read_bytes()
    for damaged in (*truncations(whole), *bit_flips(whole, seed=0, count=200)):
        path.write_bytes(damaged)
        try:
            assert same(checkpoint.load(path), before)  # bits between the parts mean nothing
        except UserError as error:
            assert str(path) in str(error)  # noqa: PT017
    torch.save(before, path, _use_new_zipfile_serialization=False)
    whole = path.read_bytes()
    assert same(checkpoint.load(path), before)
    for damaged in (*truncations(whole), *bit_flips(whole, seed=0, count=100)):
        path.write_bytes(damaged)
        try:
            assert isinstance(checkpoint.load(path), dict)
        except UserError as error:
            assert str(path) in str(error)  # noqa: PT017


def test_an_archive_that_claims_more_than_it_holds_is_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(10_000_000))
    with pytest.raises(CheckpointError, match=r"bomb\.pt: damaged.*10000000 bytes of content in a file of"):
        checkpoint.load(path)


def test_an_intact_file_of_another_kind_is_not_called_damaged(tmp_path):
    path = tmp_path / "checkpoint.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("word/document.xml", "text")
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: intact, but not a checkpoint"):
        checkpoint.load_newest(path)
    assert path.exists()
    with pytest.raises(CheckpointError, match="a folder, not a checkpoint"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("limit", [10, 20_000, 401_000])
def test_a_file_that_cannot_be_written_to_the_end_is_one_message(tmp_path, limit):
    """PyTorch's writer reports a full disk, a quota and a limit of the file size as a RuntimeError of its own."""
    path = tmp_path / "c.pt"
    checkpoint.save(path, content(1), keep_previous=True)
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, former[1]))
    try:
        with pytest.raises(UserError, match=r"c\.pt: cannot be written \(.*quota.*\).*Free some disk space"):
            checkpoint.save(path, {"a": torch.zeros(100_000), "b": list(range(1000))}, keep_previous=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert newest_step(path) == 1
    assert os.listdir(tmp_path) == ["c.pt"]  # noqa: PTH208


def test_a_full_disk_is_called_so_and_other_errors_are_not(tmp_path, monkeypatch):
    def fail(message):
        def save(*_):
            raise RuntimeError(message)

        monkeypatch.setattr("torch.save", save)

    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    fail("[enforce fail at inline_container.cc:672] . unexpected pos 666176 vs 666072")
    with pytest.raises(UserError, match="No space left on device"):
        checkpoint.save(tmp_path / "c.pt", content(1))
    fail("CUDA error")
    with pytest.raises(RuntimeError, match="CUDA error"):
        checkpoint.save(tmp_path / "c.pt", content(1))
