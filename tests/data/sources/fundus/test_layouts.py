"""Raw layouts of the fundus photographs: what is found, how masks are read, how the images are split."""

import logging
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from data.phantom import make_image, write_phantom
from data.phantom.writers.fundus import FUNDUS_RAW
from data.sources.fundus import FUNDUS_SOURCES
from data.sources.mask_files import unite_masks
from dataloaders.catalog import dataset
from util.errors import ConfigError, DataError

SIZE, N = 48, 6
NAMES = tuple(FUNDUS_RAW)


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    """A small download of each set; tests must not change them."""
    folders = {name: tmp_path_factory.mktemp(name) for name in NAMES}
    for name, folder in folders.items():
        write_phantom(name, folder, N, SIZE)
    return folders


@pytest.fixture
def download(tmp_path):
    """Writes a download of its own for a test that damages it."""

    def write(name, n=4):
        write_phantom(name, tmp_path, n, SIZE)
        return tmp_path

    return write


def source(name):
    return FUNDUS_SOURCES[dataset(name).name](dataset(name))


def masks_of(name, raw, shape):
    return (source(name).read_masks or unite_masks)(raw, shape)


def splits(name, images):
    return Counter(next(iter(source(name).split_rules.values()))(images).values())


def inventory(caplog):
    (message,) = (text for text in caplog.messages if "files found" in text)
    return message


IDS = {
    "ddr": ["007-0001-000", "007-0002-000", "007-0003-000", "007-0004-000", "007-0005-000", "007-0006-000"],
    "idrid": ["IDRiD_01", "IDRiD_02", "IDRiD_03", "IDRiD_04", "IDRiD_55", "IDRiD_56"],
    "refuge": ["g0001", "g0002", "n0001", "n0002", "T0001", "V0001"],
    "reta": ["IDRiD_01", "IDRiD_02", "IDRiD_03", "IDRiD_04"],
    "drive": ["01_test", "02_test", "03_test", "21_training", "22_training", "23_training"],
    "stare": ["im0001", "im0002", "im0003", "im0004", "im0005", "im0044"],
    "aria": ["aria_a_1_1", "aria_a_2_1", "aria_c_1_1", "aria_c_2_1", "aria_d_1_1", "aria_d_2_1"],
}
SPLITS = {
    "ddr": {"train": 4, "validation": 1, "test": 1},
    "idrid": {"train": 4, "test": 2},
    "refuge": {"train": 4, "validation": 1, "test": 1},
    "reta": {"train": 4},
    "drive": {"train": 3, "test": 3},
    "stare": {"test": 6},
    "aria": {"test": 6},
}
LEFT_OUT = {
    "ddr": "1 left out",
    "idrid": "1 left out",
    "refuge": "1 left out",
    "reta": "2 images without a mask of vessels, which the authors withhold for the test part",
    "drive": "3 vessels of the second observer",
    "stare": "6 vessels of the observer AH (labels-ah/im0001.ah.ppm.gz",
    "aria": "6 vessels of the observer BDP (aria_a_markup_vessel/aria_a_1_1_BDP.tif",
}


@pytest.mark.parametrize("name", NAMES)
def test_every_image_is_found_with_its_masks_and_its_split(name, downloads, caplog):
    caplog.set_level(logging.INFO)
    images = source(name).find(downloads[name])
    assert [image.id for image in images] == IDS[name]
    assert splits(name, images) == SPLITS[name]
    assert all(tuple(image.masks) == dataset(name).class_names[1:] for image in images)
    assert LEFT_OUT[name] in inventory(caplog)


@pytest.mark.parametrize("name", NAMES)
def test_masks_and_pictures_are_those_that_were_drawn(name, downloads):
    made = source(name)
    drawn = make_image(name, 0, size_px=SIZE)
    first = "21_training" if name == "drive" else IDS[name][0]
    raw = next(image for image in made.find(downloads[name]) if image.id == first)
    picture = made.read(raw.image)
    assert picture.shape == drawn.image.shape
    assert np.abs(picture.astype(int) - drawn.image).mean() < 4  # JPEG
    masks = masks_of(name, raw, picture.shape[:2])
    assert set(masks) == set(dataset(name).class_names[1:])
    for structure, (mask, n_grey) in masks.items():
        assert n_grey == 0
        expected = drawn.masks[structure]
        if structure in ("EX", "HE", "SE"):  # painted over by later ones
            assert not (mask & ~expected).any()
        else:
            np.testing.assert_array_equal(mask, expected)


def test_patients_of_reta_are_images_of_idrid(downloads):
    reta, idrid = ({image.id: image for image in source(name).find(downloads[name])} for name in ("reta", "idrid"))
    assert {image.origin.patient for image in reta.values()} == {f"IDRiD_0{n}" for n in range(1, 5)}
    assert all(idrid[id_].origin == reta[id_].origin for id_ in reta)


def test_domains_are_groups_of_patients_and_cameras(downloads):
    aria, refuge = (source(name).find(downloads[name]) for name in ("aria", "refuge"))
    assert Counter(image.origin.domain for image in aria) == {"AMD": 2, "Control": 2, "Diabetic": 2}
    assert {image.id[0]: image.origin.domain for image in refuge} == {
        **{"g": "Zeiss", "n": "Zeiss"},
        **{"V": "Canon", "T": "Canon"},
    }


def test_a_field_of_view_comes_with_drive_alone(downloads):
    assert all(image.field and image.field in image.files for image in source("drive").find(downloads["drive"]))
    assert all(image.field is None for image in source("stare").find(downloads["stare"]))


def test_all_images_of_drive_may_be_tested(downloads):
    made = source("drive")
    assert set(made.split_rules["all_test"](made.find(downloads["drive"])).values()) == {"test"}


