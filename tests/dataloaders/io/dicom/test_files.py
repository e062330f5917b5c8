"""Which files of a folder are read as slices, and which are skipped and counted."""

import logging
import re

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ImplicitVRLittleEndian,
    MediaStorageDirectoryStorage,
    SecondaryCaptureImageStorage,
)

from dataloaders.io.dicom import files, read_dicom_series, read_dicom_slices
from util.errors import DataError

ARRAY = np.arange(4 * 3 * 5, dtype=np.uint16).reshape(4, 3, 5)
WITHOUT_PIXELS = {
    "Media Storage Directory": MediaStorageDirectoryStorage,
    "Basic Text SR": "1.2.840.10008.5.1.4.1.1.88.11",
    "Grayscale Softcopy Presentation State": "1.2.840.10008.5.1.4.1.1.11.1",
    "Key Object Selection Document": "1.2.840.10008.5.1.4.1.1.88.59",
    "RT Structure Set": "1.2.840.10008.5.1.4.1.1.481.3",
    "Encapsulated PDF": "1.2.840.10008.5.1.4.1.1.104.1",
}


def change(path, target=None, **tags):
    """Changes attributes of a file, None removes them; saves it there or elsewhere."""
    header = pydicom.dcmread(path)
    for name, value in tags.items():
        if value is None:
            delattr(header, name)
        else:
            setattr(header, name, value)
    if "SOPClassUID" in tags:
        header.file_meta.MediaStorageSOPClassUID = UID(tags["SOPClassUID"])
    header.save_as(target or path)


def expect_skipped(folder, caplog, *described):
    """The four slices are read, and one line of the log counts what is skipped."""
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        series = read_dicom_slices(folder)
    np.testing.assert_array_equal(series.volume.array, ARRAY)
    (line,) = caplog.messages
    assert line.startswith(f"{folder}: slices in 4 files; skipped: ")
    assert all(each in line for each in described), line
    return series


def test_files_without_slices_are_counted_by_kind(tmp_path, write_dicom, caplog):
    first = write_dicom(tmp_path, ARRAY)[0]
    for number, uid in enumerate(WITHOUT_PIXELS.values()):
        change(first, tmp_path / f"OTHER{number}", SOPClassUID=uid, PixelData=None)
    change(first, tmp_path / "mask.dcm", SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    change(first, tmp_path / "nameless.dcm", SOPClassUID="1.2.3.4", Modality="RTSTRUCT")
    kinds = [f"1 x {kind} (OTHER" for kind in WITHOUT_PIXELS]
    series = expect_skipped(tmp_path, caplog, *kinds, "1 x Segmentation (mask.dcm)", "1 x RTSTRUCT (nameless.dcm)")
    assert len(series.skipped) == len(WITHOUT_PIXELS) + 2


def test_other_programs_files_are_counted_and_hidden_ones_not_read(tmp_path, write_dicom, caplog):
    for path in write_dicom(tmp_path, ARRAY):
        path.rename(path.with_suffix(""))
    for name in ("notes.txt", "preview.jpg", "VERSION"):
        (tmp_path / name).write_text("not an image " * 30)
    (tmp_path / "._IMG-0001-00001.dcm").write_bytes(b"\0\x05\x16\x07" * 99)
    expect_skipped(tmp_path, caplog, "3 x non-DICOM (VERSION, notes.txt, preview.jpg)")


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"not an image " * 30])
def test_a_damaged_file_among_files_named_like_it_is_not_skipped(tmp_path, write_dicom, content):
    for path in write_dicom(tmp_path, ARRAY):
        path.rename(path.with_suffix(""))
    (tmp_path / "IMG-0001-00004").write_bytes(content)
    with pytest.raises(DataError, match=rf"IMG-0001-00004: not a readable.*{len(content)} bytes.*Copy it again"):
        read_dicom_series(tmp_path)


