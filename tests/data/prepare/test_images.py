"""Preparation of image sets: content, manifest, resuming, splits, warnings and messages."""

import csv
import json
import logging
import pickle
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from data.check.images import check_images
from data.prepare import images as module
from data.prepare.__main__ import main
from data.prepare.images import prepare_images
from dataloaders.catalog import dataset
from dataloaders.images.folder import ImageFolder
from dataloaders.images.geometry import resize_image, resize_nearest
from dataloaders.io.png import read_image, read_mask
from util import items
from util.errors import ConfigError, DataError
from util.files import file_sha256

ISIC2017 = dataset("ISIC2017")
JSRT = dataset("JSRT")
SHENZHEN = dataset("SHENZHEN")

SIZE = 16
IDS = [f"ISIC_{n:07d}" for n in range(6)]


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)
    return path


@pytest.fixture
def raw(tmp_path):
    """Four images for training, two for testing: 32 x 48, red object on blue in the upper left quarter."""
    for position, id_ in enumerate(IDS):
        part = "Training" if position < 4 else "Test_v2"
        mask = np.zeros((32, 48), np.uint8)
        mask[:16, :24] = 255
        image = np.zeros((32, 48, 3), np.uint8)
        image[..., 2], image[mask > 0] = 200, (200, position, 0)
        save(tmp_path / "raw" / f"ISIC-2017_{part}_Data" / f"{id_}.png", image)
        save(tmp_path / "raw" / f"ISIC-2017_{part}_Part1_GroundTruth" / f"{id_}_segmentation.png", mask)
    return tmp_path / "raw"


def image_file(raw, position):
    return next(raw.glob(f"*_Data/{IDS[position]}.png"))


def mask_file(raw, position):
    return next(raw.glob(f"*_GroundTruth/{IDS[position]}_segmentation.png"))


