"""Intensities of slices: compression, bits, MONOCHROME1, rescale."""

import re

import imagecodecs
import numpy as np
import pydicom
import pytest
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    MPEG2MPML,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dataloaders.io.dicom import pixels, read_dicom_series
from util.errors import DataError

GENERATOR = np.random.default_rng(0)
ARRAY = GENERATOR.integers(0, 4096, (3, 12, 10), dtype=np.uint16)
SMOOTH = np.broadcast_to(np.linspace(0, 250, 16, dtype=np.uint16), (3, 16, 16))
BITS_12 = {"BitsStored": 12, "HighBit": 11}
BITS_8 = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}


def lossless_jpeg(array):
    return bytes(imagecodecs.jpeg8_encode(array, lossless=True, bitspersample=16))


def jpeg_2000(array):
    return bytes(imagecodecs.jpeg2k_encode(array, codecformat="j2k", reversible=True))


def jpeg_ls(array):
    return imagecodecs.jpegls_encode(array)


EXACT = {
    JPEGLosslessSV1: lossless_jpeg,
    JPEGLossless: lossless_jpeg,
    JPEG2000Lossless: jpeg_2000,
    JPEG2000: jpeg_2000,
    JPEGLSLossless: jpeg_ls,
    JPEGLSNearLossless: jpeg_ls,
}


def compress(path, syntax, encode):
    """Compresses the one frame of a file; returns its codestream."""
    header = pydicom.dcmread(path)
    stream = bytes(encode(header.pixel_array))
    header.file_meta.TransferSyntaxUID = syntax
    header.PixelData = encapsulate([stream])
    header["PixelData"].VR = "OB"
    header.save_as(path)
    return stream


@pytest.mark.parametrize("syntax", EXACT, ids=lambda syntax: syntax.keyword)
def test_lossless_compression_changes_nothing(tmp_path, write_dicom, syntax):
    for path in write_dicom(tmp_path, ARRAY, **BITS_12):
        compress(path, syntax, EXACT[syntax])
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array, ARRAY)


def test_run_length_encoding_changes_nothing(tmp_path, write_dicom):
    for path in write_dicom(tmp_path, ARRAY):
        header = pydicom.dcmread(path)
        header.compress(RLELossless)
        header.save_as(path)
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array, ARRAY)


@pytest.mark.parametrize(
    ("syntax", "bits", "dtype", "encode"),
    [
        (JPEGBaseline8Bit, BITS_8, np.uint8, lambda array: imagecodecs.jpeg8_encode(array, level=95)),
        (JPEGExtended12Bit, BITS_12, np.uint16, lambda array: imagecodecs.jpeg8_encode(array, 95, bitspersample=12)),
    ],
    ids=["8 bits", "12 bits"],
)
def test_lossy_compression_changes_little(tmp_path, write_dicom, syntax, bits, dtype, encode):
    for path in write_dicom(tmp_path, SMOOTH.astype(dtype), **bits):
        compress(path, syntax, encode)
    np.testing.assert_allclose(read_dicom_series(tmp_path).array, SMOOTH, atol=6)


def test_negative_values_survive_compression(tmp_path, write_dicom):
    array = ARRAY.astype(np.int16) - 2000
    for path in write_dicom(tmp_path, array):
        compress(path, JPEGLosslessSV1, lambda slice_: lossless_jpeg(slice_.view(np.uint16)))
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array, array)


def replace_stream(path, stream):
    header = pydicom.dcmread(path)
    header.PixelData = encapsulate([stream])
    header.save_as(path)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless, JPEGLSLossless], ids=lambda each: each.keyword)
def test_compressed_pixels_that_end_early_are_truncated(tmp_path, write_dicom, syntax):
    paths = write_dicom(tmp_path, ARRAY, **BITS_12)
    streams = [compress(path, syntax, EXACT[syntax]) for path in paths]
    replace_stream(paths[1], streams[1][:-20])
    with pytest.raises(DataError, match=rf"{re.escape(str(paths[1]))}: .*truncated.*{syntax.name[:8]}.*Copy it again"):
        read_dicom_series(tmp_path)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEG2000Lossless, JPEGLSLossless], ids=lambda each: each.keyword)
def test_compressed_pixels_of_another_size_are_not_decoded(tmp_path, write_dicom, syntax, monkeypatch):
    paths = write_dicom(tmp_path, ARRAY, **BITS_12)
    for path in paths:
        compress(path, syntax, EXACT[syntax])
    replace_stream(paths[1], bytes(EXACT[syntax](np.zeros((90, 80), np.uint16))))
    with pytest.raises(DataError, match=r"\(90, 80, 1\) rows, columns and colours; expected \(12, 10, 1\)"):
        read_dicom_series(tmp_path)


