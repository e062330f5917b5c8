"""M&Ms: layouts, both forms of the information sheet, annotated frames, and what is said of patients with faults."""

import numpy as np
import pytest
from openpyxl import Workbook

from data.sources.mms import account, find_scans, read_scan
from data.sources.mms_sheet import find_sheet, read_sheet
from data.sources.raw_scans import RawScan
from dataloaders.catalog import dataset
from dataloaders.io.nifti import write_frames
from dataloaders.samples import Origin, Volume
from util.errors import DataError

MMS = dataset("MMS")

AFFINE = np.diag([-1.2, 1.2, 9.0, 1.0])
SHAPE = (3, 5, 4)  # (D, H, W)
FULL = "External code,VendorName,Vendor,Centre,ED,ES,Age\n"
OLD = "External code,Vendor,Centre,ED,ES\n"


def touch(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


def write_patient(folder, code="A1", labels=None, n_frames=4, shape=SHAPE, truth_affine=AFFINE, value=2):
    """An image, and a ground truth with `value` in the corner of the frames `labels`; None: no ground truth."""
    frames = [Volume(np.full(SHAPE, number, np.int16), AFFINE) for number in range(4)]
    frames[0].array[0, 0, 0] = 9
    write_frames(folder / code / f"{code}_sa.nii.gz", frames)
    if labels is not None:
        truth = [Volume(np.zeros(shape, np.uint8), truth_affine) for _ in range(n_frames)]
        for number in labels:
            truth[number].array[1, 0, 0] = value
        write_frames(folder / code / f"{code}_sa_gt.nii.gz", truth)


def write_sheet(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def the_scan(raw):
    (scan,) = find_scans(raw, MMS)
    return scan


def test_every_folder_of_the_download_is_found(tmp_path):
    touch(tmp_path / "Training/Labeled/A0S9V9", "A0S9V9_sa.nii.gz", "A0S9V9_sa_gt.nii.gz")
    touch(tmp_path / "Training/Unlabeled/B1", "B1_sa.nii.gz")
    touch(tmp_path / "Validation/C2", "C2_sa.nii.gz", "C2_sa_gt.nii.gz")
    touch(tmp_path / "Testing/D10", "D10_sa.nii.gz", "D10_sa_gt.nii.gz")
    touch(tmp_path / "D9", "D9_sa.nii", "D9_sa_gt.nii", "notes.txt")
    touch(tmp_path, "E1_sa_gt.nii.gz")
    rows = (
        "A0S9V9,Siemens,A,1,0,9,50\nB1,GE,C,4,,,\nC2,Philips,B,3,24,9,\nD10,Canon,D,5,0,11,\nD9,Philips,B,2,1.0,2.0,\n"
    )
    write_sheet(tmp_path / "211230_M&Ms_Dataset_information_diagnosis_opendataset.csv", FULL + rows)
    scans = find_scans(tmp_path, MMS)
    assert [scan.id for scan in scans] == ["A0S9V9", "B1", "C2", "D9", "D10"]
    assert [(scan.origin.domain, scan.origin.centre) for scan in scans] == [
        *(("A", "1"), ("C", "4"), ("B", "3"), ("B", "2"), ("D", "5"))
    ]
    assert [dict(scan.frames) for scan in scans] == [
        *({0: "ED", 9: "ES"}, {}, {9: "ES", 24: "ED"}, {1: "ED", 2: "ES"}, {0: "ED", 11: "ES"})
    ]
    assert [scan.is_labelled for scan in scans] == [True, False, True, True, True]
    assert scans[0].origin == Origin("A0S9V9", "", "A", "1")
    assert not any(scan.fault for scan in scans)
    text = account(tmp_path, scans)
    assert "9 used" in text
    assert "1 ground truth without image (E1_sa_gt.nii.gz)" in text


@pytest.mark.parametrize(
    ("vendor", "domain"),
    [
        *(("A", "A"), ("b", "B"), ("Siemens", "A"), ("Philips Medical Systems", "B"), ("GE", "C")),
        *(("GE Healthcare", "C"), ("General Electric", "C"), ("CANON", "D"), ("Vendor D", "D")),
    ],
)
def test_the_older_sheet_has_the_vendor_in_its_second_column(tmp_path, vendor, domain):
    sheet = write_sheet(tmp_path / "sheet.csv", f"{OLD}X1,{vendor},2,3,8\n")
    (line,) = read_sheet(sheet)["x1"]
    assert (line.domain, line.centre, line.labelled_frames()) == (domain, "2", {3: "ED", 8: "ES"})


def test_a_spreadsheet_is_read_like_a_text(tmp_path):
    book = Workbook()
    rows = (("external CODE", "Vendor Name", "Center", "ed", "es"), ("X1", "Canon", 5, 0, 10.0), (None,) * 5)
    for row in rows:
        book.worksheets[0].append(row)
    book.save(tmp_path / "M&Ms Dataset Information.xlsx")
    (line,) = read_sheet(find_sheet([*tmp_path.iterdir()]))["x1"]
    assert (line.domain, line.centre, line.labelled_frames()) == ("D", "5", {0: "ED", 10: "ES"})
    (tmp_path / "damaged.xlsx").write_bytes(b"PK no")
    with pytest.raises(DataError, match=r"damaged\.xlsx"):
        read_sheet(tmp_path / "damaged.xlsx")


def test_an_unknown_sheet_is_refused_with_its_columns(tmp_path):
    touch(tmp_path, "X1_sa.nii.gz")
    with pytest.raises(
        DataError, match=r"no information sheet; expected a CSV or XLSX file with the columns .* no such"
    ):
        find_scans(tmp_path, MMS)
    sheet = write_sheet(tmp_path / "information.csv", "code,scanner\nX1,A\n")
    with pytest.raises(DataError, match=r"columns External code, Vendor.*found .*information\.csv has code, scanner"):
        find_scans(tmp_path, MMS)
    with pytest.raises(
        DataError, match=r"no column centre, ED, ES, vendor; expected External code.*found code, scanner"
    ):
        read_sheet(sheet)
    write_sheet(tmp_path / "information.csv", FULL)
    write_sheet(tmp_path / "information2.csv", FULL)
    with pytest.raises(DataError, match="two information sheets"):
        find_scans(tmp_path, MMS)


def test_a_folder_without_scans_says_what_is_expected(tmp_path):
    with pytest.raises(DataError, match=rf"{tmp_path}; expected Training/Labeled.*README.*frugalseg phantom mms"):
        find_scans(tmp_path, MMS)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("Z9,Siemens,A,1,0,1,\n", r"info.csv: no line on patient A1, whose scan is .*A1_sa\.nii\.gz; expected one"),
        ("A1,Siemens,A,1,0,1,\nA1,Siemens,A,1,0,2,\n", "info.csv: 2 lines that differ on patient A1"),
        ("A1,Siemens,E,1,0,1,\n", "vendor 'E' and 'Siemens' in the information sheet; expected A, B, C or D"),
        ("A1,Siemens,B,1,0,1,\n", "vendor 'B' and 'Siemens'"),
        ("A1,Siemens,A,1,0,0,\n", "ED and ES are both frame 0"),
        ("A1,Siemens,A,1,,1,\n", "ED='' in the information sheet; expected the number of a frame"),
        ("A1,Siemens,A,1,1.5,1,\n", r"ED='1\.5' in"),
    ],
)
def test_a_patient_with_a_wrong_line_is_found_with_the_fault(tmp_path, rows, message):
    touch(tmp_path / "A1", "A1_sa.nii.gz", "A1_sa_gt.nii.gz")
    write_sheet(tmp_path / "info.csv", FULL + rows)
    scan = the_scan(tmp_path)
    assert scan.id == "A1"
    with pytest.raises(DataError, match=message):
        raise DataError(scan.fault)


