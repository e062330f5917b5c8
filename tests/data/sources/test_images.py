"""Raw layouts of the image sets: what is found, how it is read, how it is split, and what is said of damaged files."""

import csv
import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data.prepare.splits import split_images
from data.sources import isic, jsrt, shenzhen
from data.sources.raw_images import RawImage
from util.errors import DataError

ROOT = Path(__file__).parents[3]


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, np.uint8)).save(path)
    return path


def isic_part(raw, part, ids):
    for id_ in ids:
        save(raw / f"ISIC-2017_{part}_Data" / f"{id_}.jpg", np.full((6, 8, 3), 90))
        save(raw / f"ISIC-2017_{part}_Part1_GroundTruth" / f"{id_}_segmentation.png", np.eye(6, 8) * 255)


def jsrt_image(raw, id_, values=None, fold="fold1"):
    values = np.arange(64 * 64).reshape(64, 64) if values is None else values
    path = raw / "All247images" / f"{id_}.IMG"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.asarray(values).astype(">u2").tobytes())
    for position, side in enumerate(("left lung", "right lung", "heart", "left clavicle", "right clavicle")):
        mask = np.zeros((32, 32))
        mask[:, 4 * position : 4 * position + 4] = 255
        save(raw / "scratch" / fold / "masks" / side / f"{id_}.gif", mask)
    return path


def raws(ids, part=""):
    return [RawImage(id_, Path(id_), {}, part) for id_ in ids]


# --- ISIC 2017


def test_isic_parts_are_found_by_their_masks(tmp_path):
    isic_part(tmp_path, "Training", ["ISIC_0000002", "ISIC_0000001"])
    isic_part(tmp_path, "Test_v2", ["ISIC_0000003"])
    isic_part(tmp_path, "Validation", ["ISIC_0000004"])
    save(tmp_path / "ISIC-2017_Training_Data" / "ISIC_0000001_superpixels.png", np.zeros((6, 8)))
    images = isic.find_images(tmp_path)
    assert [image.id[-1] for image in images] == ["1", "2", "3", "4"]
    assert images[0].image.name == "ISIC_0000001.jpg"
    assert [file.name for file in images[0].masks["lesion"]] == ["ISIC_0000001_segmentation.png"]
    splits = isic.official_split(images)
    assert list(splits.values()) == ["train", "train", "test", "unused"]


def test_an_isic_part_unpacked_into_a_folder_of_its_name_is_found(tmp_path):
    isic_part(tmp_path / "inner", "Training", ["ISIC_0000001"])
    for folder in list((tmp_path / "inner").iterdir()):
        (tmp_path / folder.name).mkdir()
        folder.rename(tmp_path / folder.name / folder.name)
    assert [image.id for image in isic.find_images(tmp_path)] == ["ISIC_0000001"]


def test_isic_pairs_must_be_complete(tmp_path):
    isic_part(tmp_path, "Training", ["ISIC_0000001", "ISIC_0000002"])
    image = tmp_path / "ISIC-2017_Training_Data" / "ISIC_0000002.jpg"
    content = image.read_bytes()
    image.unlink()
    with pytest.raises(DataError, match=r"ISIC_0000002_segmentation\.png: no image in .*Training_Data .*Unpack"):
        isic.find_images(tmp_path)
    image.write_bytes(content)
    (tmp_path / "ISIC-2017_Training_Part1_GroundTruth" / "ISIC_0000001_segmentation.png").unlink()
    with pytest.raises(DataError, match=r"ISIC_0000001\.jpg: no mask in .*GroundTruth .*Unpack"):
        isic.find_images(tmp_path)


def test_an_isic_image_in_two_parts_is_refused(tmp_path):
    isic_part(tmp_path, "Training", ["ISIC_0000001"])
    isic_part(tmp_path, "Test_v2", ["ISIC_0000001"])
    with pytest.raises(DataError, match=r"also in another part .*Remove one"):
        isic.find_images(tmp_path)


