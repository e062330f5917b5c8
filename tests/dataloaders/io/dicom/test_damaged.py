"""Damaged files: whatever is wrong with them, the reader says so, with bounded memory."""

import tracemalloc

import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, RLELossless

from dataloaders.io.dicom import read_dicom_slices
from dataloaders.io.dicom.frame import one_file
from tests.dataloaders.io.dicom.test_pixels import jpeg_2000, lossless_jpeg
from tests.dataloaders.io.fuzz import bit_flips, truncations
from util.errors import DataError, UserError

ARRAY = np.random.default_rng(0).integers(0, 4096, (2, 24, 20), dtype=np.uint16)
MOST_BYTES = 32 * 2**20


def plain(header):
    return header


def run_length(header):
    header.compress(RLELossless)


def deflate(header):
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


def jpeg(header):
    header.file_meta.TransferSyntaxUID, header.PixelData = JPEGLosslessSV1, encapsulate([lossless_jpeg(ARRAY[0])])


def jpeg2000(header):
    header.file_meta.TransferSyntaxUID, header.PixelData = JPEG2000Lossless, encapsulate([jpeg_2000(ARRAY[0])])


@pytest.mark.parametrize("rewrite", [plain, run_length, deflate, jpeg, jpeg2000])
def test_damaged_files_end_in_a_message(tmp_path, write_dicom, rewrite):
    path, _ = write_dicom(tmp_path, ARRAY)
    header = pydicom.dcmread(path)
    rewrite(header)
    header.save_as(path)
    good = path.read_bytes()
    read_dicom_slices(tmp_path)
    damaged = [*truncations(good, 6), *bit_flips(good, 1, 12), *bit_flips(good, 2, 12, upto=1000)]
    messages = []
    tracemalloc.start()
    for content in damaged:
        path.write_bytes(content)
        try:
            read_dicom_slices(tmp_path)
        except UserError as error:
            messages.append(str(error))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(messages) >= 8  # every truncation, at least
    assert all(str(tmp_path) in message for message in messages)
    assert peak < MOST_BYTES


def test_a_length_of_gigabytes_is_no_reason_to_allocate_them(tmp_path, write_dicom):
    path = write_dicom(tmp_path, ARRAY)[0]
    content = path.read_bytes()
    length = ARRAY[0].nbytes.to_bytes(4, "little")
    place = content.rindex(length + ARRAY[0].tobytes())
    path.write_bytes(content[:place] + (2**32 - 2).to_bytes(4, "little") + content[place + 4 :])
    tracemalloc.start()
    with_result = read_dicom_slices(tmp_path).volume.array
    assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    tracemalloc.stop()
    np.testing.assert_array_equal(with_result, ARRAY)


@pytest.mark.parametrize("error", [TypeError, MemoryError, OverflowError, NotImplementedError, RecursionError])
def test_any_failure_of_a_parser_becomes_a_message(tmp_path, error):
    with (
        pytest.raises(DataError, match=rf"x\.dcm: not a readable DICOM file \({error.__name__}"),
        one_file(tmp_path / "x.dcm"),
    ):
        raise error("secret")