@pytest.mark.parametrize(("name", "observer", "count"), [("stare", "AH", 6), ("aria", "BDP", 6)])
def test_the_description_chooses_the_observer(name, observer, count, downloads):
    images = FUNDUS_SOURCES[dataset(name).name](replace(dataset(name), annotators=observer)).find(downloads[name])
    assert len(images) == count
    assert all(observer.lower() in image.masks["vessel"][0].name.lower() for image in images)
    with pytest.raises(ConfigError, match=r"annotators='majority'.*expected the observer .* one of .*BSS|VK"):
        FUNDUS_SOURCES[dataset(name).name](replace(dataset(name), annotators="majority"))


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_folder_says_what_is_expected(name, tmp_path):
    with pytest.raises(DataError, match=rf"{dataset(name).name}: no .* under .*expected files such as .*--raw"):
        source(name).find(tmp_path)


# --- missing files


def test_a_missing_file_of_a_lesion_means_none(download):
    raw = download("idrid")
    image = next(each for each in source("idrid").find(raw) if each.id == "IDRiD_03")  # the fourth eye lacks some
    assert image.masks["SE"] == ()
    mask, n_grey = masks_of("idrid", image, (SIZE, round(SIZE * 4288 / 2848)))["SE"]
    assert mask.shape == (SIZE, 72)
    assert not mask.any()
    assert n_grey == 0


def test_an_image_of_idrid_without_any_lesion_is_named(download):
    raw = download("idrid", 1)
    for file in [*raw.rglob("*_??.tif")]:
        if not file.name.endswith("_OD.tif"):
            file.unlink()
    (image,) = source("idrid").find(raw)
    with pytest.raises(DataError, match=r"IDRiD_01\.jpg: no mask of any lesion; .*Unpack the masks again"):
        masks_of("idrid", image, (SIZE, 72))


def test_a_mask_of_ddr_must_be_there(download):
    raw = download("ddr")
    next(raw.rglob("train/label/SE/*.tif")).unlink()
    with pytest.raises(DataError, match=r"train/image/007-0001-000\.jpg: no mask in train/label/SE"):
        source("ddr").find(raw)


def test_images_of_drive_without_vessels_are_left_out(download, caplog):
    raw = download("drive")
    for file in (raw / "test/1st_manual").iterdir():
        file.unlink()
    caplog.set_level(logging.INFO)
    images = source("drive").find(raw)
    assert splits("drive", images) == {"train": 2}
    assert "2 images without vessels of the first observer (test/images/01_test.tif" in inventory(caplog)
    assert "2 masks of the field of view of images that are not used" in inventory(caplog)


# --- names


def test_two_files_for_one_id_are_refused(download):
    raw = download("stare", 1)
    copy = raw / "stare-images/im0001.ppm"
    copy.write_bytes(b"")
    with pytest.raises(DataError, match=r"another file for IM0001 is .*expected one"):
        source("stare").find(raw)


def test_an_image_in_two_parts_of_ddr_is_refused(download):
    raw = download("ddr")
    for file in [*raw.rglob("train/**/007-0001-000.*")]:
        target = raw / file.relative_to(raw).as_posix().replace("/train/", "/test/")
        target.write_bytes(file.read_bytes())
    with pytest.raises(DataError, match=r"test/image/007-0001-000\.jpg: also in another part .*Remove one"):
        source("ddr").find(raw)


def test_names_of_aria_with_spaces_and_numbers_before_them(download):
    raw = download("aria", 1)
    image = raw / "aria_a_markups/aria_a_1_1.tif"
    image.rename(image.with_name("(0007)aria_a _1_1.tif"))
    with pytest.raises(DataError, match="no images"):
        source("aria").find(raw)
    image.with_name("(0007)aria_a _1_1.tif").rename(image.with_name("(0007)aria_a_1 _1.tif"))
    assert [each.id for each in source("aria").find(raw)] == ["aria_a_1_1"]


# --- values


def saved(path, values):
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def test_values_of_a_map_of_refuge(download):
    raw = download("refuge", 1)
    (image,) = source("refuge").find(raw)
    saved(image.masks["disc"][0], [[255, 128], [0, 255]])
    masks = masks_of("refuge", image, (2, 2))
    assert masks["disc"][0].tolist() == [[False, True], [True, False]]
    assert masks["cup"][0].tolist() == [[False, False], [True, False]]
    saved(image.masks["disc"][0], [[255, 127], [0, 3]])
    with pytest.raises(DataError, match=r"g0001\.bmp: grey values 3 \(1 px\), 127 \(1 px\); expected 0 \(cup\), 128"):
        masks_of("refuge", image, (2, 2))
    with pytest.raises(DataError, match=r"g0001\.bmp: 2 x 2 pixels .* g0001\.jpg has 4 x 4; expected the same"):
        masks_of("refuge", image, (4, 4))


def test_palette_masks_of_idrid_are_read_whatever_their_grey(download):
    raw = download("idrid", 1)
    (image,) = source("idrid").find(raw)
    with Image.open(image.masks["HE"][0]) as picture:
        assert picture.mode == "P"
        assert set(np.unique(np.asarray(picture.convert("L")))) == {0, 76}


def test_later_lesions_paint_over_earlier_ones(download):
    raw = download("ddr", 1)
    (image,) = source("ddr").find(raw)
    columns = {"EX": [1, 1, 1, 1], "HE": [0, 1, 1, 1], "SE": [0, 0, 1, 1], "MA": [0, 0, 0, 1]}
    for kind, row in columns.items():
        saved(image.masks[kind][0], [[255 * value for value in row]] * 2)
    masks = masks_of("ddr", image, (2, 4))
    assert [np.flatnonzero(masks[kind][0][0]).tolist() for kind in columns] == [[0], [1], [2], [3]]
