"""Several slices at one position: copies, and scans that an attribute tells apart."""

import re
import shlex
import shutil

import numpy as np
import pydicom
import pytest
from pydicom.uid import UID

from data.split_dicom import main
from dataloaders.io.dicom import read_dicom_series, read_dicom_slices
from util.errors import DataError, UserError

ARRAY = np.arange(4 * 3 * 5, dtype=np.uint16).reshape(4, 3, 5)


def write_two(folder, write_dicom, first, second, arrays=None):
    """Two stacks at the same positions, as a1.dcm, ... and b1.dcm, ..."""
    for name, array, tags in zip("ab", arrays or (ARRAY, ARRAY + 100), (first, second), strict=True):
        for path in write_dicom(folder / name, array.astype(np.uint16), **tags):
            path.rename(folder / f"{name}{path.name[-5:]}")
        (folder / name).rmdir()


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (
            {"EchoTime": 70},
            {"EchoTime": 120},
            "EchoTime differs: 70 (4 slices, e.g. a1.dcm), 120 (4 slices, e.g. b1.dcm)",
        ),
        ({"DiffusionBValue": 0.0}, {"DiffusionBValue": 800.0}, "DiffusionBValue differs: 0 (4 slices"),
        ({"TriggerTime": 0}, {"TriggerTime": 35.5}, "TriggerTime differs: 0 (4 slices, e.g. a1.dcm), 35.5 (4"),
        ({"TemporalPositionIdentifier": 1}, {"TemporalPositionIdentifier": 2}, "TemporalPositionIdentifier differs"),
        ({"AcquisitionNumber": 1}, {"AcquisitionNumber": 2}, "AcquisitionNumber differs: 1 (4"),
        ({"ImageType": ["O", "P", "IN"]}, {"ImageType": ["O", "P", "OUT"]}, r"ImageType differs: O\P\IN (4"),
        ({}, {"WindowCenter": 40}, "WindowCenter differs: none (4"),
    ],
)
@pytest.mark.parametrize("have_equal_pixels", [True, False])
def test_what_differs_is_named_with_its_values(tmp_path, write_dicom, first, second, expected, have_equal_pixels):
    arrays = (ARRAY, ARRAY if have_equal_pixels else ARRAY + np.uint16(1))
    write_two(tmp_path, write_dicom, first, second, arrays)
    with pytest.raises(DataError, match=re.escape(expected)) as error:
        read_dicom_series(tmp_path)
    assert f"{tmp_path}: 8 slices at 4 positions, 2 at each; expected one." in str(error.value)


def follow_advice(error, out):
    """Runs the command of a message, with another folder for the result."""
    (command,) = re.findall(r"`python -m data\.split_dicom (.*)`", str(error))
    main([str(out) if word == "OUT" else word for word in shlex.split(command)])
    return sorted(path.name for path in out.iterdir())


def test_the_advice_makes_two_scans_of_it(tmp_path, write_dicom):
    folder = tmp_path / "two echoes"
    write_two(folder, write_dicom, {"EchoTime": 70}, {"EchoTime": 120})
    (folder / "notes.txt").write_text("x")
    with pytest.raises(DataError) as error:
        read_dicom_series(folder)
    assert follow_advice(error.value, tmp_path / "out") == ["EchoTime_120", "EchoTime_70"]
    np.testing.assert_array_equal(read_dicom_series(tmp_path / "out/EchoTime_70").array, ARRAY)
    np.testing.assert_array_equal(read_dicom_series(tmp_path / "out/EchoTime_120").array, ARRAY + 100)


def test_the_advice_parts_two_series(tmp_path, write_dicom):
    first, second = {"SeriesNumber": 3, "series": "1.2"}, {"SeriesNumber": 4, "series": "1.3"}
    write_two(tmp_path / "in", write_dicom, first, second)
    with pytest.raises(DataError, match=r"2 DICOM series.*SeriesNumber 3 \(4 slices, e\.g\. a1\.dcm\)") as error:
        read_dicom_series(tmp_path / "in")
    assert follow_advice(error.value, tmp_path / "out") == ["SeriesNumber_3", "SeriesNumber_4"]
    np.testing.assert_array_equal(read_dicom_series(tmp_path / "out/SeriesNumber_3").array, ARRAY)