def test_no_isic_at_all_tells_what_to_download(tmp_path):
    with pytest.raises(DataError, match=r"no masks under .*ISIC2017/README\.md.*--raw"):
        isic.find_images(tmp_path / "absent")


def test_a_missing_official_part_names_the_other_ways_to_split(tmp_path):
    isic_part(tmp_path, "Validation", ["ISIC_0000001", "ISIC_0000002"])
    images = isic.find_images(tmp_path)
    with pytest.raises(DataError, match=r"Training_Data and ISIC-2017_Test_v2_Data.*random:0\.25.*--split FILE\.csv"):
        split_images(images, None, isic.SOURCE.split_rules, "ISIC2017")
    rule, splits = split_images(images, "random:0.5", isic.SOURCE.split_rules, "ISIC2017")
    assert rule == "random:0.5"
    assert sorted(splits.values()) == ["test", "train"]


def two_files_are_named(find, raw, first, second):
    with pytest.raises(DataError, match=r"expected one\. Remove") as caught:
        find(raw)
    assert str(first) in str(caught.value)
    assert str(second) in str(caught.value)


def test_two_files_of_an_isic_image_or_mask_are_refused(tmp_path):
    isic_part(tmp_path, "Training", ["ISIC_0000001"])
    data, masks = tmp_path / "ISIC-2017_Training_Data", tmp_path / "ISIC-2017_Training_Part1_GroundTruth"
    second = save(data / "ISIC_0000001.png", np.zeros((6, 8, 3)))
    two_files_are_named(isic.find_images, tmp_path, data / "ISIC_0000001.jpg", second)
    second.unlink()
    second = save(data / data.name / "ISIC_0000001.jpg", np.zeros((6, 8, 3)))  # unpacked twice
    two_files_are_named(isic.find_images, tmp_path, data / "ISIC_0000001.jpg", second)
    second.unlink()
    second = save(masks / "isic_0000001_SEGMENTATION.PNG", np.zeros((6, 8)))
    two_files_are_named(isic.find_images, tmp_path, masks / "ISIC_0000001_segmentation.png", second)


def test_isic_files_that_are_not_used_are_counted_and_named(tmp_path, caplog):
    isic_part(tmp_path, "Training", ["ISIC_0000001"])
    data = tmp_path / "ISIC-2017_Training_Data"
    for name in ("ISIC_0000001_superpixels.png", "IMG_7.jpg", "._ISIC_0000001.jpg"):
        save(tmp_path / "x.png", np.zeros((6, 8))).rename(data / name)
    save(tmp_path / "Data" / "ISIC_0000009.jpg", np.zeros((6, 8)))
    caplog.set_level("INFO")
    isic.find_images(tmp_path)
    (message,) = (text for text in caplog.messages if "files found" in text)
    assert message.startswith("ISIC2017: 6 files found, 2 used, 4 left out: ")
    assert "1 superpixels of the challenge, which are not needed (ISIC-2017_Training_Data/ISIC_0000001_sup" in message
    assert "1 without a name such as ISIC_0000000.jpg" in message
    assert "ISIC-2017_Training_Data/IMG_7.jpg" in message
    assert "1 hidden" in message
    assert "(Data/ISIC_0000009.jpg)" in message


# --- JSRT


def test_copies_of_jsrt_files_are_refused(tmp_path):
    image = jsrt_image(tmp_path, "JPCLN001")
    copy = save(tmp_path / "converted/JPCLN001.png", np.zeros((64, 64)))
    two_files_are_named(jsrt.find_images, tmp_path, image, copy)
    copy.unlink()
    for folder in ("scratch/fold2/masks", "backup/fold1/masks"):
        mask = save(tmp_path / folder / "heart/JPCLN001.gif", np.zeros((32, 32)))
        two_files_are_named(jsrt.find_images, tmp_path, tmp_path / "scratch/fold1/masks/heart/JPCLN001.gif", mask)
        mask.unlink()


