"""`frugalseg describe` on small folders: what is written, what is said, and what never stops it."""

import csv
import json
import logging

import numpy as np
import pydicom
import pytest
from nibabel.nifti1 import Nifti1Pair
from PIL import Image

from data.describe.__main__ import main
from dataloaders.catalog import dataset
from dataloaders.io.nifti import write_nifti
from dataloaders.samples import Volume
from util.errors import ConfigError, DataError

RANDOM = np.random.default_rng(0)
AFFINE = np.diag([-1.5, 1.5, 4.0, 1.0])


@pytest.fixture
def describe(tmp_path, caplog):
    """Runs the command on a folder; returns the description, the lines of the table, the draft and what was said."""
    caplog.set_level(logging.INFO)

    def run(folder, *arguments, out="my_set.json5"):
        caplog.clear()
        main([str(folder), "--out", str(tmp_path / "out" / out), "--jobs", "1", *arguments])
        path = tmp_path / "out" / out
        with path.with_suffix(".csv").open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        return dataset(path), rows, path.read_text(encoding="utf-8"), "\n".join(caplog.messages)

    return run


def write_scan(path, seed=0, low=0.0, shape=(6, 20, 24), affine=AFFINE):
    array = np.random.default_rng(seed).normal(100, 40, shape).clip(low).astype(np.float32)
    array[0, 0, 0] = low
    write_nifti(path, Volume(array, affine))


def write_label(path, values, shape=(6, 20, 24), affine=AFFINE):
    array = np.zeros(shape, np.int16)
    for row, value in enumerate(values):
        array[2:4, 2 * row : 2 * row + 2, 4:12] = value
    write_nifti(path, Volume(array, affine))