def test_screenshots_and_localisers_are_skipped(tmp_path, write_dicom, caplog):
    first = write_dicom(tmp_path, ARRAY)[0]
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    no_place = dict.fromkeys(("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"))
    change(first, tmp_path / "shot.dcm", SOPClassUID=SecondaryCaptureImageStorage, **colour, **no_place)
    change(first, tmp_path / "scout.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], Rows=5, Columns=3)
    change(first, tmp_path / "plan.dcm", SeriesDescription="3-plane Loc", ImageOrientationPatient=[0, 1, 0, 0, 0, -1])
    expect_skipped(tmp_path, caplog, "1 x secondary capture (shot.dcm)", "2 x localiser (scout.dcm, plan.dcm)")


@pytest.mark.parametrize("tags", [{"SeriesInstanceUID": "9.8"}, {"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}])
def test_few_slices_of_another_size_and_series_or_plane_are_skipped(tmp_path, write_dicom, caplog, tags):
    first = write_dicom(tmp_path, ARRAY)[0]
    change(first, tmp_path / "other.dcm", Rows=5, Columns=3, **tags)
    expect_skipped(tmp_path, caplog, "of another size and series or plane than the 4 slices of 3 x 5 (other.dcm)")


def test_captures_with_geometry_are_a_scan(tmp_path, write_dicom):
    for path in write_dicom(tmp_path, ARRAY):
        change(path, SOPClassUID=SecondaryCaptureImageStorage)
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array, ARRAY)


def test_a_folder_without_slices_says_what_it_holds(tmp_path, write_dicom):
    for path in write_dicom(tmp_path, ARRAY):
        change(path, SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    with pytest.raises(DataError, match=r"no DICOM slices; found 4 x Segmentation.*label maps in NIfTI"):
        read_dicom_series(tmp_path)


def without_preamble(path):
    path.write_bytes(path.read_bytes()[132:])


def without_meta(path):
    header = pydicom.dcmread(path)
    header.file_meta, header.preamble = FileMetaDataset(), None
    header.save_as(path, implicit_vr=False, little_endian=True)


def deflated(path):
    header = pydicom.dcmread(path)
    header.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    header.save_as(path)


@pytest.mark.parametrize("rewrite", [without_preamble, without_meta, deflated])
def test_other_ways_to_store_a_file_are_read(tmp_path, write_dicom, rewrite):
    for path in write_dicom(tmp_path, ARRAY):
        rewrite(path)
        assert files.is_dicom_file(path)
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array, ARRAY)


def test_a_file_that_inflates_without_end_is_refused(tmp_path, write_dicom, monkeypatch):
    path = write_dicom(tmp_path, np.zeros((2, 64, 64), np.uint16))[0]
    deflated(path)
    monkeypatch.setattr(files, "MOST_INFLATED", 4096)
    with pytest.raises(DataError, match=re.escape(f"{path}: inflates to more than 4096 bytes")):
        read_dicom_series(tmp_path)


def write_enhanced(path, source, array):
    """One multi-frame file: position and echo per frame, orientation and pixel size shared."""
    header = pydicom.dcmread(source)
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    frames = []
    for number in range(len(array)):
        position, echo, frame = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [0, 0, 8 * number]
        echo.EffectiveEchoTime = 70.0
        frame.PlanePositionSequence, frame.MREchoSequence = Sequence([position]), Sequence([echo])
        frames.append(frame)
    plane, measures, values, shared = Dataset(), Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient, measures.PixelSpacing = header.ImageOrientationPatient, header.PixelSpacing
    values.RescaleSlope, values.RescaleIntercept = 2, -10
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = Sequence([plane]), Sequence([measures])
    shared.PixelValueTransformationSequence = Sequence([values])
    header.PerFrameFunctionalGroupsSequence = Sequence(frames)
    header.SharedFunctionalGroupsSequence = Sequence([shared])
    header.NumberOfFrames, header.PixelData = len(array), array.tobytes()
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(header, name)
    header.save_as(path)
    return header


def test_an_enhanced_multi_frame_file_is_a_scan(tmp_path, write_dicom):
    source = write_dicom(tmp_path / "source", ARRAY[:1])[0]
    (tmp_path / "scan").mkdir()
    write_enhanced(tmp_path / "scan/all.dcm", source, ARRAY)
    volume = read_dicom_series(tmp_path / "scan")
    np.testing.assert_array_equal(volume.array, 2 * ARRAY.astype(int) - 10)
    assert volume.spacing_mm == pytest.approx((8, 1.5, 2))


def test_frames_of_two_echoes_are_told_apart(tmp_path, write_dicom):
    source = write_dicom(tmp_path / "source", ARRAY[:1])[0]
    (tmp_path / "scan").mkdir()
    header = write_enhanced(tmp_path / "scan/all.dcm", source, ARRAY)
    for number, frame in enumerate(header.PerFrameFunctionalGroupsSequence):
        frame.PlanePositionSequence[0].ImagePositionPatient = [0, 0, 8 * (number // 2)]
        frame.MREchoSequence[0].EffectiveEchoTime = (70.0, 120.0)[number % 2]
    header.save_as(tmp_path / "scan/all.dcm")
    with pytest.raises(DataError, match=r"EffectiveEchoTime differs: 70 \(2 .*frame 1\), 120 .*export each"):
        read_dicom_series(tmp_path / "scan")


@pytest.mark.parametrize("n_frames", [3, 10**9])
def test_a_wrong_number_of_frames_is_named(tmp_path, write_dicom, n_frames):
    source = write_dicom(tmp_path / "source", ARRAY[:1])[0]
    (tmp_path / "scan").mkdir()
    header = write_enhanced(tmp_path / "scan/all.dcm", source, ARRAY)
    header.NumberOfFrames = n_frames
    header.save_as(tmp_path / "scan/all.dcm")
    with pytest.raises(DataError, match=f"{n_frames} frames, 4 of them with a position"):
        read_dicom_series(tmp_path / "scan")


def test_implicit_files_are_read(tmp_path, write_dicom):
    for path in write_dicom(tmp_path, ARRAY):
        header = pydicom.dcmread(path)
        header.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
        header.save_as(path)
    np.testing.assert_array_equal(read_dicom_series(tmp_path).array, ARRAY)


def test_no_name_of_the_patient_is_written(tmp_path, write_dicom, caplog, recwarn):
    private = {"PatientName": "Doe^Jane", "PatientID": "MRN-4711" + "x" * 90, "PatientBirthDate": "19700101"}
    paths = write_dicom(tmp_path, ARRAY, **private)
    change(paths[0], tmp_path / "copy.dcm")
    change(paths[0], tmp_path / "report.dcm", SOPClassUID=WITHOUT_PIXELS["Basic Text SR"], PixelData=None)
    with caplog.at_level(logging.DEBUG):
        read_dicom_series(tmp_path)
        change(paths[1], PixelSpacing=None)
        with pytest.raises(DataError) as error:
            read_dicom_series(tmp_path)
    said = f"{caplog.text} {error.value} {[str(each.message) for each in recwarn]}"
    assert not any(secret in said for secret in ("Doe", "Jane", "4711", "1970", "1.2.3.")), said