def test_jsrt_files_that_are_not_used_are_counted_and_named(tmp_path, caplog):
    jsrt_image(tmp_path, "JPCLN001")
    save(tmp_path / "All247images/chest.png", np.zeros((4, 4)))
    save(tmp_path / "scratch/fold1/masks/spine/JPCLN001.gif", np.zeros((4, 4)))
    jsrt.find_images(tmp_path)
    (message,) = (text for text in caplog.messages if "files found" in text)
    assert message.startswith("JSRT: 8 files found, 6 used, 2 left out: ")
    assert "1 without a name such as JPCLN001.IMG or JPCNN001.png (All247images/chest.png)" in message
    assert "(scratch/fold1/masks/spine/JPCLN001.gif)" in message


def test_jsrt_images_without_a_published_id_are_named(caplog):
    jsrt.seeded_split(raws(["JPCLN001", "JPCNN999"]))
    assert caplog.messages == ["JSRT: 1 images have no published id and are not used: JPCNN999"]


def test_jsrt_masks_of_both_sides_belong_together(tmp_path):
    jsrt_image(tmp_path, "JPCNN002", fold="fold2")
    jsrt_image(tmp_path, "JPCLN001")
    first, second = jsrt.find_images(tmp_path)
    assert (first.id, first.part, second.id, second.part) == ("JPCLN001", "fold1", "JPCNN002", "fold2")
    names = {key: [file.parent.name for file in files] for key, files in first.masks.items()}
    assert names == {
        "lung": ["left lung", "right lung"],
        "heart": ["heart"],
        "clavicle": ["left clavicle", "right clavicle"],
    }
    assert jsrt.scr_split([first, second]) == {"JPCLN001": "train", "JPCNN002": "test"}


def test_prepared_images_below_the_download_are_no_radiographs(tmp_path):
    jsrt_image(tmp_path, "JPCLN001")
    save(tmp_path / "prepared_256px" / "images" / "JPCLN002.png", np.zeros((4, 4)))
    assert [image.id for image in jsrt.find_images(tmp_path)] == ["JPCLN001"]


def test_jsrt_pairs_must_be_complete(tmp_path):
    image = jsrt_image(tmp_path, "JPCLN001")
    mask = tmp_path / "scratch/fold1/masks/right clavicle/JPCLN001.gif"
    mask.rename(tmp_path / "kept")
    with pytest.raises(DataError, match=r"JPCLN001\.IMG: no mask in fold1/masks/right clavicle.*Unpack"):
        jsrt.find_images(tmp_path)
    (tmp_path / "kept").rename(mask)
    image.rename(image.with_name("JPCLN003.IMG"))
    with pytest.raises(DataError, match=r"left lung/JPCLN001\.gif: no radiograph"):
        jsrt.find_images(tmp_path)


def test_no_jsrt_tells_which_half_is_missing(tmp_path):
    with pytest.raises(DataError, match=r"no radiographs under .*JSRT/README\.md"):
        jsrt.find_images(tmp_path)
    save(tmp_path / "JPCLN001.png", np.zeros((4, 4)))
    with pytest.raises(DataError, match=r"no masks under"):
        jsrt.find_images(tmp_path)


def test_a_headerless_radiograph_is_big_endian_of_12_bits(tmp_path):
    path = jsrt_image(tmp_path, "JPCLN001", [[0, 4095], [256, 1]])
    np.testing.assert_allclose(jsrt.read_radiograph(path), [[0, 255], [256 * 255 / 4095, 255 / 4095]], rtol=1e-6)