def write_picture(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def colour_image(shape=(70, 90)):
    return RANDOM.integers(0, 255, (*shape, 3), dtype=np.uint8)


def square_mask(value, shape=(70, 90)):
    array = np.zeros(shape, np.uint8)
    array[10:30, 10:30] = value
    return array


def test_scans_with_odd_values_and_an_unlabelled_one(tmp_path, describe):
    folder = tmp_path / "my scans"
    for number in range(1, 5):
        write_scan(folder / f"imagesTr/liver_{number}_0000.nii.gz", number)
    for number, values in ((1, [7, 205]), (2, [7]), (3, [7, 205])):
        write_label(folder / f"labelsTr/liver_{number}.nii.gz", values)
    spec, rows, draft, said = describe(folder)
    assert (spec.name, spec.kind, spec.modality) == ("my_set", "scans", "")
    assert [(each.name, each.value, each.is_scored) for each in spec.classes] == [
        ("class_7", 7, True),
        ("class_205", 205, True),
    ]
    assert spec.grid.spacing_mm == (4.0, 1.5, 1.5)
    assert (spec.grid.size_px, spec.grid.axis_codes) == (64, "LAS")
    assert spec.intensity.clip_percentile == 99.5
    assert spec.foreground_above is None
    assert spec.n_folds == 3
    assert [row["id"] for row in rows] == ["liver_1", "liver_2", "liver_3", "liver_4"]
    assert rows[0]["image"] == "../my scans/imagesTr/liver_1_0000.nii.gz"
    assert (tmp_path / "out" / rows[0]["label"]).is_file()
    assert rows[3]["label"] == ""
    assert list(rows[0]) == ["id", "image", "label", "patient", "split", "fold", "note"]
    assert "in 2 of 3 labelled cases" in draft
    assert "4 scans, 3 with labels" in said
    assert "class_205: value 205, 0.74 % of voxels, in 2 cases" in said
    assert "7 file(s) found: 7 used, 0 left out." in said


def test_pairs_are_listed_by_their_header(tmp_path, describe):
    folder = tmp_path / "in"
    write_scan(folder / "a.nii.gz")
    write_label(folder / "a_seg.nii.gz", [1])
    for seed, name in enumerate(("b", "c", "mask_of_nothing")):
        array = np.random.default_rng(seed + 5).normal(100, 40, (24, 20, 6)).astype(np.float32)
        Nifti1Pair(array, AFFINE).to_filename(folder / f"{name}.img")
    label = np.zeros((24, 20, 6), np.uint8)
    label[4:12, 2:4, 2:4] = 1
    Nifti1Pair(label, AFFINE).to_filename(folder / "b_seg.img")
    (folder / "half.img").write_bytes(bytes(8))
    (folder / "alone.hdr").write_bytes(bytes(348))
    (folder / "c.hdr.gz").write_bytes(bytes(8))
    _, rows, _, said = describe(folder)
    assert [(row["id"], row["image"], row["label"]) for row in rows] == [
        ("a", "../in/a.nii.gz", "../in/a_seg.nii.gz"),
        ("b", "../in/b.hdr", "../in/b_seg.hdr"),
        ("c", "../in/c.hdr", ""),
    ]
    assert "13 file(s) found: 8 used, 5 left out." in said
    for line in (
        "alone.hdr, half.img: header or voxels",
        "c.hdr.gz: a second header of c.img",
        "mask_of_nothing.hdr: ",
    ):
        assert line in said


def test_names_of_classes_come_from_nnu_nets_dataset_json(tmp_path, describe):
    write_scan(tmp_path / "in/imagesTr/a_1_0000.nii.gz")
    write_label(tmp_path / "in/labelsTr/a_1.nii.gz", [1, 2])
    labels = {"background": 0, "left lung": 1, "heart": 2}
    (tmp_path / "in/dataset.json").write_text(json.dumps({"labels": labels}), encoding="utf-8")
    spec, _, _, said = describe(tmp_path / "in")
    assert spec.class_names == ("background", "left_lung", "heart")
    assert "dataset.json: names of classes were read from it" in said


def test_ct_is_recognised_and_windowed(tmp_path, describe):
    write_scan(tmp_path / "in/a.nii.gz", low=-1024)
    spec, _, draft, _ = describe(tmp_path / "in")
    assert spec.modality == "CT"
    assert spec.intensity.window == (-125, 275)
    assert spec.intensity.normalise_by == "training_scans"
    assert spec.classes == ()
    assert "intensities look like Hounsfield units: lowest about -1024" in draft


@pytest.mark.parametrize(
    ("affine", "codes", "spacing"),
    [
        (np.array([[0, 0, 5.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]), "ASL", (5, 1, 1)),  # slices count to R
        (np.array([[1, 0, 0, 0], [0, 0, 5.0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]), "LSA", (5, 1, 1)),
        (np.eye(4), "LAS", (1, 1, 1)),
    ],
)
def test_the_grid_follows_the_plane_of_the_slices(tmp_path, describe, affine, codes, spacing):
    write_scan(tmp_path / "in/a.nii.gz", affine=affine, shape=(6, 80, 70))
    spec, _, _, _ = describe(tmp_path / "in")
    assert (spec.grid.axis_codes, spec.grid.spacing_mm, spec.grid.size_px) == (codes, spacing, 80)


def test_files_that_are_no_slices_are_noted(tmp_path, describe, write_dicom):
    array = np.random.default_rng(1).integers(0, 900, (4, 8, 8), dtype=np.uint16)
    write_dicom(tmp_path / "in/case1", array)
    header = pydicom.dcmread(write_dicom(tmp_path / "scout", array[:1], ImageType=["A", "B", "LOCALIZER"])[0])
    header.save_as(tmp_path / "in/case1/scout.dcm")
    _, _, _, said = describe(tmp_path / "in")
    assert "in the folder, and no slices of the scan: 1 x localiser (scout.dcm)" in said


def test_dicom_series_with_a_label_and_a_shared_patient(tmp_path, describe, write_dicom):
    for number in (1, 2):
        array = np.random.default_rng(number).integers(-900, 900, (4, 8, 8), dtype=np.int16)
        write_dicom(tmp_path / f"in/case{number}/CT", array, Modality="CT", PatientID="Jane Doe")
    write_label(tmp_path / "in/case1/label.nii.gz", [1], shape=(4, 8, 8))
    spec, rows, draft, said = describe(tmp_path / "in")
    assert spec.modality == "CT"
    assert "the DICOM headers of 2 scan(s) say so" in draft
    assert [(row["id"], row["patient"]) for row in rows] == [("case1", "patient_1"), ("case2", "patient_1")]
    assert rows[0]["label"].endswith("in/case1/label.nii.gz")
    assert "Doe" not in draft + said
    assert "9 file(s) found: 9 used, 0 left out." in said


def test_colour_coded_masks_of_two_annotators(tmp_path, describe):
    codes = np.full((70, 90, 3), (0, 0, 255), np.uint8)
    codes[10:30, 10:30] = 255, 0, 0
    for name in ("p1_a", "p1_b", "p2_a"):
        write_picture(tmp_path / f"in/images/{name}.png", colour_image())
        for reader in ("r1", "r2"):
            write_picture(tmp_path / f"in/masks/{name}_{reader}.png", codes)
    spec, rows, _, said = describe(tmp_path / "in")
    assert [(each.name, each.colour) for each in spec.classes] == [("class_1", (255, 0, 0))]
    assert spec.background_colour == (0, 0, 255)
    assert spec.annotators == "majority"
    assert spec.channels == 3
    assert spec.grid.size_px == 64
    assert rows[0]["label@r2"].endswith("masks/p1_a_r2.png")
    assert [row["patient"] for row in rows] == ["p1", "p1", "p2"]
    assert "guessed from names" in said


def test_binary_masks_with_different_values_become_masks_of_one_structure(tmp_path, describe):
    for number, value in enumerate((1, 255)):
        write_picture(tmp_path / f"in/images/{number}.png", colour_image())
        write_picture(tmp_path / f"in/masks/{number}.png", square_mask(value))
    spec, rows, _, said = describe(tmp_path / "in")
    assert [(each.name, each.value) for each in spec.classes] == [("object", None)]
    assert rows[1]["mask:object"].endswith("masks/1.png")
    assert "not the same in all files (1, 255)" in said


def test_masks_saved_as_jpeg(tmp_path, describe):
    write_picture(tmp_path / "in/a.png", colour_image())
    write_picture(tmp_path / "in/a_mask.jpg", square_mask(255))
    _, rows, _, said = describe(tmp_path / "in")
    assert rows[0]["mask:object"].endswith("a_mask.jpg")
    assert "greys from JPEG compression" in said


def test_parts_become_the_split(tmp_path, describe):
    for part in ("train", "test"):
        write_picture(tmp_path / f"in/{part}/images/1.png", colour_image())
        write_picture(tmp_path / f"in/{part}/masks/1.png", square_mask(1))
    _, rows, draft, _ = describe(tmp_path / "in")
    assert {row["id"]: row["split"] for row in rows} == {"train_images_1": "train", "test_images_1": "test"}
    assert "split:" not in draft


def test_one_name_in_two_formats_is_noted(tmp_path, describe):
    for name in ("a.png", "a.bmp", "b.png"):
        write_picture(tmp_path / "in" / name, RANDOM.integers(0, 255, (70, 90)).astype(np.uint8))
    _, rows, _, report = describe(tmp_path / "in")
    assert len(rows) == 3
    assert "a.bmp and a.png: the same name but for the suffix" in report


def test_duplicates_are_one_patients(tmp_path, describe):
    array = colour_image()
    for name in ("a", "b"):
        write_picture(tmp_path / f"in/{name}.png", array)
    write_picture(tmp_path / "in/c.png", colour_image())
    _, rows, _, said = describe(tmp_path / "in")
    assert [(row["patient"], row["note"]) for row in rows] == [("a", ""), ("a", "identical to a"), ("", "")]
    assert "Identical content: a.png, b.png." in said


def test_images_of_16_bits_and_fractions(tmp_path, describe):
    write_picture(tmp_path / "in/a.png", RANDOM.integers(0, 4000, (70, 90)).astype(np.uint16))
    spec, _, draft, _ = describe(tmp_path / "in")
    assert spec.channels == 1
    assert "more than 8 bits" in draft
    write_picture(tmp_path / "in2/a.tif", RANDOM.normal(500, 100, (70, 90)).astype(np.float32))
    spec, _, _, _ = describe(tmp_path / "in2", out="other.json5")
    assert spec.intensity.window is not None
    assert [each.name for each in spec.classes] == ["object"]  # no label, but a description of images needs a class


def test_one_bad_file_stops_nothing_and_every_file_is_named(tmp_path, describe):
    folder = tmp_path / "in"
    write_scan(folder / "a.nii.gz")
    write_label(folder / "a_seg.nii.gz", [1])
    (folder / "b.nii.gz").write_bytes((folder / "a.nii.gz").read_bytes()[:200])
    for name in ("list.xlsx", "c.mha", ".DS_Store", "Thumbs.db"):
        (folder / name).write_bytes(b"x")
    (folder / "prepared").mkdir()
    (folder / "prepared/manifest.json").write_text("{}", encoding="utf-8")
    (folder / "prepared/image_1.nii.gz").write_bytes(b"")
    (folder / "gone.nii.gz").symlink_to(folder / "nowhere")
    (folder / "loop").symlink_to(folder, target_is_directory=True)
    write_picture(folder / "overview.png", colour_image())
    _, rows, _, said = describe(folder)
    assert len(rows) == 1
    assert "b.nii.gz: cannot be used: truncated" in said
    assert "c.mha: volume format that is not supported" in said
    assert "list.xlsx: neither scan nor image (.xlsx file)" in said
    assert "prepared: a prepared folder" in said
    assert "gone.nii.gz: broken link" in said
    assert "overview.png: belongs to images; there are more scans; --kind images describes these" in said
    assert "9 file(s) found: 2 used, 7 left out. 2 hidden or system file(s) were not counted." in said
    report = (tmp_path / "out/my_set.report.txt").read_text(encoding="utf-8")
    assert "c.mha: volume format" in report


def test_labels_with_another_place_than_their_image_are_noted(tmp_path, describe):
    write_scan(tmp_path / "in/a.nii.gz")
    moved = AFFINE.copy()
    moved[0, 3] = 9
    write_label(tmp_path / "in/a_seg.nii.gz", [1], affine=moved)
    assert "a_seg.nii.gz: 9 mm from the place of a.nii.gz" in describe(tmp_path / "in")[3]


def test_patterns_leave_files_out(tmp_path, describe):
    for name in ("t1", "flair"):
        write_scan(tmp_path / f"in/B_1/B_1_{name}.nii.gz")
    write_label(tmp_path / "in/B_1/B_1_seg.nii.gz", [1])
    _, rows, _, said = describe(tmp_path / "in", "--ignore", "*_t1.nii.gz")
    assert [row["label"].rpartition("/")[2] for row in rows] == ["B_1_seg.nii.gz"]
    assert "B_1/B_1_t1.nii.gz: matches --ignore" in said


def test_an_existing_draft_is_kept(tmp_path, describe):
    write_scan(tmp_path / "in/a.nii.gz")
    describe(tmp_path / "in")
    (tmp_path / "out/my_set.csv").write_text("edited", encoding="utf-8")
    (tmp_path / "out/my_set.json5").unlink()
    with pytest.raises(ConfigError, match=r"my_set\.csv: exists already.*--overwrite"):
        describe(tmp_path / "in")
    assert (tmp_path / "out/my_set.csv").read_text(encoding="utf-8") == "edited"
    describe(tmp_path / "in", "--overwrite")


def test_the_default_name_is_the_folders(tmp_path, monkeypatch):
    write_scan(tmp_path / "CHAOST2/a.nii.gz")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    main([str(tmp_path / "CHAOST2"), "--jobs", "1"])
    assert dataset("CHAOST2_own.json5").name == "CHAOST2_own"  # not that of the built-in set


def test_folders_with_nothing_usable(tmp_path, describe):
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match=r"none of 0 file\(s\) is usable; expected NIfTI files.*Found: nothing"):
        describe(tmp_path / "in")
    (tmp_path / "in/x.nii.gz").write_bytes(b"x")
    with pytest.raises(DataError, match=r"none of 1 file\(s\) is usable.*x\.nii\.gz: cannot be used"):
        describe(tmp_path / "in")
    with pytest.raises(DataError, match="no such folder"):
        describe(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"expected the name of a description, ending in \.json5"):
        main([str(tmp_path / "in"), "--out", "x.txt"])


def test_a_prepared_folder_is_refused(prepared_folder, tmp_path, describe):
    (tmp_path / "prepared").mkdir()
    for name in ("image_1.nii.gz", "manifest.json"):
        (tmp_path / "prepared" / name).write_bytes(b"{}")
    with pytest.raises(DataError, match="this is a prepared folder"):
        describe(tmp_path / "prepared")
