"""A user's table of scans: how it is read, and what is said of its mistakes."""

import logging
from dataclasses import replace

import numpy as np
import pytest

from data.sources.own_scans import find_scans, read_scan
from data.sources.raw_scans import Annotation, RawScan
from dataloaders.description import ClassSpec, DatasetSpec, FoldRule
from dataloaders.io.nifti import write_nifti
from dataloaders.samples import Origin, Volume
from util.errors import DataError

SPEC = DatasetSpec(
    "mine",
    "scans",
    classes=(ClassSpec("liver", value=100), ClassSpec("tumour", value=2048)),
    files="mine.csv",
    folds=FoldRule(number=2),
)
AFFINE = np.diag([-1.0, -1.0, 3.0, 1.0])


@pytest.fixture
def table(tmp_path):
    """Writes the table and the (empty) files that the tests name."""
    for name in ("a.nii.gz", "b.nii", "labels/a.nii.gz", "labels/t.nii.gz", "dicom/1.dcm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def write(text, encoding="utf-8"):
        (tmp_path / "mine.csv").write_text(text, encoding=encoding)
        return tmp_path / "mine.csv"

    return write


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_every_column_is_read(table, tmp_path, separator):
    lines = [
        "id,image,label,patient,fold,split,note",
        f"P10,{tmp_path}/a.nii.gz, labels/a.nii.gz ,Ann,1,,thick",
        "",
        "P9,dicom,,,,,",
        "P2,b.nii,,,,unused,",
        "x,b.nii,labels/t.nii.gz,Bob,0,,",
    ]
    text = "\r\n".join(lines).replace(",", separator)
    scans = find_scans(table(text, "utf-8-sig"), SPEC)  # as spreadsheets write it
    assert scans == [
        RawScan("P9", tmp_path / "dicom"),
        RawScan("P10", tmp_path / "a.nii.gz", (Annotation(tmp_path / "labels/a.nii.gz"),), Origin("Ann"), 1),
        RawScan("x", tmp_path / "b.nii", (Annotation(tmp_path / "labels/t.nii.gz"),), Origin("Bob"), 0),
    ]
    assert [scan.is_labelled for scan in scans] == [False, True, True]


def test_unused_scans_are_named(table, caplog):
    with caplog.at_level(logging.INFO):
        find_scans(table("id,image,split\na,a.nii.gz,unused\nb,b.nii,\n"), SPEC)
    assert "scans a are not used (column split)" in caplog.text


def test_masks_take_the_place_of_a_label_map(table, tmp_path):
    (scan,) = find_scans(table("id,image,mask:tumour,mask:liver\na,a.nii.gz,labels/t.nii.gz,\n"), SPEC)
    assert scan.annotations == (Annotation(None, {"tumour": tmp_path / "labels/t.nii.gz"}),)
    assert scan.is_labelled


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,image,label\na,a.nii.gz,labels/b.nii.gz\n", r"line 2, column label: labels/b\.nii\.gz: no such file"),
        ("id,image\na,a.nii.gz\na,b.nii\n", r"line 3, column id: 'a' again \(line 2\); expected another id"),
        ("id,image\na,a.nii.gz\nA,b.nii\n", "line 3, column id: 'A' differs from 'a' in upper and lower case only"),
        ("id,image\na/b,a.nii.gz\n", "line 2, column id: 'a/b' holds a slash"),
        ("id,image\n,a.nii.gz\n", "line 2, column id: empty"),
        ("id,image\na,\n", "line 2, column image: empty"),
        ("id,image\na,a.nii.gz,b\n", "line 2: more cells than columns"),
        ("id,image\n", r"mine\.csv: no case"),
        ("", "no column 'id'"),
        ("id,image,lable\n", "column 'lable' is unknown; did you mean label"),
        ("id,image,mask:spleen\n", "column 'mask:spleen' is unknown"),
        ("id,image,image\n", "column 'image' is given twice"),
        ("id,label\n", "no column 'image'"),
        ("id,image,label,mask:liver\n", "either of them"),
        ("id,image,split\na,a.nii.gz,test\n", "line 2, column split: 'test'; expected unused or nothing"),
        ("id,image,fold\na,a.nii.gz,2\n", "line 2, column fold: '2'; expected 0 to 1"),
        ("id,image,fold\na,a.nii.gz,1\n", "column fold has 1, not 0; expected every fold from 0 to 1"),
        (
            "id,image,label,patient,fold\na,a.nii.gz,labels/a.nii.gz,P,0\nb,b.nii,labels/t.nii.gz,P,1\n",
            "line 3, column fold: patient P is in another fold",
        ),
    ],
)
def test_mistakes_are_named_with_their_line(table, text, message):
    with pytest.raises(DataError, match=message):
        find_scans(table(text), SPEC)


def test_all_bad_lines_are_listed_together(table):
    text = "id,image\n" + "".join(f"s{number},missing{number}.nii\n" for number in range(12))
    with pytest.raises(DataError, match=r"12 problem\(s\):\n  line 2.*\n(.*\n)*  and 2 more"):
        find_scans(table(text), SPEC)