def test_damaged_radiographs_are_named(tmp_path):
    path = jsrt_image(tmp_path, "JPCLN001")
    whole = path.read_bytes()
    path.write_bytes(whole[:-2])
    with pytest.raises(DataError, match=r"JPCLN001\.IMG: 8190 bytes; expected 8388608 .*download the file again"):
        jsrt.read_radiograph(path)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="0 bytes"):
        jsrt.read_radiograph(path)
    path.write_bytes(np.frombuffer(whole, ">u2").astype("<u2").tobytes())
    with pytest.raises(DataError, match=r"values up to \d+; expected 12 bits.*Download"):
        jsrt.read_radiograph(path)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 200]], np.uint8), [[0, 200]]),
        (np.array([[0, 4095]], np.uint16), [[0, 255]]),
        (np.array([[0, 65535]], np.uint16), [[0, 255]]),
    ],
)
def test_converted_radiographs_keep_their_scale(tmp_path, values, expected):
    Image.fromarray(values).save(tmp_path / "JPCLN001.png")
    np.testing.assert_allclose(jsrt.read_radiograph(tmp_path / "JPCLN001.png"), expected)


def film(lung_grey, between_grey, air_grey):
    image = np.full((12, 12), air_grey, np.uint8)
    lung = np.zeros((12, 12), bool)
    lung[3:9, 3:5] = lung[3:9, 7:9] = True
    image[3:9, 3:9] = between_grey
    image[lung] = lung_grey
    return image, {"lung": lung}


@pytest.mark.parametrize("suffix", ["IMG", "png"])
def test_lungs_end_up_dark(suffix):
    raw = RawImage("JPCLN001", Path(f"JPCLN001.{suffix}"), {}, "")
    # The air around the patient is darker still: against the whole rest the lungs would look bright.
    usual, masks = film(60, 180, 0)
    image, cells = jsrt.invert_bright_lungs(raw, usual, masks)
    np.testing.assert_array_equal(image, usual)
    assert cells == {"is_inverted": "0"}
    image, cells = jsrt.invert_bright_lungs(raw, 255 - usual, masks)
    np.testing.assert_array_equal(image, usual)
    assert cells == {"is_inverted": "1"}


def test_without_lungs_the_file_format_decides():
    image, empty = np.full((4, 4), 9, np.uint8), {"lung": np.zeros((4, 4), bool)}
    for suffix, expected in (("IMG", 246), ("png", 9)):
        turned, _ = jsrt.invert_bright_lungs(RawImage("a", Path(f"a.{suffix}"), {}, ""), image, empty)
        assert np.unique(turned) == [expected]


def test_the_published_jsrt_split_is_the_rule():
    with (ROOT / "data/JSRT/split.csv").open(newline="") as stream:
        listed = {row["id"]: row["split"] for row in csv.DictReader(stream)}
    assert Counter(listed.values()) == {"train": 197, "test": 50}
    assert jsrt.seeded_split(raws(sorted(listed))) == listed
    random_ids = random.Random(0).sample(sorted(listed), 50)
    assert {id_ for id_, split in listed.items() if split == "test"} == set(random_ids)


def test_the_jsrt_split_of_an_image_does_not_depend_on_the_others():
    ids = ["JPCLN011", "JPCLN012", "JPCNN001", "JPCNN999"]
    assert list(jsrt.seeded_split(raws(ids)).values()) == ["test", "train", "test", "unused"]


def test_folds_are_asked_for_where_there_are_none():
    image = RawImage("JPCLN001", Path("a"), {"heart": (Path("masks/heart/a.gif"),)}, "")
    with pytest.raises(DataError, match=r"masks/heart/a\.gif: in neither fold1 nor fold2.*leave --split out"):
        jsrt.scr_split([image])


# --- Shenzhen


def shenzhen_image(raw, id_, has_mask=True):
    save(raw / "img" / f"{id_}.png", np.full((6, 5, 3), 200))
    if has_mask:
        save(raw / "mask" / f"{id_}_mask.png", np.eye(6, 5) * 255)