def test_two_files_of_a_patient_are_a_fault(tmp_path):
    touch(tmp_path / "Training/a1", "a1_sa.nii.gz")
    touch(tmp_path / "Testing/A1", "A1_sa.nii.gz")
    write_sheet(tmp_path / "info.csv", f"{FULL}A1,Siemens,A,1,0,1,\n")
    assert "two files of patient A1; expected one" in the_scan(tmp_path).fault


def test_labels_are_those_of_the_annotated_frames(tmp_path):
    write_patient(tmp_path, labels=(1, 3))
    write_sheet(tmp_path / "info.csv", f"{FULL}A1,Siemens,A,1,1,3,\n")
    cine = read_scan(the_scan(tmp_path), MMS)
    assert len(cine.frames) == 4
    assert [int(frame.array.min()) for frame in cine.frames] == [0, 1, 2, 3]
    assert sorted(cine.labels) == [1, 3]
    assert cine.labels[3].array.dtype == np.uint8
    assert cine.labels[3].array[1, 0, 0] == 2
    assert cine.labels[3].array.sum() == 2


def test_a_patient_without_ground_truth_has_frames_alone(tmp_path):
    write_patient(tmp_path)
    write_sheet(tmp_path / "info.csv", f"{FULL}A1,GE,C,4,,,\n")
    cine = read_scan(the_scan(tmp_path), MMS)
    assert (len(cine.frames), dict(cine.labels)) == (4, {})


