"""Damaged NIfTI files: one kind of error, the right diagnosis, bounded memory."""

import gzip
import tracemalloc

import numpy as np
import pytest
from nibabel.nifti1 import Nifti1Image, Nifti1Pair
from nibabel.nifti2 import Nifti2Image

from dataloaders.io import nifti
from dataloaders.io.nifti import read_nifti
from tests.dataloaders.io.fuzz import bit_flips, truncations
from util.errors import DataError

AFFINE = np.diag([-1.5, 2.0, 4.0, 1.0])
MOST_BYTES = 32 * 2**20  # of memory while a damaged file of some kilobytes is read
ARRAY = (np.arange(20 * 18 * 16) % 251).astype(np.int16).reshape(20, 18, 16)


def encoded(kind, compressed):
    content = kind(ARRAY, AFFINE).to_bytes()
    return gzip.compress(content, mtime=0) if compressed else content


def read_damaged(path, content):
    """The message, or None where the damage does not show."""
    path.write_bytes(content)
    tracemalloc.start()
    try:
        volume = read_nifti(path)
    except DataError as error:
        return str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < MOST_BYTES
    assert np.isfinite(volume.affine).all()
    assert volume.array.ndim == 3
    return None


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", [Nifti1Image, Nifti2Image])
def test_truncated_files_are_called_truncated(tmp_path, kind, compressed):
    for content in truncations(encoded(kind, compressed), 20):
        message = read_damaged(tmp_path / "a.nii.gz", content)
        assert message is not None
        assert "truncated" in message or len(content) < 18


@pytest.mark.parametrize("kind", [Nifti1Image, Nifti2Image])
def test_flipped_bits_in_a_header_give_one_kind_of_error(tmp_path, kind):
    content = encoded(kind, compressed=False)
    messages = [read_damaged(tmp_path / "a.nii", each) for each in bit_flips(content, 3, 200, upto=544)]
    assert 20 < sum(message is not None for message in messages) < 200


def test_flipped_bits_in_a_pair_give_one_kind_of_error(tmp_path):
    Nifti1Pair(ARRAY, AFFINE).to_filename(tmp_path / "a.img")
    content = (tmp_path / "a.hdr").read_bytes()
    messages = [read_damaged(tmp_path / "a.hdr", each) for each in bit_flips(content, 4, 80)]
    assert sum(message is not None for message in messages) > 4


def test_a_compressed_stream_with_flipped_bits_is_never_taken(tmp_path):
    content = encoded(Nifti1Image, compressed=True)
    for damaged in bit_flips(content, 5, 100):
        if damaged[10:] != content[10:]:  # the ten bytes before are name, time and system of the compression
            assert read_damaged(tmp_path / "a.nii.gz", damaged) is not None


def test_noise_is_no_image(tmp_path):
    for content in (b"no image", b"no image " * 99, np.random.default_rng(0).bytes(5000)):
        message = read_damaged(tmp_path / "a.nii", content)
        assert message is not None
        assert ("truncated" in message) == (len(content) < 348)


def test_a_bomb_is_decompressed_as_far_as_its_header_declares(tmp_path):
    content = Nifti1Image(ARRAY, AFFINE).to_bytes() + bytes(100 * 2**20)
    assert read_damaged(tmp_path / "a.nii.gz", gzip.compress(content, 1)) is None


def test_a_compressed_file_that_cannot_hold_what_its_header_declares(tmp_path):
    image = Nifti1Image(np.zeros((1, 1, 1), np.uint8), AFFINE)
    image.header["dim"][1:4] = 3000, 3000, 3000
    content = gzip.compress(image.header.binaryblock + bytes(400), mtime=0)
    message = read_damaged(tmp_path / "a.nii.gz", content)
    assert message is not None
    assert "asks for 3000 x 3000 x 3000 voxels of 1 bytes from byte 352" in message
    assert f"the file has {len(content)} compressed bytes" in message


def test_a_scan_larger_than_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "memory_bytes", lambda: 2**14)
    message = read_damaged(tmp_path / "a.nii", encoded(Nifti1Image, False))
    assert message is not None
    assert "asks for 20 x 18 x 16 voxels of 2 bytes, which need 4.29e-05 GiB" in message