def test_shenzhen_images_without_a_mask_are_passed_over(tmp_path):
    for id_ in ("CHNCXR_0001_0", "CHNCXR_0002_1"):
        shenzhen_image(tmp_path, id_)
    shenzhen_image(tmp_path, "CHNCXR_0003_1", has_mask=False)
    images = shenzhen.find_images(tmp_path)
    assert [(image.id, image.part) for image in images] == [
        ("CHNCXR_0001_0", "normal"),
        ("CHNCXR_0002_1", "tuberculosis"),
    ]
    (tmp_path / "img/CHNCXR_0002_1.png").unlink()
    with pytest.raises(DataError, match=r"CHNCXR_0002_1_mask\.png: no radiograph in .*Unpack"):
        shenzhen.find_images(tmp_path)


def test_radiographs_of_another_hospital_are_counted_and_named(tmp_path, caplog):
    shenzhen_image(tmp_path, "CHNCXR_0001_0")
    shenzhen_image(tmp_path, "CHNCXR_0002_1", has_mask=False)
    for number in range(7):
        save(tmp_path / f"img/MCUCXR_{number:04d}_0.png", np.zeros((6, 5)))
        save(tmp_path / f"mask/MCUCXR_{number:04d}_0.png", np.zeros((6, 5)))
    shenzhen.find_images(tmp_path)
    (message,) = (text for text in caplog.messages if "files found" in text)
    assert message.startswith("SHENZHEN: 17 files found, 2 used, 15 left out: ")
    names = ", ".join(f"img/MCUCXR_{number:04d}_0.png" for number in range(5))
    assert f"7 without the name of a radiograph of Shenzhen, such as CHNCXR_0001_0.png ({names}, ...)" in message
    assert "7 without the name of a mask of Shenzhen" in message
    assert "1 radiographs without a mask (img/CHNCXR_0002_1.png)" in message


@pytest.mark.parametrize("folder", ["masks", "mask/mask"])
def test_two_masks_of_a_shenzhen_radiograph_are_refused(tmp_path, folder):
    shenzhen_image(tmp_path, "CHNCXR_0001_0")
    second = save(tmp_path / folder / "CHNCXR_0001_0_mask.png", np.zeros((6, 5)))
    two_files_are_named(shenzhen.find_images, tmp_path, tmp_path / "mask/CHNCXR_0001_0_mask.png", second)


def test_no_shenzhen_tells_what_to_download(tmp_path):
    with pytest.raises(DataError, match=r"no radiographs under .*SHENZHEN/README\.md"):
        shenzhen.find_images(tmp_path)


def test_the_reference_split_draws_from_all_ids():
    # What Python's documented generator gives for random.seed(0); random.sample(range(566), 170): the lowest 20.
    first = [1, 8, 13, 14, 16, 19, 23, 31, 35, 37, 41, 42, 45, 46, 51, 59, 61, 63, 64, 66]
    images = raws([f"CHNCXR_{n:04d}_{n % 2}" for n in range(566)])
    _, splits = split_images(images[::-1], "reference", shenzhen.SOURCE.split_rules, "SHENZHEN")
    test = [position for position, image in enumerate(images) if splits[image.id] == "test"]
    assert len(test) == 170
    assert test[:20] == first
    assert splits == split_images(images, "random:0.3", {}, "SHENZHEN")[1]


def test_the_usual_split_keeps_the_share_of_tuberculosis():
    images = raws([f"a{n}" for n in range(279)], "normal") + raws([f"b{n}" for n in range(287)], "tuberculosis")
    rule, splits = split_images(images, None, shenzhen.SOURCE.split_rules, "SHENZHEN")
    assert rule == "stratified"
    assert Counter(id_[0] for id_, split in splits.items() if split == "test") == {"a": 84, "b": 86}


def test_the_parts_are_drawn_independently():
    images = raws([f"a{n:02d}" for n in range(50)], "normal") + raws([f"b{n:02d}" for n in range(50)], "tuberculosis")
    splits = shenzhen.SOURCE.split_rules["stratified"](images)
    tested = [{id_[1:] for id_, split in splits.items() if split == "test" and id_[0] == part} for part in "ab"]
    assert list(map(len, tested)) == [15, 15]
    assert tested[0] != tested[1]