@pytest.mark.parametrize(
    ("truth", "frames", "message"),
    [
        (
            {"labels": (0, 3), "n_frames": 3 + 1},
            (0, 4),
            "ES is frame 4 in the information sheet; the scan has 4 frames",
        ),
        ({"labels": (0,), "n_frames": 3}, (0, 1), r"shape \(T, D, H, W\) \(3, 3, 5, 4\), but A1_sa.nii.gz has \(4, 3"),
        ({"labels": (0,), "shape": (3, 5, 3)}, (0, 1), r"\(4, 3, 5, 3\), but"),
        ({"labels": (0, 2)}, (0, 3), r"no label on frame 3 \(ES\); frames with labels: 0, 2"),
        ({"labels": (0, 3), "value": 4}, (0, 3), "label values from 0 to 4; expected 0 to 3"),
    ],
)
def test_a_ground_truth_that_does_not_fit_is_refused(tmp_path, truth, frames, message):
    write_patient(tmp_path, **truth)
    write_sheet(tmp_path / "info.csv", f"{FULL}A1,Siemens,A,1,{frames[0]},{frames[1]},\n")
    with pytest.raises(DataError, match=rf"A1_sa_gt\.nii\.gz: .*{message}"):
        read_scan(the_scan(tmp_path), MMS)


def test_a_ground_truth_elsewhere_in_the_patient_is_taken_as_drawn_on_the_image(tmp_path, caplog):
    write_patient(tmp_path, labels=(0, 1, 3), truth_affine=np.diag([-1.2, 1.2, 12.0, 1.0]))
    write_sheet(tmp_path / "info.csv", f"{FULL}A1,Siemens,A,1,0,3,\n")
    cine = read_scan(the_scan(tmp_path), MMS)
    np.testing.assert_allclose(cine.labels[0].affine, AFFINE)
    assert "6 mm away from the image by its header" in caplog.text
    assert "labels on frames [0, 1, 3]; only [0, 3] are used" in caplog.text


def test_what_is_found_is_plain(tmp_path):
    touch(tmp_path / "A1", "A1_sa.nii.gz")
    write_sheet(tmp_path / "info.csv", f"{FULL}A1,Siemens,A,1,0,1,\n")
    assert the_scan(tmp_path) == RawScan("A1", tmp_path / "A1/A1_sa.nii.gz", (), Origin("A1", "", "A", "1"))