def test_one_of_several_series_can_be_chosen(tmp_path, write_dicom, caplog):
    first, second = {"SeriesNumber": 3, "series": "1.2"}, {"SeriesNumber": 4, "series": "1.3"}
    write_two(tmp_path, write_dicom, first, second)
    np.testing.assert_array_equal(read_dicom_series(tmp_path, "3").array, ARRAY)
    np.testing.assert_array_equal(read_dicom_series(tmp_path, "4").array, ARRAY + 100)
    assert "slices in 4 files; skipped: 4 x of other series than number 4" in caplog.messages[-1]
    with pytest.raises(DataError, match=r"2 DICOM series.*SeriesNumber 3 .*SeriesNumber 4 .*--series NUMBER"):
        read_dicom_series(tmp_path, "5")


def test_a_single_series_is_read_whatever_its_number(tmp_path, write_dicom):
    write_dicom(tmp_path, ARRAY, SeriesNumber=3)
    np.testing.assert_array_equal(read_dicom_series(tmp_path, "7").array, ARRAY)


def test_two_attributes_together_tell_four_scans_apart(tmp_path, write_dicom):
    for echo in (70, 120):
        for phase in (1, 2):
            tags = {"EchoTime": echo, "TemporalPositionIdentifier": phase}
            for path in write_dicom(tmp_path / "new", ARRAY + np.uint16(echo + phase), **tags):
                path.rename(tmp_path / f"{echo}_{phase}_{path.name}")
    (tmp_path / "new").rmdir()
    expected = r"4 at each; .*EchoTime and TemporalPositionIdentifier differ: 120 and 1 \(4 slices.*--by EchoTime Temp"
    with pytest.raises(DataError, match=expected):
        read_dicom_series(tmp_path)


def test_different_pixels_without_an_attribute_are_refused(tmp_path, write_dicom):
    write_two(tmp_path, write_dicom, {}, {})
    with pytest.raises(DataError, match=r"such as a1\.dcm and b1\.dcm; .*no attribute tells.*export each scan"):
        read_dicom_series(tmp_path)


def test_copies_of_slices_are_skipped_and_counted(tmp_path, write_dicom, caplog):
    paths = write_dicom(tmp_path, ARRAY)
    shutil.copy(paths[1], tmp_path / "again.dcm")
    header = pydicom.dcmread(paths[2])
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = UID("1.2.99")  # sent twice by an archive
    header.save_as(tmp_path / "resent.dcm")
    series = read_dicom_slices(tmp_path)
    np.testing.assert_array_equal(series.volume.array, ARRAY)
    assert "skipped: 2 x copy of another slice (" in caplog.text
    assert len(series.skipped) == 2


def test_equal_air_of_two_echoes_is_no_copy(tmp_path, write_dicom):
    array = ARRAY.copy()
    array[0] = 0
    write_two(tmp_path, write_dicom, {"EchoTime": 70}, {"EchoTime": 120}, (array, np.where(array, array + 1, 0)))
    with pytest.raises(DataError, match="8 slices at 4 positions"):
        read_dicom_series(tmp_path)


def test_splitting_keeps_existing_files_and_needs_a_difference(tmp_path, write_dicom):
    write_dicom(tmp_path / "in", ARRAY, EchoTime=70)
    with pytest.raises(DataError, match=r"EchoTime is the same in all 4 files.*--by"):
        main([str(tmp_path / "in"), "--by", "EchoTime", "--out", str(tmp_path / "out")])
    with pytest.raises(DataError, match="not empty; expected a new folder"):
        main([str(tmp_path / "in"), "--by", "EchoTime", "--out", str(tmp_path / "in")])


def test_values_that_are_no_names_of_folders_stay_within_out(tmp_path, write_dicom):
    write_two(tmp_path / "in", write_dicom, {"SequenceName": "../../x"}, {"SequenceName": "..//..x"})
    main([str(tmp_path / "in"), "--by", "SequenceName", "--out", str(tmp_path / "out")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
    assert [len(list(path.iterdir())) for path in (tmp_path / "out").iterdir()] == [4, 4]


def test_splitting_an_empty_folder_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no DICOM slices"):
        main([str(tmp_path), "--by", "EchoTime", "--out", str(tmp_path / "out")])