def test_a_missing_or_unreadable_table_is_named(table, tmp_path):
    with pytest.raises(DataError, match=r"no\.csv: cannot be read .*Correct `files`"):
        find_scans(tmp_path / "no.csv", SPEC)
    with pytest.raises(DataError, match="not UTF-8"):
        find_scans(table("id,image,note\na,a.nii.gz,übung\n", "latin-1"), SPEC)


def volume(values, dtype: type = np.int16, affine=AFFINE):
    return Volume(np.array(values, dtype).reshape(2, 2, 3), affine)


def write(tmp_path, **volumes):
    paths = {name: tmp_path / f"{name}.nii.gz" for name in volumes}
    for name, one in volumes.items():
        write_nifti(paths[name], one)
    return paths


def test_labels_get_prepared_values_on_the_grid_of_the_image(tmp_path):
    values = [0, 100, 0, 2048, 0, 0, 100, 0, 0, 0, 0, 2048]
    flipped = AFFINE @ np.array([[1, 0, 0, 0], [0, -1, 0, 1], [0, 0, 1, 0], [0, 0, 0, 1]])
    label = volume(np.array(values).reshape(2, 2, 3)[:, ::-1], np.float32, flipped)
    paths = write(tmp_path, image=volume(range(12)), label=label)
    _, found = read_scan(RawScan.with_label("a", paths["image"], paths["label"]), SPEC)
    assert found is not None
    assert found.array.dtype == np.uint8
    expected = np.array([0, 1, 0, 2, 0, 0, 1, 0, 0, 0, 0, 2]).reshape(2, 2, 3)
    np.testing.assert_array_equal(found.array, expected[:, ::-1])  # rows count to the front (LAS)


def test_masks_are_combined_and_warned_of(tmp_path, caplog):
    masks = {"liver": volume([1, 1, *[0] * 10]), "tumour": volume([0, 255, 255, *[0] * 9])}
    paths = write(tmp_path, image=volume(range(12)), **masks)
    _, found = read_scan(RawScan("a", paths["image"], (Annotation(None, {name: paths[name] for name in masks}),)), SPEC)
    assert found is not None
    assert found.array[:, ::-1].ravel()[:4].tolist() == [1, 2, 2, 0]
    assert "scan a: 1 voxels are in several masks" in caplog.text
    read_scan(RawScan("a", paths["image"], (Annotation(None, {"liver": paths["liver"]}),)), SPEC)
    assert "scan a: no mask of tumour" in caplog.text


def test_labels_that_do_not_fit_are_named(tmp_path):
    shifted = AFFINE + np.eye(4, k=3) * 40
    bad = volume([7] * 12)
    paths = write(tmp_path, image=volume(range(12)), elsewhere=volume([0] * 12, affine=shifted), bad=bad)
    with pytest.raises(DataError, match=r"elsewhere\.nii\.gz: a grid of .* 40 mm from the image's.*of image\.nii\.gz"):
        read_scan(RawScan.with_label("a", paths["image"], paths["elsewhere"]), SPEC)
    with pytest.raises(DataError, match=r"bad\.nii\.gz: label value 7 \(12 voxels\).*100 liver, 2048 tumour"):
        read_scan(RawScan.with_label("a", paths["image"], paths["bad"]), SPEC)


def test_annotators_decide_by_majority_or_one_by_name(table, tmp_path):
    text = "id,image,label@ann,label@bob\na,a.nii.gz,labels/a.nii.gz,labels/t.nii.gz\n"
    (both,) = find_scans(table(text), SPEC)
    assert both.annotations == (Annotation(tmp_path / "labels/a.nii.gz"), Annotation(tmp_path / "labels/t.nii.gz"))
    (one,) = find_scans(table(text), replace(SPEC, annotators="bob"))
    assert one.annotations == (Annotation(tmp_path / "labels/t.nii.gz"),)
    with pytest.raises(DataError, match="no label by the annotator 'eve' of the description; found ann, bob"):
        find_scans(table(text), replace(SPEC, annotators="eve"))

    values = [[100, 100, 0, 2048], [100, 2048, 0, 2048], [0, 0, 100, 2048]]
    labels = {name: volume(row + [0] * 8) for name, row in zip("xyz", values, strict=True)}
    paths = write(tmp_path, image=volume(range(12)), **labels)
    annotations = tuple(Annotation(paths[name]) for name in labels)
    _, found = read_scan(RawScan("a", paths["image"], annotations), SPEC)
    assert found is not None
    assert found.array[:, ::-1].ravel()[:4].tolist() == [1, 0, 0, 2]
    _, found = read_scan(RawScan("a", paths["image"], annotations[:2]), SPEC)
    assert found is not None
    assert found.array[:, ::-1].ravel()[:4].tolist() == [1, 0, 0, 2]  # ties are background
