"""Layouts that people have, as tables of names: what belongs together, under which column, and what is not guessed."""

import pytest

from data.describe.columns import arrange_labels, keep_one_annotator
from data.describe.names import choose_ids, guess_patients, parse, safe
from data.describe.pairing import Entry, pair


def image(path, shape=(4, 4), **facts):
    return Entry(path, shape, **facts)


def mask(path, shape=(4, 4), is_binary=True):
    return Entry(path, shape, is_label_like=True, is_surely_label_like=True, is_binary=is_binary)


def arranged(images, labels):
    """Id -> column -> path of the label; then what is left out, path -> reason."""
    entries = [each if isinstance(each, Entry) else image(each) for each in images]
    entries += [each if isinstance(each, Entry) else mask(each) for each in labels]
    pairing = pair(entries)
    table = arrange_labels(pairing)
    ids = choose_ids([entry.path for entry in pairing.images], pairing.names)
    files = {
        id_: {column.heading: path for column, path in row.items()} for id_, row in zip(ids, table.files, strict=True)
    }
    return files, {each.path: each.reason for each in pairing.left_out + table.left_out}


LAYOUTS = {
    "prefixes": (
        ["img0001.nii.gz", "img0002.nii.gz", "img0010.nii.gz"],
        ["label0001.nii.gz", "label0002.nii.gz"],
        {"0001": {"label": "label0001.nii.gz"}, "0002": {"label": "label0002.nii.gz"}, "0010": {}},
    ),
    "suffix": (
        ["case_03.nii.gz", "case_4.nii.gz"],
        ["case_03_seg.nii.gz", "case_4_seg.nii.gz"],
        {"case_03": {"label": "case_03_seg.nii.gz"}, "case_4": {"label": "case_4_seg.nii.gz"}},
    ),
    "nnU-Net": (
        ["imagesTr/liver_1_0000.nii.gz", "imagesTr/liver_2_0000.nii.gz", "imagesTs/liver_3_0000.nii.gz"],
        ["labelsTr/liver_1.nii.gz", "labelsTr/liver_2.nii.gz"],
        {
            "liver_1": {"label": "labelsTr/liver_1.nii.gz"},
            "liver_2": {"label": "labelsTr/liver_2.nii.gz"},
            "liver_3": {},
        },
    ),
    "folder per patient": (
        ["P01/t2.nii.gz", "P02/t2.nii.gz", "P03/t2.nii.gz"],
        ["P01/mask.nii.gz", "P02/mask.nii.gz"],
        {"P01": {"label": "P01/mask.nii.gz"}, "P02": {"label": "P02/mask.nii.gz"}, "P03": {}},
    ),
    "two folders": (
        ["ISIC_Data/ISIC_0000000.jpg", "ISIC_Data/ISIC_0000001.jpg"],
        ["ISIC_GroundTruth/ISIC_0000000_segmentation.png", "ISIC_GroundTruth/ISIC_0000001_segmentation.png"],
        {
            "ISIC_0000000": {"label": "ISIC_GroundTruth/ISIC_0000000_segmentation.png"},
            "ISIC_0000001": {"label": "ISIC_GroundTruth/ISIC_0000001_segmentation.png"},
        },
    ),
    "images in a folder of segmentations": (
        ["A. Segmentation/1. Original Images/x.jpg"],
        [
            "A. Segmentation/2. Groundtruths/2. Optic Disc/x_OD.tif",
            "A. Segmentation/2. Groundtruths/1. Cup/x_C.tif",
        ],
        {
            "x": {
                "mask:Cup": "A. Segmentation/2. Groundtruths/1. Cup/x_C.tif",
                "mask:Optic_Disc": "A. Segmentation/2. Groundtruths/2. Optic Disc/x_OD.tif",
            }
        },
    ),
    "structure folders": (
        ["images/x.png", "images/y.png"],
        ["masks/lung/x.png", "masks/heart/x.png", "masks/lung/y.png"],
        {
            "x": {"mask:heart": "masks/heart/x.png", "mask:lung": "masks/lung/x.png"},
            "y": {"mask:lung": "masks/lung/y.png"},
        },
    ),
    "structure suffixes, no word for label": (
        ["x.png", "y.png"],
        ["x_lung.png", "x_heart.png", "y_lung.png"],
        {"x": {"mask:heart": "x_heart.png", "mask:lung": "x_lung.png"}, "y": {"mask:lung": "y_lung.png"}},
    ),
    "a folder of masks per patient": (
        ["s0001/ct.nii.gz", "s0002/ct.nii.gz"],
        ["s0001/segmentations/liver.nii.gz", "s0001/segmentations/spleen.nii.gz", "s0002/segmentations/liver.nii.gz"],
        {
            "s0001": {
                "mask:liver": "s0001/segmentations/liver.nii.gz",
                "mask:spleen": "s0001/segmentations/spleen.nii.gz",
            },
            "s0002": {"mask:liver": "s0002/segmentations/liver.nii.gz"},
        },
    ),
    "annotators by suffix": (
        ["x.png", "y.png"],
        ["x_seg_r1.png", "x_seg_r2.png", "y_seg_r1.png"],
        {"x": {"label@r1": "x_seg_r1.png", "label@r2": "x_seg_r2.png"}, "y": {"label@r1": "y_seg_r1.png"}},
    ),
    "annotators by folder": (
        ["images/x.png"],
        ["annotator1/x.png", "annotator2/x.png"],
        {"x": {"label@annotator1": "annotator1/x.png", "label@annotator2": "annotator2/x.png"}},
    ),
    "annotators of structures": (
        ["images/x.png"],
        ["masks/lung/r1/x.png", "masks/lung/r2/x.png", "masks/heart/r1/x.png"],
        {
            "x": {
                "mask:heart@r1": "masks/heart/r1/x.png",
                "mask:lung@r1": "masks/lung/r1/x.png",
                "mask:lung@r2": "masks/lung/r2/x.png",
            }
        },
    ),
    "words for the role tell structures apart": (
        ["images/21_training.tif", "images/22_training.tif"],
        [
            "1st_manual/21_manual1.gif",
            "mask/21_training_mask.gif",
            "1st_manual/22_manual1.gif",
            "mask/22_training_mask.gif",
        ],
        {
            "21": {"mask:manual": "1st_manual/21_manual1.gif", "mask:mask": "mask/21_training_mask.gif"},
            "22": {"mask:manual": "1st_manual/22_manual1.gif", "mask:mask": "mask/22_training_mask.gif"},
        },
    ),
    "the longer name counts": (
        ["t2s.nii.gz", "t2s_uncropped.nii.gz"],
        ["t2s_seg.nii.gz", "t2s_gmseg_manual.nii.gz", "t2s_uncropped_gmseg_manual.nii.gz"],
        {
            "t2s": {"mask:gm": "t2s_gmseg_manual.nii.gz", "mask:seg": "t2s_seg.nii.gz"},
            "t2s_uncropped": {"mask:gm": "t2s_uncropped_gmseg_manual.nii.gz"},
        },
    ),
    "equal names in parts": (
        ["train/images/1.png", "test/images/1.png"],
        ["train/masks/1.png", "test/masks/1.png"],
        {"test_images_1": {"label": "test/masks/1.png"}, "train_images_1": {"label": "train/masks/1.png"}},
    ),
    "folder of a DICOM series": (
        [image("P01/T2", (9, 4, 4), is_folder=True), image("P02/T2", (9, 4, 4), is_folder=True)],
        [mask("P01/label.nii.gz", (9, 4, 4))],
        {"P01": {"label": "P01/label.nii.gz"}, "P02": {}},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_labels_find_their_images(layout):
    images, labels, expected = LAYOUTS[layout]
    assert arranged(images, labels) == (expected, {})


NOT_GUESSED = {
    "several images fit": (
        ["B_1/B_1_t1.nii.gz", "B_1/B_1_flair.nii.gz"],
        ["B_1/B_1_seg.nii.gz"],
        {"B_1/B_1_seg.nii.gz": "fits 2 images equally well"},
    ),
    "no image": (
        ["P01/slice_1.png", "P02/slice_1.png"],
        ["P03/slice_1_mask.png"],
        {"P03/slice_1_mask.png": "no image has"},
    ),
    "another number": (["P01/slice_1.png"], ["P01/slice_9_mask.png"], {"P01/slice_9_mask.png": "no image has"}),
    "another part": (["train/images/1.png"], ["test/masks/1.png"], {"test/masks/1.png": "no image has"}),
    "another size": (["x.png"], [mask("x_mask.png", (5, 4))], {"x_mask.png": "size 5 x 4; expected 4 x 4 as x.png"}),
    "no label but named so": (["x.png", image("y_mask.png", content="200 values")], [], {"y_mask.png": "200 values"}),
    "like a label without image": (["x.png"], ["other.png"], {"other.png": "looks like a label map; no image"}),
    "second objects": (
        ["b (1).png", "b (2).png", "b (3).png"],
        ["b (1)_mask.png", "b (2)_mask.png", "b (3)_mask.png", "b (2)_mask_1.png"],
        {"b (2)_mask_1.png": "a further mask that only some images have"},
    ),
    "further channels": (
        ["imagesTr/a_1_0000.nii.gz", "imagesTr/a_1_0001.nii.gz"],
        ["labelsTr/a_1.nii.gz"],
        {"imagesTr/a_1_0001.nii.gz": "a further channel"},
    ),
    "masks next to label maps": (
        ["x.png"],
        [mask("x_all_label.png", is_binary=False), "x_lung_label.png"],
        {"x_lung_label.png": "a mask next to label maps of several classes"},
    ),
    "single objects": (
        ["a/images/a.png", "b/images/b.png"],
        [f"{case}/masks/{case}{number}x.png" for case in "ab" for number in range(20)],
        {f"{case}/masks/{case}{number}x.png": "one of many masks" for case in "ab" for number in range(20)},
    ),
}


@pytest.mark.parametrize("layout", NOT_GUESSED)
def test_what_is_ambiguous_is_left_out_with_the_reason(layout):
    images, labels, expected = NOT_GUESSED[layout]
    _, left_out = arranged(images, labels)
    assert left_out.keys() == expected.keys()
    for path, reason in expected.items():
        assert reason in left_out[path]


def test_volumes_may_store_their_axes_in_another_order():
    files, left_out = arranged([image("a.nii", (3, 4, 5))], [mask("a_seg.nii", (5, 4, 3))])
    assert files == {"a": {"label": "a_seg.nii"}}
    assert left_out == {}


def test_one_structure_gives_a_hint():
    pairing = pair(
        [image("images/01.png"), image("images/02.png"), mask("masks/01_lesion.png"), mask("masks/02_lesion.png")]
    )
    assert arrange_labels(pairing).hint == "lesion"


def test_scans_keep_the_annotator_with_most_files():
    entries = [image("x.nii"), image("y.nii"), mask("x_seg_r1.nii"), mask("x_seg_r2.nii"), mask("y_seg_r2.nii")]
    table = arrange_labels(pair(entries))
    keep_one_annotator(table)
    assert [list(row.values()) for row in table.files] == [["x_seg_r2.nii"], ["y_seg_r2.nii"]]
    assert [column.heading for column in table.columns] == ["label"]
    assert [each.path for each in table.left_out] == ["x_seg_r1.nii"]


@pytest.mark.parametrize(
    ("path", "role", "core", "place"),
    [
        ("labelsTr/case_0001.nii.gz", "label", ("case", "0001"), ()),
        (
            "ISIC-2017_Training_Part1_GroundTruth/ISIC_1_segmentation.png",
            "label",
            ("ISIC", "1"),
            ("ISIC", "2017", "Part1"),
        ),
        ("images/x_mask.png", "label", ("x",), ()),
        ("Segmentation/images/x.png", "image", ("x",), ()),
        ("BraTS_1/T2SPIR.nii", None, ("T2SPIR",), ("BraTS", "1")),
        ("gmseg.nii", "label", ("gm",), ()),
    ],
)
def test_what_a_path_says(path, role, core, place):
    name = parse(path)
    assert (name.role, name.core, name.place) == (role, core, place)


@pytest.mark.parametrize(
    ("paths", "ids"),
    [
        (["Ünï (1).png", "Ünï (2).png"], ["Uni_1", "Uni_2"]),
        (["扫描一.png", "扫描二.png"], ["case", "case_2"]),
        (["a/x.png", "a/X.png"], ["a_x", "a_X_2"]),
        (["img.png", "scan.png"], ["img", "scan"]),
    ],
)
def test_ids_are_safe_and_unique(paths, ids):
    assert choose_ids(paths, [parse(path) for path in paths]) == ids


def test_ids_are_short():
    assert len(safe("x" * 300)) == 60


@pytest.mark.parametrize(
    ("paths", "patients"),
    [
        (["P01/a.png", "P01/b.png", "P02/a.png"], ["P01", "P01", "P02"]),
        (["sub-01_ses-1.nii", "sub-01_ses-2.nii", "sub-02_ses-1.nii"], ["sub_01", "sub_01", "sub_02"]),
        (["A12_slice3.png", "A12_slice4.png", "B7_slice3.png"], ["A12", "A12", "B7"]),
        (["ISIC_1.png", "ISIC_2.png"], ["", ""]),
        (["CXR_0001_0.png", "CXR_0002_1.png"], ["", ""]),
        (["P01/a.png", "P02/a.png"], ["", ""]),  # one image each: the id is the patient
        ([], []),
    ],
)
def test_patients_are_guessed_where_several_cases_share_one(paths, patients):
    assert guess_patients([parse(path) for path in paths]) == patients