def test_an_unknown_compression_is_named(tmp_path, write_dicom):
    for path in write_dicom(tmp_path, ARRAY):
        compress(path, MPEG2MPML, lossless_jpeg)
    with pytest.raises(DataError, match="MPEG2"):
        read_dicom_series(tmp_path)


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ({"Rows": 65535, "Columns": 65535}, "65535 Rows, 65535 Columns; expected 1 to 8192"),
        ({"Rows": 0}, "0 Rows"),
        ({"Rows": 4000}, "truncated: 240 bytes of pixels; expected 80000 (4000 x 10)"),
        ({"Columns": None}, "Columns is missing or empty"),
        ({"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "BitsAllocated 1, BitsStored 1"),
        ({"BitsStored": 17}, "BitsAllocated 16, BitsStored 17"),
        ({"BitsStored": 12}, "HighBit is '15'; expected 11"),
        ({"PixelData": None}, "truncated, or without its pixels"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "a colour image (PhotometricInterpretation RGB)"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "a colour image (PhotometricInterpretation PALETTE COLOR)"),
    ],
)
def test_impossible_pixels_are_refused_before_they_are_read(tmp_path, write_dicom, tags, found):
    path = write_dicom(tmp_path, ARRAY[:1], **tags)[0]
    with pytest.raises(DataError, match=re.escape(found)) as error:
        read_dicom_series(tmp_path)
    assert str(path) in str(error.value)


def test_a_scan_of_too_many_voxels_is_refused(tmp_path, write_dicom, monkeypatch):
    write_dicom(tmp_path, ARRAY)
    monkeypatch.setattr("dataloaders.io.dicom.series.MOST_VOXELS", 300)
    with pytest.raises(DataError, match="3 slices of 12 x 10; expected at most 300 voxels"):
        read_dicom_series(tmp_path)


def test_overlays_in_the_high_bits_are_masked(tmp_path, write_dicom):
    write_dicom(tmp_path, ARRAY | np.uint16(0x9000), **BITS_12)
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array, ARRAY)


def test_the_sign_of_twelve_bits_is_kept(tmp_path, write_dicom):
    signed = ARRAY.astype(np.int16) - 2048
    write_dicom(tmp_path, signed & np.int16(0x0FFF), PixelRepresentation=1, **BITS_12)
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array, signed)


@pytest.mark.parametrize(
    ("stored", "tags"),
    [(4095 - ARRAY, BITS_12), (65535 - ARRAY, {}), (-1 - ARRAY.astype(np.int16), {})],
    ids=["12 bits", "16 bits", "signed"],
)
def test_monochrome1_is_turned_round(tmp_path, write_dicom, stored, tags):
    write_dicom(tmp_path, stored, PhotometricInterpretation="MONOCHROME1", RescaleSlope=2, RescaleIntercept=5, **tags)
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array, 2 * ARRAY.astype(int) + 5)


def test_one_inverted_slice_is_turned_round_alone(tmp_path, write_dicom):
    path = write_dicom(tmp_path, ARRAY, **BITS_12)[1]
    header = pydicom.dcmread(path)
    header.PhotometricInterpretation, header.PixelData = "MONOCHROME1", (4095 - ARRAY[1]).tobytes()
    header.save_as(path)
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array, ARRAY)


@pytest.mark.parametrize("is_inverted", [True, False])
def test_hounsfield_units_stay_what_the_rescale_says(tmp_path, write_dicom, is_inverted):
    """MONOCHROME1 of CT may concern the display alone: then the values as stored are those of a body."""
    body = np.where(ARRAY < 2600, 24, 1064).astype(np.uint16)  # air and soft tissue, plus 1024
    stored = 4095 - body if is_inverted else body
    tags = {"PhotometricInterpretation": "MONOCHROME1", "Modality": "CT", "RescaleIntercept": -1024, **BITS_12}
    write_dicom(tmp_path, stored, **tags)
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array, body.astype(int) - 1024)


def test_each_slice_has_its_own_rescale(tmp_path, write_dicom):
    for number, path in enumerate(write_dicom(tmp_path, ARRAY)):
        header = pydicom.dcmread(path)
        header.RescaleSlope, header.RescaleIntercept = number + 1, -number
        header.save_as(path)
    expected = [ARRAY[number] * (number + 1.0) - number for number in range(3)]
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array, expected)


def test_a_rescale_in_some_slices_only_is_refused(tmp_path, write_dicom):
    path = write_dicom(tmp_path, ARRAY)[1]
    header = pydicom.dcmread(path)
    header.RescaleIntercept = -1024
    header.save_as(path)
    with pytest.raises(DataError, match=r"in 1 of 3 slices \(IMG-0001-00002.dcm is unlike most\)"):
        read_dicom_series(tmp_path)


@pytest.mark.parametrize(("tags", "n_warnings"), [({}, 1), ({"RescaleIntercept": -1024}, 0), ({"Modality": "MR"}, 0)])
def test_ct_without_rescale_is_warned_of_with_figures(tmp_path, write_dicom, caplog, tags, n_warnings):
    write_dicom(tmp_path, ARRAY, **{"Modality": "CT", **tags})
    read_dicom_series(tmp_path)
    assert len(caplog.messages) == n_warnings
    expected = f"stored values, {ARRAY.min()} to {ARRAY.max()}, are taken for Hounsfield units"
    assert all(expected in message for message in caplog.messages)


def test_a_lookup_table_replaces_the_rescale(tmp_path, write_dicom):
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 16], np.arange(4095, -1, -1, dtype="<u2").tobytes()
    write_dicom(tmp_path, ARRAY, ModalityLUTSequence=pydicom.Sequence([table]))
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array, 4095 - ARRAY)


def test_every_decoder_is_there():
    assert {syntax.is_compressed for syntax in pixels.DECODERS} == {True}
    assert set(EXACT) | {JPEGBaseline8Bit, JPEGExtended12Bit} <= set(pixels.DECODERS)