def rows_of(folder):
    with (folder / "manifest.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def state_of(folder):
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*.png")}


def exif(orientation):
    content = Image.Exif()
    content[274] = orientation
    return content


@pytest.mark.parametrize(
    ("size", "mask_is"), [((32, 32), "as displayed"), ((32, 48), "as displayed"), ((32, 48), "as stored")]
)
def test_turned_images_meet_their_masks(tmp_path, raw, size, mask_is):
    """The object is dark; masks drawn on the stored picture are told by their size."""
    stored = np.full((*size, 3), 200, np.uint8)
    stored[:8, :20] = 10
    Image.fromarray(stored).save(image_file(raw, 0), exif=exif(6))
    drawn = stored[..., 0] < 100
    drawn = np.rot90(drawn, -1) if mask_is == "as displayed" else drawn
    save(mask_file(raw, 0), drawn.astype(np.uint8) * 255)
    images = ImageFolder(prepare_images(ISIC2017, raw, tmp_path, SIZE), ISIC2017)
    image, mask = read_image(images.image_path(IDS[0])), read_mask(images.mask_path(IDS[0], "lesion"))
    assert 0.05 < mask.mean() < 0.3
    assert image[mask].mean() < 60
    assert image[~mask].mean() > 180


def test_a_mask_that_does_not_fit_a_turned_image_is_named_with_the_orientation(tmp_path, raw):
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(image_file(raw, 0), exif=exif(6))
    save(mask_file(raw, 0), np.zeros((20, 20), np.uint8))
    with pytest.raises(DataError, match=r"20 x 20 .* has 48 x 32 as displayed \(EXIF orientation 6\); expected"):
        prepare_images(ISIC2017, raw, tmp_path, SIZE)


def test_a_mask_with_two_labels_is_refused(tmp_path, raw):
    mask = np.zeros((32, 48), np.uint8)
    mask[2:10, 2:10], mask[20:30, 30:40] = 100, 200
    save(mask_file(raw, 0), mask)
    with pytest.raises(DataError, match=r"0_segmentation\.png: values 100 \(64 pixels\), 200 \(100 pixels\) besides 0"):
        prepare_images(ISIC2017, raw, tmp_path, SIZE)


def test_a_prepared_folder_is_complete(tmp_path, raw):
    folder = prepare_images(ISIC2017, raw, tmp_path, SIZE)
    assert folder == tmp_path / "ISIC2017/prepared_16px"
    images = ImageFolder(folder, ISIC2017)
    assert images.ids("train") == tuple(IDS[:4])
    assert images.ids("test") == tuple(IDS[4:])
    image, mask = read_image(images.image_path(IDS[3])), read_mask(images.mask_path(IDS[3], "lesion"))
    assert image.shape == (SIZE, SIZE, 3)
    assert mask.tolist() == [[row < 8 and column < 8 for column in range(SIZE)] for row in range(SIZE)]
    np.testing.assert_array_equal(image[:6, :6], np.full((6, 6, 3), (200, 3, 0)))
    np.testing.assert_array_equal(image[10:], np.full((6, SIZE, 3), (0, 0, 200)))
    assert set(np.unique(np.asarray(Image.open(images.mask_path(IDS[3], "lesion"))))) == {0, 255}


def test_the_manifest_tells_where_everything_is_from(tmp_path, raw):
    folder = prepare_images(ISIC2017, raw, tmp_path, SIZE)
    row = rows_of(folder)[0]
    assert list(row) == [
        *("id", "split", "image", "mask_lesion", "original_height_px", "original_width_px", "image_sha256"),
        *("inputs_sha256", "n_not_binary_px_lesion", "n_object_px_lesion"),
    ]
    assert (row["image"], row["mask_lesion"]) == (f"images/{IDS[0]}.png", f"masks/lesion/{IDS[0]}.png")
    assert (row["original_height_px"], row["original_width_px"], row["n_object_px_lesion"]) == ("32", "48", "64")
    assert row["image_sha256"] == file_sha256(folder / row["image"])
    description = json.loads((folder / "dataset.json").read_text())
    assert description["split"] == {"rule": "official", "seed": 0, "n_test": 2, "n_train": 4}
    assert {key: description[key] for key in ("dataset", "size_px", "channels", "structures", "n_empty")} == {
        **{"dataset": "ISIC2017", "size_px": SIZE, "channels": 3, "structures": ["lesion"]},
        "n_empty": {"lesion": 0},
    }
    assert set(description["versions"]) == {"python", "numpy", "pillow"}
    assert not (folder / "manifest.unfinished.csv").exists()


def test_a_second_run_touches_nothing(tmp_path, raw, caplog):
    folder = prepare_images(ISIC2017, raw, tmp_path, SIZE)
    before, manifest = state_of(folder), (folder / "manifest.csv").read_bytes()
    caplog.set_level(logging.INFO)
    prepare_images(ISIC2017, raw, tmp_path, SIZE)
    assert state_of(folder) == before
    assert (folder / "manifest.csv").read_bytes() == manifest
    assert f"ISIC2017: 0 images prepared, 6 already up to date: {folder}" in caplog.messages


def test_only_what_has_changed_is_made_again(tmp_path, raw, caplog):
    folder = prepare_images(ISIC2017, raw, tmp_path, SIZE)
    before = state_of(folder)
    save(mask_file(raw, 1), np.full((32, 48), 255, np.uint8))
    (folder / "masks/lesion" / f"{IDS[2]}.png").unlink()
    caplog.set_level(logging.INFO)
    prepare_images(ISIC2017, raw, tmp_path, SIZE)
    after = state_of(folder)
    changed = {path.stem for path in after if after[path] != before[path]}
    assert changed == {IDS[1], IDS[2]}
    assert read_mask(folder / "masks/lesion" / f"{IDS[1]}.png").all()
    assert rows_of(folder)[1]["n_object_px_lesion"] == str(SIZE**2)
    assert f"ISIC2017: 2 images prepared, 4 already up to date: {folder}" in caplog.messages
    assert check_images(folder, ISIC2017) == []


def test_a_new_recipe_makes_all_images_again(tmp_path, raw, caplog, monkeypatch):
    folder = prepare_images(ISIC2017, raw, tmp_path, SIZE)
    monkeypatch.setattr(module, "RECIPE", "another")
    caplog.set_level(logging.INFO)
    prepare_images(ISIC2017, raw, tmp_path, SIZE)
    assert f"ISIC2017: 6 images prepared, 0 already up to date: {folder}" in caplog.messages


def test_a_stopped_run_goes_on_where_it_was(tmp_path, raw, caplog, monkeypatch):
    monkeypatch.setattr(module, "NOTE_EVERY", 2)
    content = image_file(raw, 4).read_bytes()
    image_file(raw, 4).write_bytes(content[:40])
    with pytest.raises(DataError, match=rf"{IDS[4]}\.png: cannot be read"):
        prepare_images(ISIC2017, raw, tmp_path, SIZE)
    folder = tmp_path / "ISIC2017/prepared_16px"
    assert len(rows_of(folder)) == 5
    told = [str(finding) for finding in check_images(folder, ISIC2017)]  # nothing trains on half a set
    assert [line for line in told if "1 images could not be prepared" in line and f"{IDS[4]}.png: cannot be" in line]
    image_file(raw, 4).write_bytes(content)
    caplog.set_level(logging.INFO)
    prepare_images(ISIC2017, raw, tmp_path, SIZE)
    assert f"ISIC2017: 1 images prepared, 5 already up to date: {folder}" in caplog.messages
    assert check_images(folder, ISIC2017) == []
    assert not (folder / "manifest.unfinished.csv").exists()


def test_another_split_makes_no_image_again(tmp_path, raw):
    folder = prepare_images(ISIC2017, raw, tmp_path, SIZE)
    before = state_of(folder)
    prepare_images(ISIC2017, raw, tmp_path, SIZE, split="random:0.5")
    assert Counter(row["split"] for row in rows_of(folder)) == {"train": 3, "test": 3}
    assert state_of(folder) == before


def test_the_work_can_be_sent_to_other_processes(tmp_path, raw, monkeypatch):
    def send(function, items, jobs, description):
        assert jobs == 2
        return map(pickle.loads(pickle.dumps(function)), pickle.loads(pickle.dumps(items)))

    one = prepare_images(ISIC2017, raw, tmp_path / "one", SIZE)
    monkeypatch.setattr(items, "parallel_map", send)
    two = prepare_images(ISIC2017, raw, tmp_path / "two", SIZE, jobs=2)
    files = {path.relative_to(one) for path in one.rglob("*") if path.is_file()}
    assert len(files) == 15
    assert all((one / file).read_bytes() == (two / file).read_bytes() for file in files)


def test_grey_and_empty_masks_are_reported_once(tmp_path, raw, caplog):
    for position in (0, 2):
        grey = np.zeros((32, 48), np.uint8)
        grey[:16, :24], grey[16] = 255, 100
        save(mask_file(raw, position), grey)
    save(mask_file(raw, 5), np.zeros((32, 48), np.uint8))
    folder = prepare_images(ISIC2017, raw, tmp_path, SIZE)
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert told[1:] == [
        "ISIC2017 lesion: 2 masks with grey pixels, 96 in all; those above half of the range are object: "
        f"{IDS[0]}, {IDS[2]}",
        f"ISIC2017 lesion: 1 empty masks, kept: {IDS[5]}",
    ]
    assert [row["n_not_binary_px_lesion"] for row in rows_of(folder)] == ["48", "0", "48", "0", "0", "0"]
    description = json.loads((folder / "dataset.json").read_text())
    assert description["n_empty"] == {"lesion": 1}
    assert description["n_not_binary"] == {"lesion": 2}
    assert read_mask(folder / "masks/lesion" / f"{IDS[0]}.png").sum() == 64


def test_a_mask_of_another_size_is_named(tmp_path, raw):
    save(mask_file(raw, 1), np.zeros((30, 48), np.uint8))
    message = rf"{IDS[1]}_segmentation\.png: 30 x 48 pixels .*{IDS[1]}\.png has 32 x 48; expected the same\. Unpack"
    with pytest.raises(DataError, match=message):
        prepare_images(ISIC2017, raw, tmp_path, SIZE)


def test_an_impossible_size_is_refused(tmp_path, raw):
    with pytest.raises(ConfigError, match="--size-px 8: expected 16 or more"):
        prepare_images(ISIC2017, raw, tmp_path, 8)


def jsrt_image(raw, id_, inverted=True, mask_px=32):
    """Dark lungs left and right, a bright heart between them, dark air around; one quarter of all for each lung."""
    bright = np.full((64, 64), 300)
    bright[16:48, 8:56] = 3000
    bright[16:48, 8:24], bright[16:48, 40:56] = 1000, 1000
    raw.mkdir(parents=True, exist_ok=True)
    (raw / f"{id_}.IMG").write_bytes((4095 - bright if inverted else bright).astype(">u2").tobytes())
    columns = {"left lung": (4, 12), "right lung": (20, 28), "heart": (10, 22)}
    for side in ("left lung", "right lung", "heart", "left clavicle", "right clavicle"):
        mask = np.zeros((mask_px, mask_px), np.uint8)
        first, last = columns.get(side, (4, 28))
        mask[8:24, first:last] = 255
        save(raw / "fold1/masks" / side / f"{id_}.gif", mask)


def test_radiographs_are_turned_to_the_usual_display(tmp_path, caplog):
    for id_ in ("JPCNN001", "JPCNN002", "JPCNN003"):
        jsrt_image(tmp_path / "raw", id_, inverted=id_ != "JPCNN002")
    folder = prepare_images(JSRT, tmp_path / "raw", tmp_path, 32)
    images = ImageFolder(folder, JSRT)
    for id_ in ("JPCNN001", "JPCNN002"):
        image = read_image(images.image_path(id_))
        assert image.shape == (32, 32)
        assert image[16, [8, 16, 1]].tolist() == [62, 187, 19]  # lung, heart, air: 1000, 3000 and 300 of 4095
    lung, heart, clavicle = (read_mask(images.mask_path("JPCNN001", s.name)) for s in JSRT.classes)
    assert (lung.sum(), heart.sum(), clavicle.sum()) == (2 * 16 * 8, 16 * 12, 16 * 24)
    assert (lung & heart).any()  # overlap is kept
    assert [row["is_inverted"] for row in rows_of(folder)] == ["1", "0", "1"]
    assert [row["split"] for row in rows_of(folder)] == ["test", "train", "test"]
    assert json.loads((folder / "dataset.json").read_text())["n_inverted"] == 2
    assert "JSRT: 1 images had another polarity than the rest: JPCNN002" in caplog.messages


def test_radiograph_masks_have_half_the_size(tmp_path):
    jsrt_image(tmp_path / "raw", "JPCNN001", mask_px=64)
    jsrt_image(tmp_path / "raw", "JPCNN002")
    with pytest.raises(DataError, match=r"left lung/JPCNN001\.gif: 64 x 64 .*has 64 x 64; expected 1/2 of that"):
        prepare_images(JSRT, tmp_path / "raw", tmp_path, 32)


def test_shenzhen_stays_on_its_scale(tmp_path):
    for number in range(8):
        id_ = f"CHNCXR_{number:04d}_{number % 2}"
        image = np.full((40, 30), 201, np.uint8)
        save(tmp_path / "raw/img" / f"{id_}.png", np.repeat(image[..., None], 3, -1) if number % 3 else image)
        save(tmp_path / "raw/mask" / f"{id_}_mask.png", np.eye(40, 30, dtype=np.uint8) * 255)
    folder = prepare_images(SHENZHEN, tmp_path / "raw", tmp_path, SIZE)
    assert all((read_image(path) == 201).all() for path in (folder / "images").iterdir())
    tested = [row["id"][-1] for row in rows_of(folder) if row["split"] == "test"]
    assert sorted(tested) == ["0", "1"]


def test_shrinking_averages_over_all_pixels():
    stripes = np.tile(np.array([0, 200], np.uint8), (64, 32))
    assert np.abs(resize_image(stripes, 8).astype(int)[:, 1:-1] - 100).max() <= 2
    rounded = resize_image(np.full((4, 4), 99.6, np.float32), 2)
    assert rounded.dtype == np.uint8
    assert rounded.tolist() == [[100, 100], [100, 100]]


def test_masks_take_the_nearest_pixel():
    mask = np.zeros((6, 6), bool)
    mask[1, 4] = True  # the centre of the upper right block of 3 x 3
    assert resize_nearest(mask, 2, 2).tolist() == [[False, True], [False, False]]


def test_a_prepared_image_that_was_altered_is_prepared_again(tmp_path, raw):
    folder = prepare_images(ISIC2017, raw, tmp_path, SIZE)
    image, mask = folder / f"images/{IDS[1]}.png", folder / f"masks/lesion/{IDS[2]}.png"
    before = image.read_bytes()
    save(image, np.zeros((SIZE, SIZE, 3), np.uint8))
    save(mask, np.eye(SIZE, dtype=np.uint8) * 255)
    prepare_images(ISIC2017, raw, tmp_path, SIZE)
    assert image.read_bytes() == before
    assert read_mask(mask).sum() == SIZE  # a correction by hand


def test_the_command_prepares_images(tmp_path, raw):
    main(["isic2017", "--raw", str(raw), "--out", str(tmp_path), "--size-px", "16", "--split", "random:0.5"])
    assert len(rows_of(tmp_path / "ISIC2017/prepared_16px")) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["isic2017", "--step", "convert"], "--step: not for sets of images. Leave it out for isic2017"),
        (["chaost2", "--split", "scr"], "--split: not for sets of scans. Leave it out for chaost2"),
        (
            ["isic2018"],
            "isic2018': unknown data set; expected one of ARIA, CHAOST2, DDR, DRIVE, IDRiD, ISIC2017, JSRT, MMS",
        ),
    ],
)
def test_options_that_do_not_apply_are_refused(tmp_path, arguments, message):
    with pytest.raises(ConfigError, match=message):
        main([*arguments, "--out", str(tmp_path)])
